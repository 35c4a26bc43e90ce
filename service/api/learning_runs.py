"""Runs of learning: for operators, who start, watch and cancel them.

A run is the command line in a process of its own (learning/launching.py). Those that somebody started in a terminal are
shown too, as long as they work in the same folder.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Len
from fastapi import APIRouter, Depends, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api.body import json_body, read_json
from service.api.idempotency import answer_once, note_key
from service.api.learning import NOT_LEARNING, PROBLEM
from service.api.problems import describe_errors
from service.api.queries import read_last_event
from service.api.sse import EventStream
from service.api.state import app_state, require_key, require_operator
from service.errors import Draining, NotFound, wrong_field
from service.learning.launching import Launcher, Source
from service.learning.recipe import built_in_recipes
from service.learning.runs import Run
from service.wire.model import BodyModel
from service.wire.sse import event_frame

CANCEL_SECONDS = 8.0
"""How long a request to cancel a run waits for its end."""


class RunRequest(BodyModel):
    """recipe: the name of a built-in one. sources: where its texts come from."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"recipe": "quick"}]})

    recipe: str = "quick"
    sources: Annotated[list[Source], Len(1, 2)] = Field(["practice"])


class RunListBody(BaseModel):
    """The runs that are still recorded, the newest first."""

    runs: list[Run]


router = APIRouter(
    prefix="/v1/learning/runs",
    dependencies=[Security(HTTPBearer(auto_error=False)), Depends(require_key), Depends(require_operator)],
    responses={
        404: {**PROBLEM, "description": "This service does not learn, or there is no such run."},
        **describe_errors(PROBLEM, 401, 403, "default"),
    },
)
REFUSED: dict[int | str, dict[str, Any]] = {
    409: {**PROBLEM, "description": "The detail says why, and nothing has changed."}
}


@router.get("", summary="Runs of learning, newest first", response_model=RunListBody)
async def runs(request: Request) -> Response:
    """What learns and has learned in the folder: how far it has come, and what became of it."""
    return JSONResponse({"runs": [run.model_dump() for run in await _launcher(request).list()]})


@router.post(
    "",
    status_code=202,
    summary="Start a run of learning",
    response_model=Run,
    responses={**REFUSED, **describe_errors(PROBLEM, 400, 408, 413, 422, 503)},
    openapi_extra=json_body(RunRequest),
)
async def start(request: Request) -> Response:
    """It collects texts, makes lessons, trains and examines an adapter, in a process of its own with an engine of its
    own. Its address is in Location."""
    launcher = _launcher(request)
    await note_key(request)
    stated = await read_json(request, RunRequest)
    _check(request, stated)

    async def respond() -> Response:
        if app_state(request).runner.admission.draining:
            raise Draining("the service is shutting down and takes no new requests")
        run = await launcher.start(stated.recipe, stated.sources)
        return JSONResponse(run.model_dump(), status_code=202, headers={"Location": f"/v1/learning/runs/{run.id}"})

    return await answer_once(request, respond)


@router.get("/{id}", summary="A run of learning", response_model=Run)
async def run(request: Request, id: str) -> Response:  # noqa: A002
    return JSONResponse((await _launcher(request).get(id)).model_dump())


@router.delete("/{id}", summary="Cancel a run of learning", response_model=Run, responses={202: {}, **REFUSED})
async def cancel(request: Request, id: str) -> Response:  # noqa: A002
    """Its process ends, and is killed if it does not within some seconds. 202 if that takes longer. What earlier steps
    and runs have made stays. A run that has ended stays as it is."""
    found = await _launcher(request).cancel(id, CANCEL_SECONDS)
    return JSONResponse(found.model_dump(), status_code=202 if found.state == "running" else 200)


@router.get(
    "/{id}/events",
    summary="How a run of learning goes on",
    responses={200: {"content": {"text/event-stream": {}}}, 204: {"description": "Nothing follows."}},
)
async def events(request: Request, id: str) -> Response:  # noqa: A002
    """The run as it is now, and again after each step forward: `progress`, and last `done`. With `Last-Event-ID` only
    what is newer."""
    launcher = _launcher(request)
    found = await launcher.get(id)
    after = read_last_event(request, "this run")
    if found.state != "running" and found.revision <= after:
        return Response(status_code=204)  # an EventSource that gets this does not connect again
    return EventStream(launcher.watch(id, after), RunEventFormat())


class RunEventFormat:
    """How the states of a run are sent."""

    def encode(self, event: Run) -> bytes:
        return event_frame("progress" if event.state == "running" else "done", event.model_dump(), event.revision)

    def encode_error(self, body: Mapping[str, Any]) -> bytes:
        return event_frame("error", body)


def _launcher(request: Request) -> Launcher:
    launcher = app_state(request).launcher
    if launcher is None:
        raise NotFound(NOT_LEARNING)
    return launcher


def _check(request: Request, stated: RunRequest) -> None:
    """Raise InvalidRequest for what this service does not have. A recipe's file is never read for a caller."""
    known = built_in_recipes()
    if stated.recipe not in known:
        raise wrong_field("recipe", f"must be the name of a built-in recipe: {', '.join(known)}")
    if "store" in stated.sources and app_state(request).traces is None:
        raise wrong_field("sources", "this service stores no traces: its operator has not set REDRAFT_STORED_TRACES")
