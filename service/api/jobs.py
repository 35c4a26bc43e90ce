"""Requests that are answered in the background: ``Prefer: respond-async`` (RFC 7240), and the routes of the jobs.

With ``callback; url="…"``, a preference of OData's, a notice of the job's end is sent to that URL.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, WithJsonSchema
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api import state
from service.api.answers import compile_native
from service.api.body import decode, read_body, schema_ref
from service.api.idempotency import answer_once, note_key, once_of, set_apart
from service.api.images import fetch_images
from service.api.openai.response_bodies import ResponseBody
from service.api.preferences import read_preferences
from service.api.problems import describe_errors
from service.api.queries import read_cursor, read_last_event, read_limit
from service.api.sse import EventStream
from service.api.state import app_state, require_key
from service.deliveries.delivery import Delivery, DeliveryState, Destination
from service.errors import Draining, NotFound, wrong_field
from service.images.fetch import ImageAddress
from service.jobs.job import Job, JobEvent, JobKind, JobState, to_json
from service.jobs.jobs import Jobs
from service.wire.requests import CritiqueRequest, GenerateRequest, NativeRequest, RefineRequest, images_in
from service.wire.responses import CritiqueResponse, GenerateResponse, Problem, RefineResponse
from service.wire.sse import event_frame

PROBLEM: dict[str, Any] = {"content": {"application/problem+json": {"schema": {"$ref": schema_ref(Problem)}}}}
PREFERENCE = "respond-async"
CALLBACK = "callback"
CANCEL_SECONDS = 5.0
"""How long a request to cancel a job waits for its end."""
JOBS_A_PAGE = 20
MOST_JOBS_A_PAGE = 100

M = TypeVar("M", GenerateRequest, CritiqueRequest, RefineRequest)


class ProgressBody(BaseModel):
    """How far a job has come. ``round``: the last one that ended. ``score``: the incumbent's."""

    round: int | None
    candidates: int
    score: float | None
    tokens: int


class JobBody(BaseModel):
    """A job. Times are in UTC. ``cancelling``: it was cancelled and is about to end."""

    id: str
    kind: JobKind
    state: JobState
    cancelling: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    progress: ProgressBody

    @classmethod
    def summary(cls, job: Job) -> dict[str, Any]:
        """The fields that lists have too."""
        return {
            "id": job.id,
            "kind": job.kind,
            "state": job.state,
            "cancelling": job.cancelling and not job.has_ended,
            "created_at": _time(job.created),
            "started_at": None if job.started is None else _time(job.started),
            "finished_at": None if job.finished is None else _time(job.finished),
            "progress": {
                "round": job.progress.round,
                "candidates": job.progress.candidates,
                "score": job.progress.score,
                "tokens": job.progress.tokens,
            },
        }


class WholeJobBody(JobBody):
    """A job with its end. ``result``: the answer that the request would have had. ``error``: why there is none."""

    result: GenerateResponse | CritiqueResponse | RefineResponse | ResponseBody | None
    error: Annotated[
        dict[str, Any] | None, WithJsonSchema({"anyOf": [{"$ref": schema_ref(Problem)}, {"type": "null"}]})
    ]


class JobListBody(BaseModel):
    """``has_more``: whether there are older ones, which ``before`` and the last id give."""

    jobs: list[JobBody]
    has_more: bool


class NoticeBody(BaseModel):
    """The delivery of a notice. Times are in UTC. ``attempts``: since the job's end, or since it was last asked for by
    hand. ``status`` and ``error``: what the last attempt gave."""

    url: str
    state: DeliveryState
    attempts: int
    attempted_at: datetime | None
    next_attempt_at: datetime | None
    status: int | None
    error: str | None


router = APIRouter(
    prefix="/v1/jobs",
    dependencies=[Security(HTTPBearer(auto_error=False)), Depends(require_key)],
    responses=describe_errors(PROBLEM, 401, "default"),
)
ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"model": WholeJobBody, "description": "With `Prefer: respond-async`: the job, whose address is in Location."}
}
NO_JOBS: dict[int | str, dict[str, Any]] = {404: {**PROBLEM, "description": "This service has no jobs."}}
NO_NOTICE: dict[int | str, dict[str, Any]] = {
    404: {**PROBLEM, "description": "There is no such job of this caller, or no notice of it is wanted."}
}
NO_JOB: dict[int | str, dict[str, Any]] = {404: {**PROBLEM, "description": "There is no such job of this caller."}}


def is_preferred(request: Request) -> bool:
    """Whether the request is to be answered in the background: the client prefers it, and jobs are on."""
    return app_state(request).jobs is not None and PREFERENCE in read_preferences(request)


def read_callback(request: Request) -> Destination | None:
    """Where a notice of the job's end goes; None if none is wanted. Raises InvalidRequest if it must not go there: a
    notice that never comes would be missed late."""
    callback = read_preferences(request).get(CALLBACK)
    if callback is None:
        return None
    try:
        return _jobs(request).sender.receivers.find(callback.get("url", ""))
    except ValueError as error:
        raise wrong_field("prefer", f"{CALLBACK}: {error}") from None


async def require_capacity(request: Request) -> None:
    """Refuse a program or a job that would not be taken on now, before its body is read."""
    if not is_preferred(request):
        await state.require_capacity(request)
        return
    if not await note_key(request):
        await check_capacity(request)


async def check_capacity(request: Request) -> None:
    """Refuse a job that would not be taken on now."""
    if app_state(request).runner.admission.draining:
        raise Draining("the service is shutting down and takes no new requests")
    await _jobs(request).check(request.state.caller)


