"""The routes that OpenAI's clients know. A chat completion is a generate or a refine under another name."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api import routes
from service.api.answers import AnswerFormat, answer_json, answer_stream
from service.api.body import decode, json_body, read_body
from service.api.idempotency import answer_once, note_key
from service.api.jobs import check_capacity
from service.api.openai import background
from service.api.openai.answers import compile_chat, compile_response
from service.api.openai.completions import ChatCompletion, ErrorResponse
from service.api.openai.response_bodies import DeletedResponse, ResponseBody
from service.api.openai.response_requests import ResponseRequest, StatedResponse
from service.api.openai.translate import Chat, ChatRequest, model_names, parse_model_name
from service.api.problems import describe_errors
from service.api.state import app_state, require_capacity
from service.calibration.judges import KnownJudges
from service.refinement.program import Program

ERROR: Mapping[str, Any] = {"model": ErrorResponse}
INVALID = "The body is not JSON, or the request is not valid; `param` is the first field that is wrong."
NO_MODEL: dict[int | str, dict[str, Any]] = {404: {**ERROR, "description": "There is no such model."}}
NO_RESPONSE: dict[int | str, dict[str, Any]] = {404: {**ERROR, "description": "There is no such response."}}
ERRORS = {400: {**ERROR, "description": INVALID}, **NO_MODEL, **describe_errors(ERROR, 409, 413, 429, 503)}

v1 = APIRouter(
    prefix=routes.v1.prefix,
    dependencies=routes.v1.dependencies,
    responses=describe_errors(ERROR, 401, "default"),
)


@v1.post(
    "/chat/completions",
    summary="Write or refine a text, as OpenAI's clients ask for it",
    response_model=ChatCompletion,
    responses={200: routes.EVENT_STREAM, **ERRORS},
    openapi_extra=json_body(ChatRequest),
    dependencies=[Depends(require_capacity)],
)
async def chat_completion(request: Request) -> Response:
    """The served model generates; with `:refine` or `:` and a preset after its name it refines.

    With `stream` the text comes in chunks; of a refine first all that happens, in the chunks' `redraft`.
    """
    state = app_state(request)

    def decode_chat(body: bytes, content_type: str) -> Chat:
        return Chat.from_request(decode(ChatRequest, body, content_type), state.served.names)

    chat = await read_body(request, decode_chat)

    return await _answer(request, lambda: compile_chat(chat, state), stream=bool(chat.request.stream))


async def require_capacity_for_response(request: Request) -> None:
    """The same where it is known without the body that the response does not work in the background."""
    if app_state(request).jobs is None:
        await require_capacity(request)
    else:
        request.state.is_repeated = await note_key(request)


@v1.post(
    "/responses",
    summary="Write or refine a text, as OpenAI's newer clients ask for it",
    response_model=ResponseBody,
    responses={200: routes.EVENT_STREAM, **ERRORS},
    openapi_extra=json_body(ResponseRequest),
    dependencies=[Depends(require_capacity_for_response)],
)
async def response(request: Request) -> Response:
    """The same as a chat completion in the format of OpenAI's Responses API. With `background` it is a job, which is
    kept; without, nothing is stored.

    With `stream` it comes in numbered events; of a refine first all that happens, in the `redraft` of events
    `response.in_progress`.
    """
    state = app_state(request)

    def decode_response(body: bytes, content_type: str) -> tuple[StatedResponse, bytes]:
        return background.decode_keeping(body, content_type, state.served.names)

    stated, body = await read_body(request, decode_response)
    is_new = not getattr(request.state, "is_repeated", True)
    if stated.request.background:
        if is_new:
            await check_capacity(request)
        return await background.begin(request, stated, body)
    if is_new:
        state.runner.admission.check(request.state.caller)
    return await _answer(request, lambda: compile_response(stated, state), stream=bool(stated.request.stream))


async def _answer(
    request: Request, compile_it: Callable[[], Awaitable[tuple[Program, AnswerFormat]]], *, stream: bool
) -> Response:
    """Compile the request, once for each idempotency key, and answer it whole or as a stream."""

    async def respond() -> Response:
        program, form = await compile_it()
        return (answer_stream if stream else answer_json)(request, program, form)

    return await answer_once(request, respond)


@v1.get(
    "/responses/{response}",
    summary="A response that works in the background",
    response_model=ResponseBody,
    responses={200: routes.EVENT_STREAM, **NO_RESPONSE},
)
async def kept_response(request: Request, response: str) -> Response:
    """As far as it has come. With `stream=true` its events, live while it works; with `starting_after` those after the
    event of that number."""
    after = background.read_place(request)
    jobs, job = await background.find(request, response)
    return background.answer(job) if after is None else background.stream(jobs, job, after)


@v1.delete("/responses/{response}", summary="Delete a response", response_model=DeletedResponse, responses=NO_RESPONSE)
async def delete_response(request: Request, response: str) -> Response:
    """It is gone at once. If it is at work, that ends."""
    jobs, job = await background.find(request, response)
    await jobs.delete(job.caller, job.id)
    return JSONResponse(DeletedResponse(id=response).model_dump())


@v1.post(
    "/responses/{response}/cancel",
    summary="Cancel a response that works in the background",
    response_model=ResponseBody,
    responses=NO_RESPONSE,
)
async def cancel_response(request: Request, response: str) -> Response:
    """It ends with what it has so far. It is still `in_progress` if its end takes longer than a few seconds. One that
    has ended stays as it is."""
    return await background.cancel(request, response)


@v1.get("/models", summary="The models that requests may name")
async def models(request: Request) -> Response:
    """The served models, for `/v1/chat/completions` also with `:refine` and each preset after their names."""
    state = app_state(request)
    names = model_names(state.served.names)
    return JSONResponse({"object": "list", "data": [_model(name, state.judges) for name in names]})


@v1.get("/models/{model:path}", summary="One model", responses=NO_MODEL)
async def model(request: Request, model: str) -> Response:
    state = app_state(request)
    parse_model_name(model, state.served.names)
    return JSONResponse(_model(model, state.judges))


def _model(name: str, judges: KnownJudges) -> dict[str, Any]:
    served, _, _ = name.partition(":")
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "redraft",
        "judge_trust": asdict(judges.trust(served)),
        "judge_digest": judges.digest(served),
    }
