"""Many requests in one body. Each line is answered by itself, as soon as it is finished, and none can harm another."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal
from uuid import uuid4

from annotated_types import Len
from pydantic import BaseModel, ConfigDict
from pydantic_core import from_json, to_json
from starlette.requests import Request

from service.api.answers import AnswerFormat
from service.api.batch_lines import MOST_LINES, cut_lists, lines, make_too_many_lines
from service.api.body import decode, decode_bounded, media_type_of, read_body
from service.api.lines import compile_line, decode_line
from service.api.problems import MOST_FIELD_ERRORS, error_body, status_at
from service.api.state import AppState, app_state
from service.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    Draining,
    FieldError,
    InvalidRequest,
    MalformedBody,
    wrong_field,
    wrong_fields,
)
from service.fail_fast import FAIL_FAST
from service.programs.admission import Ticket
from service.programs.background import LINE_BYTES
from service.programs.run import RequestInfo, read_done
from service.refinement.program import Program
from service.wire.model import BodyModel
from service.wire.problems import make_public
from service.wire.sse import json_line

JSON_LINES = ("application/jsonl", "application/x-ndjson", "application/x-jsonlines", "application/json-lines")
"""The media types of JSON lines; answers have the first."""
CHAT_URL = "/v1/chat/completions"
MOST_EVALUATORS = 4_096
"""In all lines: each costs the event loop some microseconds."""


class BatchLine(BodyModel):
    """One request, in the form of a line of OpenAI's batches. ``body``: what the endpoint at ``url`` takes."""

    custom_id: Annotated[str, Len(1, 128)]
    method: Literal["POST"] = "POST"
    url: Literal["/v1/generate", "/v1/critique", "/v1/refine", "/v1/chat/completions"]
    body: dict[str, Any]


class BatchRequest(BodyModel):
    """Requests that nobody waits for one by one; they are answered behind all others, in the order in which they are
    finished."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "requests": [
                        {"custom_id": "a", "url": "/v1/generate", "body": {"prompt": "Why is the sky blue?"}},
                        {"custom_id": "b", "url": "/v1/critique", "body": {"prompt": "2+2?", "candidate": "Four."}},
                    ]
                }
            ],
        }
    )

    requests: Annotated[tuple[BatchLine, ...], Len(0, MOST_LINES), FAIL_FAST]


class BatchResult(BaseModel):
    """The answer to the line ``custom_id``: the endpoint's ``body``, or a problem where ``status`` is not 200."""

    custom_id: str
    status: int
    body: dict[str, Any]


class ChatBatchResponse(BaseModel):
    """``body``: a chat completion, or an error as chat completions have it."""

    status_code: int
    request_id: str
    body: dict[str, Any]


class ChatBatchResult(BaseModel):
    """The answer to a chat completion's line, in the form of OpenAI's batches. ``error`` is always null."""

    id: str
    custom_id: str
    response: ChatBatchResponse
    error: None = None


@dataclass(frozen=True)
class Line:
    """A line whose envelope is valid. ``raw``: the bytes of the BatchLine; its body is not yet looked at."""

    custom_id: str
    url: str
    raw: bytes

    @property
    def body(self) -> bytes:
        """The request as JSON."""
        return to_json(from_json(self.raw)["body"])


async def read_batch(request: Request) -> list[Line]:
    """The lines that the request's body holds, as JSON or as JSON lines."""
    background = app_state(request).runner.background
    return await read_body(request, partial(decode_batch, max_line_bytes=background.max_line_bytes))


def decode_batch(body: bytes, content_type: str | None, max_line_bytes: int = LINE_BYTES) -> list[Line]:
    """The lines of a batch in either form. Raises BodyTooLarge, MalformedBody or InvalidRequest.

    Messages count lines from 1. A field is ``requests.0.url`` where the caller wrote a list, whose indices begin with
    0, and ``lines.1.url`` where the caller wrote lines.
    """
    if content_type is None or media_type_of(content_type) not in JSON_LINES:
        rest, found = cut_lists(body)
        decode(BatchRequest, rest, content_type)
        made = _decode_lines(found, max_line_bytes, "requests", first=0)
    else:
        made = _decode_lines(lines(body), max_line_bytes, "lines", first=1)
    if not made:
        raise wrong_field("requests", "there is no line")
    return made


def _decode_lines(raw_lines: Iterable[bytes], max_line_bytes: int, name: str, first: int) -> list[Line]:
    """The lines. ``first``: the index of the first one in the paths of errors, which begin with ``name``."""
    made, numbers, wrong = list[Line](), dict[str, int](), list[FieldError]()
    evaluators = 0
    for number, raw in enumerate(raw_lines, 1):
        if number > MOST_LINES:
            raise make_too_many_lines()
        path = f"{name}.{number - 1 + first}"
        try:
            if len(raw) > max_line_bytes:
                raise BodyTooLarge(f"line {number}: a line may have at most {max_line_bytes} bytes")
            line = decode(BatchLine, raw, None)
        except MalformedBody as error:
            raise MalformedBody(f"line {number}: {error.detail}") from None
        except InvalidRequest as error:
            wrong += _errors_under(path, error, raw)
            if len(wrong) >= MOST_FIELD_ERRORS:
                break
            continue
        if line.custom_id in numbers:
            wrong.append(FieldError(f"{path}.custom_id", f"line {numbers[line.custom_id]} has the same"))
            continue
        evaluators += _count_evaluators(line)
        if evaluators > MOST_EVALUATORS:
            raise wrong_field(path, f"the lines up to this one have more than {MOST_EVALUATORS:,} evaluators in all")
        numbers[line.custom_id] = number
        made.append(Line(line.custom_id, line.url, raw))
    if wrong:
        raise wrong_fields(wrong[:MOST_FIELD_ERRORS])
    return made