async def accept(request: Request, model: type[M], kind: JobKind) -> Response:
    """Take the request on as a job, once for each idempotency key. What is wrong with it is said now."""
    app = app_state(request)
    notify = read_callback(request)
    stated, body = await read_body(request, partial(_decode_keeping, model))
    if getattr(stated, "stream", False):
        raise wrong_field("stream", f"with Prefer: {PREFERENCE} the events are at the job's own address")
    set_apart(request, PREFERENCE)

    async def respond() -> Response:
        at_hand = await fetch_images(app, stated)
        await compile_native(at_hand, app)  # what it would raise later, it raises now
        document = body.decode() if at_hand is stated else to_json(_inline_images(json.loads(body), stated, at_hand))
        info = request.state
        job = await _jobs(request).add(
            kind, document, info.caller, info.request_id, once=once_of(request), notify=notify
        )
        applied = PREFERENCE if notify is None else f"{PREFERENCE}, {CALLBACK}"
        headers = {"Location": f"/v1/jobs/{job.id}", "Preference-Applied": applied}
        return JSONResponse(_body(job), status_code=202, headers=headers)

    return await answer_once(request, respond)


@router.get("", summary="The caller's jobs, newest first", response_model=JobListBody, responses=NO_JOBS)
async def list_jobs(request: Request) -> Response:
    """A page of jobs without their results. `limit`: how many. `before`: the id of the last job of the page before."""
    query = request.query_params
    limit = read_limit(query.get("limit"), default=JOBS_A_PAGE, most=MOST_JOBS_A_PAGE)
    found = await _jobs(request).list(
        request.state.caller, limit + 1, read_cursor(query.get("before"), "before", "job-")
    )
    return JSONResponse({"jobs": [JobBody.summary(job) for job in found[:limit]], "has_more": len(found) > limit})


@router.get(
    "/{id}", summary="A job: its state, its progress and its result", response_model=WholeJobBody, responses=NO_JOB
)
async def job(request: Request, id: str) -> Response:  # noqa: A002
    return JSONResponse(_body(await _jobs(request).get(request.state.caller, id)))


@router.delete("/{id}", summary="Cancel a job", response_model=WholeJobBody, responses={202: {}, **NO_JOB})
async def cancel(request: Request, id: str) -> Response:  # noqa: A002
    """The job ends with the best that it has so far. 202 if its end takes longer than a few seconds. A job that has
    ended stays as it is."""
    found = await _jobs(request).cancel(request.state.caller, id, CANCEL_SECONDS)
    return JSONResponse(_body(found), status_code=200 if found.has_ended else 202)


@router.get(
    "/{id}/events",
    summary="What happens in a job, from its beginning",
    responses={200: {"content": {"text/event-stream": {}}}, 204: {"description": "Nothing follows."}, **NO_JOB},
)
async def events(request: Request, id: str) -> Response:  # noqa: A002
    """The events that a stream of the request would have had, each with an id, live while the job runs. With
    `Last-Event-ID` they go on after that one."""
    jobs = _jobs(request)
    found = await jobs.get(request.state.caller, id)
    after = read_last_event(request, "this job")
    if found.has_ended and not await jobs.has_events(id, after):
        return Response(status_code=204)  # an EventSource that gets this does not connect again
    return EventStream(jobs.events(id, after), JobEventFormat())


@router.get("/{id}/notice", summary="What became of a job's notice", response_model=NoticeBody, responses=NO_NOTICE)
async def notice(request: Request, id: str) -> Response:  # noqa: A002
    return JSONResponse(notice_body(await _jobs(request).notice(request.state.caller, id)))


@router.post(
    "/{id}/notice",
    status_code=202,
    summary="Send a job's notice again",
    response_model=NoticeBody,
    responses=NO_NOTICE,
)
async def send_again(request: Request, id: str) -> Response:  # noqa: A002
    """The attempts begin again, whatever became of earlier ones. Before the job's end nothing changes."""
    return JSONResponse(notice_body(await _jobs(request).send_again(request.state.caller, id)), status_code=202)


class JobEventFormat:
    """How a job's events are sent."""

    def encode(self, event: JobEvent) -> bytes:
        return event_frame(event.name, event.data, event.number)

    def encode_error(self, body: Mapping[str, Any]) -> bytes:
        return event_frame("error", body)


def _jobs(request: Request) -> Jobs:
    jobs = app_state(request).jobs
    if jobs is None:
        raise NotFound("this service has no jobs: its operator has not set REDRAFT_STORE")
    return jobs


def _decode_keeping(model: type[M], body: bytes, content_type: str) -> tuple[M, bytes]:
    """The request, and its bytes."""
    return decode(model, body, content_type), body


def _inline_images(document: Any, stated: NativeRequest, at_hand: NativeRequest) -> Any:
    """The request with images in place of their addresses, which may show something else later."""
    fetched = {(message, part): image for message, part, image in images_in(at_hand.messages or ())}
    for message, part, image in images_in(stated.messages or ()):
        if isinstance(image, ImageAddress):
            document["messages"][message]["content"][part]["image_url"]["url"] = fetched[message, part].url
    return document


def _body(job: Job) -> dict[str, Any]:
    is_problem = job.outcome is not None and "code" in job.outcome and "title" in job.outcome
    return {
        **JobBody.summary(job),
        "result": None if is_problem else job.outcome,
        "error": job.outcome if is_problem else None,
    }


def notice_body(delivery: Delivery) -> dict[str, Any]:
    return {
        "url": delivery.url,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "attempted_at": None if delivery.tried is None else _time(delivery.tried),
        "next_attempt_at": None if delivery.next_attempt is None else _time(delivery.next_attempt),
        "status": delivery.status,
        "error": delivery.error,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
