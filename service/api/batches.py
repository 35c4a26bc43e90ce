"""Many requests in one body. Each line is answered by itself, as soon as it is finished, and none can harm another."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic_core import from_json
from starlette.requests import Request

from service.api.answering import Answering, generating, last_response, refining, reviewing
from service.api.body import beside, decode, media_type_of, read
from service.api.desk import desk_of
from service.api.images import with_images
from service.api.middleware import request_id, seconds_since_arrival
from service.api.problems import problem_body, public
from service.api.programs import Programs
from service.api.requests import CritiqueRequest, GenerateRequest, RefineRequest
from service.api.sse import Event
from service.api.wire import WireModel
from service.errors import Draining, MalformedBody, wrong_field
from service.evaluators.base import RefusedField

MOST_LINES = 1_000
JSON_LINES = ("application/jsonl", "application/x-ndjson")


class BatchLine(WireModel):
    """One request, in the form of a line of OpenAI's batches. ``body``: what the endpoint at ``url`` takes."""

    custom_id: Annotated[str, Len(1, 128)]
    method: Literal["POST"] = "POST"
    url: Literal["/v1/generate", "/v1/critique", "/v1/refine"]
    body: dict[str, Any]


def _told_apart(lines: tuple[BatchLine, ...]) -> tuple[BatchLine, ...]:
    if not lines:
        raise ValueError("there is no line")
    seen = set[str]()
    for index, line in enumerate(lines):
        if line.custom_id in seen:
            raise RefusedField(f"{index}.custom_id", "an earlier line has the same")
        seen.add(line.custom_id)
    return lines


class BatchRequest(WireModel):
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

    requests: Annotated[tuple[BatchLine, ...], Len(0, MOST_LINES), AfterValidator(_told_apart)]


class BatchResult(BaseModel):
    """The answer to the line ``custom_id``: the endpoint's ``body``, or a problem where ``status`` is not 200."""

    custom_id: str
    status: int
    body: dict[str, Any]


async def read_batch(request: Request) -> BatchRequest:
    """The batch that the request's body holds, as JSON or as JSON lines."""
    return await read(request, decode_batch)


def decode_batch(body: bytes, content_type: str | None) -> BatchRequest:
    """Raises MalformedBody or InvalidRequest, which say which line is wrong, counted from 0."""
    if content_type is None or media_type_of(content_type) not in JSON_LINES:
        return decode(BatchRequest, body, content_type)
    lines = [line for line in body.split(b"\n") if line.strip()]
    for index, line in enumerate(lines):
        try:
            from_json(line)
        except ValueError as error:
            raise MalformedBody(f"line {index} is not JSON: {error}") from None
    return decode(BatchRequest, b'{"requests":[' + b",".join(lines) + b"]}", None)


async def results(request: Request, batch: BatchRequest) -> AsyncGenerator[Event, None]:
    """The answer to each line as it is finished. Closing the generator ends all work."""
    desk = desk_of(request)
    await desk.check_ready()
    with desk.admission.batch(request.state.caller), desk.background.queue(batch.requests) as lines:
        finished = asyncio.Queue[Event](maxsize=1)  # for a client that does not read, no more is begun
        workers = [
            asyncio.create_task(_work(request, lines, finished)) for _ in batch.requests[: desk.background.max_programs]
        ]
        try:
            for _ in batch.requests:
                yield await finished.get()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.wait(workers)


async def _work(request: Request, lines: deque[BatchLine], finished: asyncio.Queue[Event]) -> None:
    desk = desk_of(request)
    while lines:
        async with desk.background.place():
            if not lines:  # others have taken the last one meanwhile
                return
            result = await _result(request, lines.popleft())
        desk.metrics.batch_line(result.status)
        await finished.put(("result", result.model_dump()))


async def _result(request: Request, line: BatchLine) -> BatchResult:
    try:
        return BatchResult(custom_id=line.custom_id, status=200, body=await _answer(request, line))
    except Exception as error:  # noqa: BLE001 (public logs it)
        known = public(error, request_id(request))
        return BatchResult(custom_id=line.custom_id, status=known.status, body=problem_body(known))


async def _answer(request: Request, line: BatchLine) -> Mapping[str, Any]:
    desk = desk_of(request)
    queued_seconds = seconds_since_arrival(request)
    if desk.admission.draining:
        raise Draining("the service is shutting down, and this line was not begun")
    with _cancellation_from_inside():
        wanted = await beside(partial(_wanted, line.url), json.dumps(line.body).encode())
        made = _answering(await with_images(request, wanted), desk.background.programs)
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


def _wanted(url: str, body: bytes) -> GenerateRequest | CritiqueRequest | RefineRequest:
    if url == "/v1/critique":
        return decode(CritiqueRequest, body, None)
    wanted = decode(GenerateRequest, body, None) if url == "/v1/generate" else decode(RefineRequest, body, None)
    if wanted.stream:
        raise wrong_field("stream", "a batch's lines are answered whole")
    return wanted


def _answering(wanted: GenerateRequest | CritiqueRequest | RefineRequest, programs: Programs) -> Answering[Any]:
    match wanted:
        case GenerateRequest():
            return generating(wanted, programs)
        case CritiqueRequest():
            return reviewing(wanted, programs)
        case RefineRequest():
            return refining(wanted, programs)
