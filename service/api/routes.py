"""The routes of the wire contract. A handler turns its request into a program and hands it on."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends, Security
from fastapi.security import HTTPBearer
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from service.api import jobs
from service.api.answers import answer_json, answer_stream, compile_native
from service.api.batches import (
    JSON_LINES,
    BatchRequest,
    BatchResult,
    ChatBatchResult,
    LineFormat,
    read_batch,
    run_batch,
)
from service.api.body import json_body, read_json, schema_ref
from service.api.idempotency import answer_once
from service.api.problems import describe_errors
from service.api.sse import EventStream
from service.api.state import app_state, request_info, require_batch_capacity, require_key
from service.errors import NotFound
from service.tasks.task import Task
from service.wire.requests import CritiqueRequest, GenerateRequest, NativeRequest, RefineRequest
from service.wire.responses import (
    CritiqueResponse,
    GenerateResponse,
    Problem,
    RefineResponse,
)

PROBLEM: dict[str, Any] = {"content": {"application/problem+json": {"schema": {"$ref": schema_ref(Problem)}}}}
EVENT_STREAM: dict[str, Any] = {"content": {"text/event-stream": {}}}
PROBLEMS = describe_errors(PROBLEM, 400, 403, 408, 409, 413, 422, 429, 503)
ANY_OTHER = describe_errors(PROBLEM, "default")
UNAVAILABLE: dict[int | str, dict[str, Any]] = {503: {**PROBLEM, "description": "It is not so now; see `code`."}}

router = APIRouter(responses=ANY_OTHER)
# The scheme is there for the OpenAPI document; ``require_key`` decides.
v1 = APIRouter(
    prefix="/v1",
    dependencies=[Security(HTTPBearer(auto_error=False)), Depends(require_key)],
    responses=describe_errors(PROBLEM, 401, "default"),
)


class JsonLines(JSONResponse):
    """What the OpenAPI document takes the type of a batch's answer from."""

    media_type = JSON_LINES[0]


@v1.post(
    "/generate",
    summary="Write texts",
    response_model=GenerateResponse,
    responses={200: EVENT_STREAM, **jobs.ACCEPTED, **PROBLEMS},
    openapi_extra=json_body(GenerateRequest),
    dependencies=[Depends(jobs.require_capacity)],
)
async def generate(request: Request) -> Response:
    """Texts for a prompt, or for each of up to 64. With `stream` they come as `delta` events, then `done`."""
    if jobs.is_preferred(request):
        return await jobs.accept(request, GenerateRequest, "generate")
    body = await read_json(request, GenerateRequest)
    return await _answer(request, body, stream=body.stream)


@v1.post(
    "/critique",
    summary="Evaluate a text",
    response_model=CritiqueResponse,
    responses={**jobs.ACCEPTED, **PROBLEMS},
    openapi_extra=json_body(CritiqueRequest),
    dependencies=[Depends(jobs.require_capacity)],
)
async def critique(request: Request) -> Response:
    """Scores by verifiers and by the judge, and what should change in words."""
    if jobs.is_preferred(request):
        return await jobs.accept(request, CritiqueRequest, "critique")
    return await _answer(request, await read_json(request, CritiqueRequest))


@v1.post(
    "/refine",
    summary="Draft a text and improve it",
    response_model=RefineResponse,
    responses={200: EVENT_STREAM, **jobs.ACCEPTED, **PROBLEMS},
    openapi_extra=json_body(RefineRequest),
    dependencies=[Depends(jobs.require_capacity)],
)
async def refine(request: Request) -> Response:
    """The whole loop: draft, evaluate, critique, revise, repeat; the best text and the account of it.

    With `stream` the account comes as it happens: `started`, `candidate`, `evaluation`, `critique`, `round`, and
    last `done` or `error`. With `deltas` there are the texts while they are written, too: `writing` and `delta`.
    """
    if jobs.is_preferred(request):
        return await jobs.accept(request, RefineRequest, "refine")
    body = await read_json(request, RefineRequest)
    return await _answer(request, body, stream=body.stream)


async def _answer(request: Request, body: NativeRequest, *, stream: bool = False) -> Response:
    async def respond() -> Response:
        program, form = await compile_native(body, app_state(request))
        return answer_stream(request, program, form) if stream else answer_json(request, program, form)

    return await answer_once(request, respond)


@v1.post(
    "/batch",
    summary="Answer many requests that nobody waits for",
    response_class=JsonLines,
    response_model=BatchResult | ChatBatchResult,
    responses={200: {"description": "A line of JSON for each request."}, **PROBLEMS},
    openapi_extra=json_body(BatchRequest, **{media_type: {} for media_type in JSON_LINES}),
    dependencies=[Depends(require_batch_capacity)],
)
async def batches(request: Request) -> Response:
    """Up to 1,000 requests, answered behind all others: a line of JSON for each as soon as it is finished, with its
    `custom_id`, its `status` and its `body`. An empty line says that the work goes on."""
    lines = await read_batch(request)

    async def respond() -> Response:
        events = run_batch(lines, app_state(request), request_info(request))
        return EventStream(events, LineFormat(), media_type=JSON_LINES[0], keep_alive=b"\n")

    return await answer_once(request, respond)


@v1.get("/tasks", summary="The tasks that requests may name")
async def tasks(request: Request) -> Response:
    found = app_state(request).tasks.values()
    return JSONResponse({"tasks": [{"name": task.name, "description": task.description} for task in found]})


@v1.get(
    "/tasks/{name}",
    summary="One task: its parameters, choices and rubric, and an example",
    responses={404: {**PROBLEM, "description": "There is no such task."}},
)
async def task(request: Request, name: str) -> Response:
    state = app_state(request)
    if name not in state.tasks:
        raise NotFound(f"there is no task {name!r}; there are {', '.join(state.tasks)}")
    return JSONResponse(task_body(state.tasks[name]))


def task_body(task: Task) -> dict[str, Any]:
    """What is told of one task."""
    return {
        "name": task.name,
        "description": task.description,
        "parameters": {key: value.model_dump() for key, value in task.parameters.items()},
        "choices": task.sampling.choices,
        "criteria": [asdict(line) for line in task.criteria],
        "rubrics": [rubric.name for rubric in task.rubrics],
        "example": {"task": task.name, **task.example},
    }


@v1.get("/rubrics", summary="The rubrics that requests may add to their task's")
async def rubrics(request: Request) -> Response:
    found = app_state(request).programs.rubrics.values()
    return JSONResponse({"rubrics": [asdict(rubric) for rubric in found]})


@router.get("/health/live", summary="Whether the process should go on", tags=["health"], responses=UNAVAILABLE)
async def live(request: Request) -> Response:
    """503 once the engine is dead, so that an orchestrator restarts the process."""
    await app_state(request).check_alive()
    return JSONResponse({"status": "alive"})


@router.get("/health/ready", summary="Whether requests are served", tags=["health"], responses=UNAVAILABLE)
async def ready(request: Request) -> Response:
    """503 while the engine loads, while the service drains, and once the engine is dead; so too for a critic or a judge
    of the operator's choice."""
    await app_state(request).check_ready()
    return JSONResponse({"status": "ready"})


@router.get("/metrics", summary="Prometheus metrics", tags=["health"], response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    state = app_state(request)
    return Response(
        state.runner.metrics.page(await state.readiness()), media_type="text/plain; version=0.0.4; charset=utf-8"
    )
