"""Responses that work in the background: jobs, told of in the words of OpenAI's Responses API."""

import json
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from service.api import jobs as job_routes
from service.api.body import decode, decode_bounded
from service.api.idempotency import answer_once, once_of
from service.api.images import fetch_images
from service.api.openai.answers import compile_response
from service.api.openai.fields import rename_fields
from service.api.openai.response_bodies import Failure, ResponseBody
from service.api.openai.response_events import (
    Named,
    ResponseFormat,
    told_of_failure,
    told_of_response,
    whole_item,
)
from service.api.openai.response_requests import ResponseRequest, StatedResponse
from service.api.openai.translate import name_callers_fields
from service.api.sse import EventStream
from service.api.state import AppState, app_state
from service.engines.conversation import Image
from service.errors import NotFound, RedraftError, wrong_field
from service.jobs.job import Claim, Job, to_json
from service.jobs.jobs import LAST_EVENTS, Jobs
from service.refinement.program import Program, ToolChat
from service.wire.model import escape_line_ends
from service.wire.problems import problem_body
from service.wire.requests import images_in
from service.wire.sse import event_frame
from service.wire.tools import ToolRequest

NO_STORE = "its operator has not set REDRAFT_STORE"
RESPONSE_ID = re.compile(r"resp_([0-9a-f]{32})")
FROM_THE_BEGINNING = -1


def decode_keeping(body: bytes, content_type: str | None, served: Sequence[str]) -> tuple[StatedResponse, bytes]:
    """The request, and its bytes. Raises what ``decode`` raises, ModelNotFound and InvalidRequest."""
    return StatedResponse.from_request(decode(ResponseRequest, body, content_type), served), body


async def begin(request: Request, stated: StatedResponse, body: bytes) -> Response:
    """Take the request on as a job, once for each idempotency key. What is wrong with it is said now."""
    state = app_state(request)
    if state.jobs is None:
        raise wrong_field("background", f"this service does not work in the background: {NO_STORE}")
    if stated.request.store is False:
        raise wrong_field(
            "store", "a response in the background is stored: leave it out, and delete the response later"
        )
    jobs, info = state.jobs, request.state

    async def respond() -> Response:
        order, at_hand = await _make_order(stated, body, state)
        program, form = await compile_response(at_hand, state)  # what it would raise later, it raises now
        _refuse_free_tools(program)
        begun = form.begun.model_copy(update={"background": True, "store": True})
        job = await jobs.add(
            "response",
            order,
            info.caller,
            info.request_id,
            once=once_of(request),
            stated=begun.model_dump(mode="json"),
        )
        if stated.request.stream:
            return stream(jobs, job, FROM_THE_BEGINNING)
        return answer(job)

    return await answer_once(request, respond)


async def find(request: Request, response: str) -> tuple[Jobs, Job]:
    """The job of one of the caller's responses. Raises NotFound."""
    jobs = app_state(request).jobs
    if jobs is None:
        raise NotFound(f"responses are only kept where they work in the background, and here none does: {NO_STORE}")
    known = RESPONSE_ID.fullmatch(response)
    if known is None:
        raise NotFound(f"there is no response {response}: only those with background: true are kept")
    try:
        job = await jobs.get(request.state.caller, f"job-{known[1]}")
    except NotFound:
        raise NotFound(f"there is no response {response}") from None
    if job.kind != "response":
        raise NotFound(f"there is no response {response}")
    return jobs, job


async def cancel(request: Request, response: str) -> Response:
    """Cancel a response: it ends with what it has so far. One that has ended stays as it is."""
    jobs, job = await find(request, response)
    return answer(await jobs.cancel(job.caller, job.id, job_routes.CANCEL_SECONDS))


def answer(job: Job) -> Response:
    return Response(escape_line_ends(body_of(job).model_dump_json()), media_type="application/json")


def stream(jobs: Jobs, job: Job, after: int) -> Response:
    """The response's events whose number is above ``after``, live while it works."""
    return EventStream(_numbered(jobs, job, after), BackgroundFormat())


def read_place(request: Request) -> int | None:
    """After which event a stream of the response is to begin; None if it is to be fetched whole."""
    asked = request.query_params.get("stream", "false").lower()
    if asked not in ("true", "false"):
        raise wrong_field("stream", "must be true or false")
    after = request.query_params.get("starting_after")
    if after is not None and (asked == "false" or not re.fullmatch(r"[0-9]{1,9}", after)):
        raise wrong_field("starting_after", "must be the sequence_number of an event, with stream=true")
    if asked == "false":
        return None
    return FROM_THE_BEGINNING if after is None else int(after)


def response_id(job: Job) -> str:
    return job.id.replace("job-", "resp_", 1)


