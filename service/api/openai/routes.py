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
from service.api.idempotency import answer_once
from service.api.openai.answers import compile_chat, compile_response
from service.api.openai.completions import ChatCompletion, ErrorResponse
from service.api.openai.response_bodies import ResponseBody
from service.api.openai.response_requests import ResponseRequest, StatedResponse
from service.api.openai.translate import Chat, ChatRequest, model_names, parse_model_name
from service.api.problems import describe_errors
from service.api.state import app_state, require_capacity
from service.calibration.judges import KnownJudges
from service.errors import NotFound
from service.refinement.program import Program

ERROR: Mapping[str, Any] = {"model": ErrorResponse}
INVALID = "The body is not JSON, or the request is not valid; `param` is the first field that is wrong."
NO_MODEL: dict[int | str, dict[str, Any]] = {404: {**ERROR, "description": "There is no such model."}}
NO_RESPONSE = "responses are not stored here, and none works in the background"
NOT_STORED: dict[int | str, dict[str, Any]] = {404: {**ERROR, "description": "Nothing is stored."}}
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


@v1.post(
    "/responses",
    summary="Write or refine a text, as OpenAI's newer clients ask for it",
    response_model=ResponseBody,
    responses={200: routes.EVENT_STREAM, **ERRORS},
    openapi_extra=json_body(ResponseRequest),
    dependencies=[Depends(require_capacity)],
)
async def response(request: Request) -> Response:
    """The same as a chat completion in the format of OpenAI's Responses API. Nothing is stored.

    With `stream` it comes in numbered events; of a refine first all that happens, in the `redraft` of events
    `response.in_progress`.
    """
    state = app_state(request)

    def decode_response(body: bytes, content_type: str) -> StatedResponse:
        return StatedResponse.from_request(decode(ResponseRequest, body, content_type), state.served.names)

    stated = await read_body(request, decode_response)

    return await _answer(request, lambda: compile_response(stated, state), stream=bool(stated.request.stream))


async def _answer(
    request: Request, compile_it: Callable[[], Awaitable[tuple[Program, AnswerFormat]]], *, stream: bool
) -> Response:
    """Compile the request, once for each idempotency key, and answer it whole or as a stream."""

    async def respond() -> Response:
        program, form = await compile_it()
        return (answer_stream if stream else answer_json)(request, program, form)

    return await answer_once(request, respond)


@v1.get("/responses/{response}", summary="No response can be fetched", responses=NOT_STORED)
async def stored_response(request: Request, response: str) -> Response:
    """Always 404, since nothing is stored."""
    raise NotFound(NO_RESPONSE)


@v1.delete("/responses/{response}", summary="No response can be deleted", responses=NOT_STORED)
async def deleted_response(request: Request, response: str) -> Response:
    """Always 404, since nothing is stored."""
    raise NotFound(NO_RESPONSE)


@v1.post("/responses/{response}/cancel", summary="No response can be cancelled", responses=NOT_STORED)
async def cancelled_response(request: Request, response: str) -> Response:
    """Always 404, since none works in the background. Work stops when its client disconnects."""
    raise NotFound(NO_RESPONSE)


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