def _count_evaluators(line: BatchLine) -> int:
    """How many evaluators a line states, or may state: its body is not yet validated."""
    own = line.body.get("redraft") if line.url == CHAT_URL else line.body
    stated = own.get("evaluators") if isinstance(own, dict) else None
    return len(stated) if isinstance(stated, list) else 0


def _errors_under(path: str, error: InvalidRequest, raw: bytes) -> Iterator[FieldError]:
    """The errors of the line at ``path``."""
    is_object = isinstance(from_json(raw), dict)  # anything else has no fields
    return (FieldError(f"{path}.{item.field}" if is_object else path, item.message) for item in error.errors)


class LineFormat:
    """How a batch is answered: a line of JSON for each result."""

    def encode(self, event: BatchResult | ChatBatchResult) -> bytes:
        return json_line(event.model_dump())

    def encode_error(self, body: Mapping[str, Any]) -> bytes:
        return json_line(body)


async def run_batch(
    lines: Sequence[Line], state: AppState, info: RequestInfo
) -> AsyncGenerator[BatchResult | ChatBatchResult, None]:
    """The answer to each line as it is finished. Closing the generator ends all work.

    info: the batch's own request.
    """
    await state.check_ready()
    background = state.runner.background
    with state.runner.admission.batch(info.caller), background.queue(lines) as waiting:
        finished = asyncio.Queue[BatchResult | ChatBatchResult](maxsize=1)  # while nobody reads, no more is begun
        batch = _Batch(state, info, waiting, finished)
        workers = [asyncio.create_task(batch.work()) for _ in lines[: background.max_programs]]
        try:
            for _ in lines:
                yield await finished.get()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.wait(workers)


@dataclass(frozen=True)
class _Batch:
    """A batch at work. ``waiting``: the lines that are not begun. ``finished``: where results are put."""

    state: AppState
    info: RequestInfo
    waiting: deque[Line]
    finished: asyncio.Queue[BatchResult | ChatBatchResult]

    async def work(self) -> None:
        """Answer one line after another until none is left."""
        runner = self.state.runner
        while self.waiting:
            async with runner.background.place():
                if not self.waiting:  # others have taken the last one meanwhile
                    return
                line = self.waiting.popleft()
                status, body = await self._answer_or_error(line)
            runner.metrics.count_batch_line(status)
            await self.finished.put(self._make_result(line, status, body))

    def _make_result(self, line: Line, status: int, body: dict[str, Any]) -> BatchResult | ChatBatchResult:
        if line.url != CHAT_URL:
            return BatchResult(custom_id=line.custom_id, status=status, body=body)
        response = ChatBatchResponse(status_code=status, request_id=self.info.id, body=body)
        return ChatBatchResult(id=f"batch_req_{uuid4().hex}", custom_id=line.custom_id, response=response)

    async def _answer_or_error(self, line: Line) -> tuple[int, dict[str, Any]]:
        """The status and the body that the line would have had as a request of its own."""
        try:
            return 200, await self._answer(line)
        except Exception as error:  # noqa: BLE001 (public logs it)
            known = make_public(error, self.info.id)
            return status_at(known, line.url), error_body(known, line.url)

    async def _answer(self, line: Line) -> dict[str, Any]:
        runner = self.state.runner
        ticket = Ticket(queued_seconds=self.info.seconds_since_arrival())
        if runner.admission.draining:
            raise Draining("the service is shutting down, and this line was not begun")
        if ticket.queued_seconds > (most := runner.background.max_seconds):
            raise DeadlineExceeded(f"the batch's {most:g} seconds are over; this line was not begun")
        with _report_cancellation_from_inside():
            program, form = await self._compile(line)
            async with aclosing(runner.run(program, self.info, ticket)) as events:
                response = form.response(await read_done(events))
        answer: dict[str, Any] = from_json(response.model_dump_json())  # what cannot be sent fails here, for this line
        return answer

    async def _compile(self, line: Line) -> tuple[Program, AnswerFormat]:
        served = self.state.served.names
        request = await decode_bounded(lambda raw: decode_line(line.url, line.body, served), line.raw)
        return await compile_line(request, self.state)


@contextmanager
def _report_cancellation_from_inside() -> Iterator[None]:
    """Make a failure of a cancellation that nobody asked this task for: it would end the worker without a word."""
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError("a line's work was cancelled from inside") from error