def body_of(job: Job) -> ResponseBody:
    """The response as far as it has come."""
    head = {"id": response_id(job), "created_at": int(job.created)}
    outcome = job.outcome or {}
    if "output" in outcome:
        whole = ResponseBody.model_validate(outcome)
        cut = {"status": "cancelled", "incomplete_details": None} if job.state == "cancelled" else {}
        return whole.model_copy(update=cut)
    body = ResponseBody.model_validate({**(job.stated or {}), **head})
    match job.state:
        case "failed":
            return body.model_copy(update={"status": "failed", "error": Failure(message=str(outcome["detail"]))})
        case "running":
            return body
        case state:
            return body.model_copy(update={"status": state})


class BackgroundFormat:
    """How the numbered events of such a response are sent."""

    def __init__(self) -> None:
        self._next = 0

    def encode(self, event: tuple[int, Named]) -> bytes:
        number, (name, fields) = event
        self._next = number + 1
        return event_frame(name, {"type": name, "sequence_number": number, **fields})

    def encode_error(self, body: Mapping[str, Any]) -> bytes:
        """What ends the stream, and not the response."""
        error = body["error"]
        told = {name: error[name] for name in ("code", "message", "param")}
        return self.encode((self._next, ("error", {**told, "error": error})))


class ResponseOrders:
    """What jobs of the kind ``response`` ask for."""

    def __init__(self, state: AppState) -> None:
        self._state = state

    async def compile(self, claim: Claim) -> tuple[Program, ResponseFormat]:
        served = self._state.served.names
        stated, _ = await decode_bounded(lambda body: decode_keeping(body, None, served), claim.order.body.encode())
        program, form = await compile_response(stated, self._state)
        return program, replace(form, begun=body_of(replace(claim.job, state="running")))

    def describe(self, error: RedraftError, claim: Claim) -> Mapping[str, Any]:
        return problem_body(error)


async def _make_order(stated: StatedResponse, body: bytes, state: AppState) -> tuple[str, StatedResponse]:
    """The request as JSON, answered whole and with its images inside; and the request with its images at hand. An
    address may show something else later."""
    document = json.loads(body)
    translated = stated.chat.translated
    if not isinstance(translated, ToolRequest):
        with rename_fields(stated.name_as_caller), name_callers_fields(stated.chat.names):
            translated = await fetch_images(state, translated)
        stated = replace(stated, chat=replace(stated.chat, translated=translated))
        images = [image for _, _, image in images_in(translated.messages or ())]
        for part, image in zip(_image_parts(document["input"]), images, strict=True):
            if isinstance(image, Image):
                part["image_url"] = image.url
    return to_json({**document, "stream": False}), stated


def _image_parts(given: Any) -> Iterator[dict[str, Any]]:
    """The images in a request's input, in their order."""
    for item in given if isinstance(given, list) else ():
        for part in item["content"] if isinstance(item.get("content"), list) else ():
            if part["type"] == "input_image":
                yield part


def _refuse_free_tools(program: Program) -> None:
    """Refuse what only a server with tools can answer: that is not recorded, so it could not be resumed."""
    if isinstance(program, ToolChat) and program.forced is None:
        raise wrong_field("background", "with tools only a call that tool_choice forces can be made in the background")


async def _numbered(jobs: Jobs, job: Job, after: int) -> AsyncGenerator[tuple[int, Named], None]:
    """The events with their numbers, which are the same each time."""
    number = 0
    async with aclosing(_events(jobs, job)) as events:
        async for event in events:
            if number > after:
                yield number, event
            number += 1


async def _events(jobs: Jobs, job: Job) -> AsyncGenerator[Named, None]:
    begun = body_of(replace(job, state="running", outcome=None))
    queued = begun.model_copy(update={"status": "queued"})
    yield told_of_response("created", queued)
    yield told_of_response("queued", queued)
    has_begun = False
    async with aclosing(jobs.events(job.id, 0)) as events:
        async for event in events:
            if not has_begun:
                has_begun = True
                yield told_of_response("in_progress", begun)
            if event.name not in LAST_EVENTS:
                yield told_of_response("in_progress", begun, redraft={"event": event.name, **event.data})
    ended = await jobs.get(job.caller, job.id)
    for told in _last_events(ended):
        yield told


def _last_events(job: Job) -> Iterator[Named]:
    body = body_of(job)
    if job.state == "failed":
        problem = job.outcome or {}
        fields = [error["field"] for error in problem.get("errors", ())]
        kind = "server_error" if problem["status"] >= 500 else "invalid_request_error"
        error = {"message": problem["detail"], "type": kind, "param": next(iter(fields), None), "code": problem["code"]}
        yield from told_of_failure(body, error)
        return
    for index, item in enumerate(body.output):
        yield from whole_item(item, index)
    # OpenAI has no event for the end of a cancelled response.
    yield told_of_response("incomplete" if body.status == "cancelled" else body.status, body)
