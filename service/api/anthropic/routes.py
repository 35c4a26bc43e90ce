"""The route that Anthropic's clients know. A message is a generate or a refine under another name."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from service.api import routes
from service.api.answers import answer_json, answer_stream
from service.api.anthropic.bodies import ErrorBody, MessageBody
from service.api.anthropic.events import MessageFormat
from service.api.anthropic.requests import MessagesRequest, StatedMessage
from service.api.body import decode, json_body, read_body
from service.api.idempotency import answer_once
from service.api.openai.answers import compile_program, has_trace
from service.api.openai.fields import rename_fields
from service.api.problems import describe_errors
from service.api.state import AppState, app_state, require_capacity
from service.refinement.program import Program

ERROR: Mapping[str, Any] = {"model": ErrorBody}
INVALID = "The body is not JSON, or the request is not valid; the message begins with the first field that is wrong."
NO_MODEL: dict[int | str, dict[str, Any]] = {404: {**ERROR, "description": "There is no such model."}}
ERRORS = {400: {**ERROR, "description": INVALID}, **NO_MODEL, **describe_errors(ERROR, 409, 413, 429, 503)}

v1 = APIRouter(
    prefix=routes.v1.prefix,
    dependencies=routes.v1.dependencies,
    responses=describe_errors(ERROR, 401, "default"),
)


@v1.post(
    "/messages",
    summary="Write or refine a text, as Anthropic's clients ask for it",
    response_model=MessageBody,
    responses={200: routes.EVENT_STREAM, **ERRORS},
    openapi_extra=json_body(MessagesRequest),
    dependencies=[Depends(require_capacity)],
)
async def message(request: Request) -> Response:
    """The same as a chat completion in the format of Anthropic's Messages API. The model's name says what is wanted, as
    it does there.

    With `stream` it comes in events; of a refine first all that happens, in the `redraft` of `ping` events.
    """
    state = app_state(request)

    def decode_message(body: bytes, content_type: str) -> StatedMessage:
        return StatedMessage.from_request(decode(MessagesRequest, body, content_type), state.served.names)

    stated = await read_body(request, decode_message)

    async def respond() -> Response:
        program, form = await _compile(stated, state)
        return (answer_stream if stated.request.stream else answer_json)(request, program, form)

    return await answer_once(request, respond)


async def _compile(stated: StatedMessage, state: AppState) -> tuple[Program, MessageFormat]:
    with rename_fields(stated.name_as_caller):
        program = await compile_program(stated.chat, state, "interactive")
    begun = MessageBody(id=program.id, model=stated.request.model)
    return program, MessageFormat(begun, trace=has_trace(stated.chat), thoughts=stated.request.shows_thoughts)
