"""Many requests in one body. Each line is answered by itself, as soon as it is finished, and none can harm another."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal
from uuid import uuid4

from annotated_types import Len
from pydantic import BaseModel, ConfigDict
from pydantic_core import from_json, to_json
from starlette.requests import Request

from service.api.answers import Answering, generating, last_response, refining, reviewing
from service.api.batch_lines import MOST_LINES, lines, members_of_lists, too_many_lines
from service.api.body import beside, decode, media_type_of, read
from service.api.images import with_images
from service.api.middleware import request_id, seconds_since_arrival
from service.api.openai.answers import answering_chat
from service.api.openai.translate import Chat, ChatRequest
from service.api.problems import MOST_FIELD_ERRORS, error_body, public, status_at
from service.api.sse import Event
from service.api.state import desk_of
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
from service.programs.background import LINE_BYTES
from service.wire.model import BodyModel
from service.wire.requests import CritiqueRequest, GenerateRequest, RefineRequest

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
    return await read(request, partial(decode_batch, max_line_bytes=desk_of(request).background.max_line_bytes))


def decode_batch(body: bytes, content_type: str | None, max_line_bytes: int = LINE_BYTES) -> list[Line]:
    """The lines of a batch in either form. Raises BodyTooLarge, MalformedBody or InvalidRequest.

    Messages count lines from 1. A field is ``requests.0.url`` where the caller wrote a list, whose indices begin with
    0, and ``lines.1.url`` where the caller wrote lines.
    """
    if content_type is None or media_type_of(content_type) not in JSON_LINES:
        rest, found = members_of_lists(body)
        decode(BatchRequest, rest, content_type)
        made = _decoded(found, max_line_bytes, "requests", first=0)
    else:
        made = _decoded(lines(body), max_line_bytes, "lines", first=1)
    if not made:
        raise wrong_field("requests", "there is no line")
    return made


def _decoded(raw_lines: Iterable[bytes], max_line_bytes: int, name: str, first: int) -> list[Line]:
    """The lines. ``first``: the index of the first one in the paths of errors, which begin with ``name``."""
    made, numbers, wrong = list[Line](), dict[str, int](), list[FieldError]()
    evaluators = 0
    for number, raw in enumerate(raw_lines, 1):
        if number > MOST_LINES:
            raise too_many_lines()
        path = f"{name}.{number - 1 + first}"
        try:
            if len(raw) > max_line_bytes:
                raise BodyTooLarge(f"line {number}: a line may have at most {max_line_bytes} bytes")
            line = decode(BatchLine, raw, None)
        except MalformedBody as error:
            raise MalformedBody(f"line {number}: {error.detail}") from None
        except InvalidRequest as error:
            wrong += _under(path, error, raw)
            if len(wrong) >= MOST_FIELD_ERRORS:
                break
            continue
        if line.custom_id in numbers:
            wrong.append(FieldError(f"{path}.custom_id", f"line {numbers[line.custom_id]} has the same"))
            continue
        evaluators += _evaluators(line)
        if evaluators > MOST_EVALUATORS:
            raise wrong_field(path, f"the lines up to this one have more than {MOST_EVALUATORS:,} evaluators in all")
        numbers[line.custom_id] = number
        made.append(Line(line.custom_id, line.url, raw))
    if wrong:
        raise wrong_fields(wrong[:MOST_FIELD_ERRORS])
    return made


def _evaluators(line: BatchLine) -> int:
    """How many evaluators a line states, or may state: its body is not yet validated."""
    own = line.body.get("redraft") if line.url == CHAT_URL else line.body
    stated = own.get("evaluators") if isinstance(own, dict) else None
    return len(stated) if isinstance(stated, list) else 0


def _under(path: str, error: InvalidRequest, raw: bytes) -> Iterator[FieldError]:
    """The errors of the line at ``path``."""
    is_object = isinstance(from_json(raw), dict)  # what is none has no fields
    return (FieldError(f"{path}.{item.field}" if is_object else path, item.message) for item in error.errors)


async def results(request: Request, batch: Sequence[Line]) -> AsyncGenerator[Event, None]:
    """The answer to each line as it is finished. Closing the generator ends all work."""
    desk = desk_of(request)
    await desk.check_ready()
    with desk.admission.batch(request.state.caller), desk.background.queue(batch) as waiting:
        finished = asyncio.Queue[Event](maxsize=1)  # for a client that does not read, no more is begun
        workers = [
            asyncio.create_task(_work(request, waiting, finished)) for _ in batch[: desk.background.max_programs]
        ]
        try:
            for _ in batch:
                yield await finished.get()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.wait(workers)


async def _work(request: Request, waiting: deque[Line], finished: asyncio.Queue[Event]) -> None:
    desk = desk_of(request)
    while waiting:
        async with desk.background.place():
            if not waiting:  # others have taken the last one meanwhile
                return
            line = waiting.popleft()
            status, body = await _answer_or_error(request, line)
        desk.metrics.batch_line(status)
        await finished.put(("result", _result(request, line, status, body).model_dump()))


def _result(request: Request, line: Line, status: int, body: dict[str, Any]) -> BatchResult | ChatBatchResult:
    if line.url != CHAT_URL:
        return BatchResult(custom_id=line.custom_id, status=status, body=body)
    response = ChatBatchResponse(status_code=status, request_id=request_id(request), body=body)
    return ChatBatchResult(id=f"batch_req_{uuid4().hex}", custom_id=line.custom_id, response=response)


async def _answer_or_error(request: Request, line: Line) -> tuple[int, dict[str, Any]]:
    """The status and the body that the line would have had as a request of its own."""
    try:
        return 200, await _answer(request, line)
    except Exception as error:  # noqa: BLE001 (public logs it)
        known = public(error, request_id(request))
        return status_at(known, line.url), error_body(known, line.url)


async def _answer(request: Request, line: Line) -> dict[str, Any]:
    desk = desk_of(request)
    queued_seconds = seconds_since_arrival(request)
    if desk.admission.draining:
        raise Draining("the service is shutting down, and this line was not begun")
    if queued_seconds > desk.background.max_seconds:
        raise DeadlineExceeded(f"the batch's {desk.background.max_seconds:g} seconds are over; this line was not begun")
    with _cancellation_from_inside():
        made = await _answering(request, line)
        roles = desk.background.roles(desk.roles(made.program.models))
        response = await last_response(made.events(request, roles, queued_seconds))
    answer: dict[str, Any] = from_json(response.model_dump_json())  # what cannot be sent fails here, for this line only
    return answer


@contextmanager
def _cancellation_from_inside() -> Iterator[None]:
    """Make a failure of a cancellation that nobody asked this task for: it would end the worker without a word."""
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError("a line's work was cancelled from inside") from error


async def _answering(request: Request, line: Line) -> Answering[Any]:
    desk = desk_of(request)
    programs, served = desk.programs, desk.served.names
    wanted = await beside(lambda raw: _wanted(line, served), line.raw)
    match wanted:
        case Chat():
            return await answering_chat(request, wanted, programs, "batch")
        case GenerateRequest():
            return generating(await with_images(request, wanted), programs, "batch")
        case CritiqueRequest():
            return reviewing(await with_images(request, wanted), programs, "batch")
        case RefineRequest():
            return refining(await with_images(request, wanted), programs, "batch")


def _wanted(line: Line, served: Sequence[str]) -> Chat | GenerateRequest | CritiqueRequest | RefineRequest:
    wanted: Chat | GenerateRequest | RefineRequest
    match line.url:
        case "/v1/critique":
            return decode(CritiqueRequest, line.body, None)
        case "/v1/generate":
            wanted = decode(GenerateRequest, line.body, None)
        case "/v1/refine":
            wanted = decode(RefineRequest, line.body, None)
        case _:
            wanted = Chat.of(decode(ChatRequest, line.body, None), served)
    if wanted.asked.stream if isinstance(wanted, Chat) else wanted.stream:
        raise wrong_field("stream", "a batch's lines are answered whole")
    return wanted
