"""Stored traces, feedback on them, and the preferences that follow from both.

Other than the traces of OpenTelemetry, these are kept here, for their caller, and hold the texts.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

from fastapi import APIRouter, Depends, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, TypeAdapter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api.batches import JSON_LINES
from service.api.body import json_body, read_json, schema_ref
from service.api.problems import describe_errors
from service.api.queries import read_cursor, read_limit, read_name
from service.api.sse import EventStream
from service.api.state import app_state, require_key
from service.errors import NotFound, wrong_field
from service.wire.feedback import TRACE_ID, FeedbackRequest
from service.wire.responses import Problem
from service.wire.sse import json_line

if TYPE_CHECKING:  # nothing of it is imported where traces are off
    from service.traces.store import Feedback, Selection
    from service.traces.trace import TraceSummary
    from service.traces.traces import Traces

PROBLEM: dict[str, Any] = {"content": {"application/problem+json": {"schema": {"$ref": schema_ref(Problem)}}}}
TRACES_A_PAGE = 20
MOST_TRACES_A_PAGE = 100
Format = Literal["trl", "openai", "sharegpt"]
FORMATS: tuple[str, ...] = get_args(Format)

TraceKind = Literal["generate", "critique", "refine"]
FeedbackKind = Literal["thumb", "edit", "choice", "score"]


class FeedbackBody(BaseModel):
    """Feedback as it is kept. ``candidate``: of a choice, the one that was chosen; then ``over`` has the others, and
    ``value`` is null."""

    program: str
    kind: FeedbackKind
    candidate: str
    value: str | float | None
    over: list[str] | None
    created_at: datetime

    @classmethod
    def of(cls, feedback: "Feedback") -> dict[str, Any]:
        is_choice = feedback.kind == "choice"
        return {
            "program": feedback.trace,
            "kind": feedback.kind,
            "candidate": feedback.candidate,
            "value": None if is_choice else feedback.value,
            "over": feedback.value if is_choice else None,
            "created_at": _time(feedback.created),
        }


class TraceBody(BaseModel):
    """A stored trace in a list. ``id``: the program's. ``score``, ``passed``: of the text that was returned.
    ``tokens``: prompt and completion tokens."""

    id: str
    kind: TraceKind
    task: str
    model: str
    created_at: datetime
    score: float | None
    passed: bool | None
    tokens: int

    @classmethod
    def of(cls, summary: "TraceSummary") -> dict[str, Any]:
        return {
            "id": summary.id,
            "kind": summary.kind,
            "task": summary.task,
            "model": summary.model,
            "created_at": _time(summary.created),
            "score": summary.score,
            "passed": summary.passed,
            "tokens": summary.tokens,
        }


class WholeTraceBody(TraceBody):
    """A stored trace with all that it holds. ``account``: the request, prompts, candidates, evaluations, critiques,
    usage, models and versions, with their texts redacted."""

    account: dict[str, Any]
    feedback: list[FeedbackBody]


class TraceListBody(BaseModel):
    """``has_more``: whether there are older ones, which ``before`` and the last id give."""

    traces: list[TraceBody]
    has_more: bool


class DeletedBody(BaseModel):
    """``deleted``: how many traces."""

    deleted: int


router = APIRouter(
    prefix="/v1",
    dependencies=[Security(HTTPBearer(auto_error=False)), Depends(require_key)],
    responses=describe_errors(PROBLEM, 401, "default"),
)
NO_TRACES: dict[int | str, dict[str, Any]] = {404: {**PROBLEM, "description": "This service stores no traces."}}
NO_TRACE: dict[int | str, dict[str, Any]] = {404: {**PROBLEM, "description": "There is no such trace of this caller."}}


@router.post(
    "/feedback",
    summary="Say what is better, or how good a text is",
    response_model=FeedbackBody,
    responses={201: {"model": FeedbackBody, "description": "It is new."}, **NO_TRACE, **describe_errors(PROBLEM, 422)},
    openapi_extra=json_body(FeedbackRequest),
)
async def feedback(request: Request) -> Response:
    """Feedback on a text whose trace is stored. It replaces earlier feedback of the same kind on the same candidate."""
    traces = _traces(request)
    given, replaced = await traces.add_feedback(request.state.caller, await read_json(request, FeedbackRequest))
    return JSONResponse(FeedbackBody.of(given), status_code=200 if replaced else 201)


@router.get(
    "/traces",
    summary="The caller's stored traces, newest first",
    response_model=TraceListBody,
    responses={**NO_TRACES, **describe_errors(PROBLEM, 422)},
)
async def list_traces(request: Request) -> Response:
    """A page of traces without their accounts. `limit`: how many. `before`: the id of the last trace of the page
    before. `task`, `model`, `since`, `until`: only those of a task, of a writer, and from a time."""
    traces = _traces(request)
    query = request.query_params
    limit = read_limit(query.get("limit"), default=TRACES_A_PAGE, most=MOST_TRACES_A_PAGE)
    selection, before = _read_selection(query), read_cursor(query.get("before"), "before")
    found = await traces.list(request.state.caller, selection, limit + 1, before)
    shown = [TraceBody.of(summary) for summary in found[:limit]]
    return JSONResponse({"traces": shown, "has_more": len(found) > limit})


@router.delete(
    "/traces", summary="Delete all stored traces of the caller", response_model=DeletedBody, responses=NO_TRACES
)
async def delete_traces(request: Request) -> Response:
    """All of them, with their feedback."""
    return JSONResponse({"deleted": await _traces(request).delete_all(request.state.caller)})


@router.get(
    "/traces/{id}", summary="A stored trace: the whole account", response_model=WholeTraceBody, responses=NO_TRACE
)
async def trace(request: Request, id: str) -> Response:  # noqa: A002
    found = await _traces(request).get(request.state.caller, _check_id(id))
    given = [FeedbackBody.of(one) for one in found.feedback]
    return JSONResponse({**TraceBody.of(found.trace.summary), "account": dict(found.trace.document), "feedback": given})


@router.delete("/traces/{id}", summary="Delete a stored trace", response_model=DeletedBody, responses=NO_TRACE)
async def delete_trace(request: Request, id: str) -> Response:  # noqa: A002
    """The trace and its feedback."""
    await _traces(request).delete(request.state.caller, _check_id(id))
    return JSONResponse({"deleted": 1})


@router.get(
    "/preferences",
    summary="Pairs of a better and a worse text, for training",
    response_class=Response,
    responses={
        200: {"content": {JSON_LINES[0]: {}}, "description": "A line of JSON for each pair."},
        **NO_TRACES,
        **describe_errors(PROBLEM, 422),
    },
)
async def preferences(request: Request) -> Response:
    """The pairs that the caller's stored traces give. `format`: `trl` (the default), `openai` or `sharegpt`. `task`,
    `model`, `since`, `until`: as for the list of traces."""
    traces = _traces(request)
    query = request.query_params
    form = query.get("format", "trl")
    if form not in FORMATS:
        raise wrong_field("format", f"must be one of {', '.join(FORMATS)}")
    chosen: Format = TypeAdapter(Format).validate_python(form)
    lines = traces.preferences(request.state.caller, chosen, _read_selection(query))
    return EventStream(lines, PreferenceFormat(), media_type=JSON_LINES[0], keep_alive=b"")


class PreferenceFormat:
    """How preferences are sent. They are lines already."""

    def encode(self, event: bytes) -> bytes:
        return event

    def encode_error(self, body: Mapping[str, Any]) -> bytes:
        """A last line, so that nobody takes the lines before it for all of them."""
        return json_line({"error": body})


def _traces(request: Request) -> "Traces":
    traces = app_state(request).traces
    if traces is None:
        raise NotFound("this service stores no traces: its operator has not set REDRAFT_STORED_TRACES")
    return traces


def _read_selection(query: Mapping[str, str]) -> "Selection":
    from service.traces.store import Selection

    task, model = (read_name(query.get(field), field) for field in ("task", "model"))
    return Selection(task, model, _read_time(query, "since"), _read_time(query, "until"))


def _check_id(its_id: str) -> str:
    """The id. Raises NotFound for what cannot be one, such as a text that Postgres does not take."""
    if not re.fullmatch(TRACE_ID, its_id):
        raise NotFound("there is no such stored trace")
    return its_id


def _read_time(query: Mapping[str, str], field: str) -> float | None:
    """Seconds since the epoch. A time without an offset is in UTC."""
    if not (text := query.get(field)):
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise wrong_field(field, "must be a time such as 2026-11-29T12:00:00Z, or a date") from None


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
