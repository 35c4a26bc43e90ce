"""The one place where an error becomes a response: an RFC 9457 problem document, or what the clients of OpenAI and of
Anthropic expect."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.errors import (
    BodyTimeout,
    DeadlineExceeded,
    Draining,
    EngineDead,
    FieldError,
    InvalidRequest,
    KeyReused,
    MethodNotAllowed,
    NotFound,
    PromptTooLong,
    RedraftError,
    Unauthorized,
)
from service.evaluators.base import RefusedField
from service.wire.problems import problem_body

MOST_FIELD_ERRORS = 20
MOST_BUILT_ERRORS = 100  # each is a dictionary of about a kilobyte
PYDANTIC_PREFIXES = ("Value error, ", "Assertion failed, ")
NOT_BLANK = r"\S"
MESSAGES: Mapping[str, str] = {
    "tuple_type": "Input should be a list",
    "dict_type": "Input should be an object",
    "model_type": "Input should be an object",
    "dataclass_type": "Input should be an object",
    "extra_forbidden": "Extra inputs are not permitted",
    "unexpected_keyword_argument": "Extra inputs are not permitted",
    "union_tag_not_found": "Field required",
    "union_tag_invalid": "Input should be one of {expected_tags}",  # pydantic's own words repeat the tag
    "string_pattern_mismatch": "Input should match the pattern {pattern}",
}
"""Our words for errors that pydantic tells in words of Python, or with the value; the others are plain as they are."""

DESCRIPTIONS: Mapping[int | str, str] = {
    400: "The body is not JSON, or the request is not HTTP.",
    401: "No key, or a wrong one.",
    403: "The host or the origin is not allowed, or the caller is not an operator.",
    408: "The body did not arrive in time.",
    409: "The same request under its idempotency key is still being worked on.",
    413: "The body is too large.",
    422: "The request is not valid; `errors` names the fields.",
    429: "The caller's own limit is reached.",
    503: "Full, starting, draining, out of time, or the engine is dead.",
    "default": "Any other error.",
}
"""What the OpenAPI document says of the errors."""

RESPONSES_PATH = "/v1/responses"
OPENAI_PATHS = ("/v1/chat/", "/v1/models", RESPONSES_PATH, "/v1/files", "/v1/batches")
MESSAGES_PATH = "/v1/messages"
SDK_PATHS = (*OPENAI_PATHS, MESSAGES_PATH)
"""Where the callers are SDKs that expect errors in their own form."""
OPENAI_CODES: Mapping[str, str] = {
    "caller_limit": "rate_limit_exceeded",
    "prompt_too_long": "context_length_exceeded",
    "unauthorized": "invalid_api_key",
}
"""OpenAI's words for some of our codes; the others stay as they are."""
ANTHROPIC_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
}
"""Anthropic's words for statuses; the others are of requests that are not valid."""


def describe_errors(content: Mapping[str, Any], *statuses: int | str) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route. ``content``: what FastAPI documents as the body of each."""
    return {status: {**content, "description": DESCRIPTIONS[status]} for status in statuses}


def error_body(error: RedraftError, path: str) -> dict[str, Any]:
    """What tells of ``error`` at ``path``: the body of a response, or the data of a stream's ``error`` event."""
    if path.startswith(OPENAI_PATHS):
        return _openai_body(error, path)
    return _anthropic_body(error) if path.startswith(MESSAGES_PATH) else problem_body(error)


def _anthropic_body(error: RedraftError) -> dict[str, Any]:
    message = error.detail
    if isinstance(error, InvalidRequest) and error.errors:
        message = f"{error.errors[0].field}: {error.errors[0].message}"
    kind = "timeout_error" if isinstance(error, DeadlineExceeded) else ANTHROPIC_TYPES.get(error.status)
    return {"type": "error", "error": {"type": kind or "invalid_request_error", "message": message}}


def _openai_body(error: RedraftError, path: str) -> dict[str, Any]:
    """``param`` is the first field that is wrong."""
    param, message = None, error.detail
    if isinstance(error, PromptTooLong):
        param = "input" if path.startswith(RESPONSES_PATH) else "messages"
    elif isinstance(error, InvalidRequest) and error.errors:
        param = error.errors[0].field
        message = f"{param}: {error.errors[0].message}"
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(error.status, "invalid_request_error")
    return {
        "error": {
            "message": message,
            "type": kind if error.status < 500 else "server_error",
            "param": param,
            "code": OPENAI_CODES.get(error.code, error.code),
        }
    }


def status_at(error: RedraftError, path: str) -> int:
    """The SDKs know no 422 for a request that is not valid."""
    is_invalid = error.status == 422 and not isinstance(error, KeyReused)
    return 400 if is_invalid and path.startswith(SDK_PATHS) else error.status


def make_response(error: RedraftError, path: str) -> Response:
    """The response that tells of ``error`` at ``path``."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Draining | BodyTimeout):
        headers["Connection"] = "close"  # on one that is kept, the next request would come here again, or half a body
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if path.startswith(SDK_PATHS):
        if isinstance(error, DeadlineExceeded | EngineDead):
            headers["x-should-retry"] = "false"  # the SDKs would: for as long again, or in vain
        return JSONResponse(error_body(error, path), status_at(error, path), headers)
    return JSONResponse(problem_body(error), error.status, headers, media_type="application/problem+json")


def list_errors(error: ValidationError) -> Sequence[Any]:
    """What pydantic found, without the caller's values.

    It builds all of its errors or none, so where there are very many, they are only counted.
    """
    if (count := error.error_count()) > MOST_BUILT_ERRORS:
        message = f"{count} fields are wrong or unknown; at most {MOST_BUILT_ERRORS} can be named"
        return [{"type": "too_many_errors", "loc": (), "msg": message}]
    return _drop_echoes(error.errors(include_url=False, include_input=False))


def name_fields(found: Sequence[Any], given: object) -> InvalidRequest:
    """The error for what ``list_errors`` found in ``given``, the caller's JSON value. No message repeats a value."""
    return _make_invalid([_field_error(item, given) for item in found[:MOST_FIELD_ERRORS]], len(found))


def _drop_echoes(found: Sequence[Any]) -> Sequence[Any]:
    """Without the lists that are too short only since pydantic left out their wrong members."""
    places = [item["loc"] for item in found]

    def is_echo(item: Any) -> bool:
        length = len(item["loc"])
        return item["type"] == "too_short" and any(p[:length] == item["loc"] and len(p) > length for p in places)

    return [item for item in found if not is_echo(item)]


def install(app: FastAPI) -> None:
    """Answer our errors, Starlette's and FastAPI's; RequestContext answers all others."""
    for kind in (RedraftError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _answer)


async def _answer(request: Request, error: Exception) -> Response:
    """A coroutine, because Starlette would run a plain function in a thread."""
    response = make_response(_translate(error), request.scope["path"])
    if isinstance(error, HTTPException):
        response.headers.update(error.headers or {})  # Allow
    return response


def _translate(error: Exception) -> RedraftError:
    match error:
        case RedraftError():
            return error
        case RequestValidationError():
            found = error.errors()
            fields = [FieldError(_dotted(item["loc"][1:]), _message(item)) for item in found[:MOST_FIELD_ERRORS]]
            return _make_invalid(fields, len(found))
        case HTTPException(status_code=404):
            return NotFound("the service has nothing at this path")
        case HTTPException(status_code=405):
            return MethodNotAllowed("see the Allow header for the methods of this path")
    raise error  # an HTTPException that no code of ours raises


def _make_invalid(errors: Sequence[FieldError], count: int) -> InvalidRequest:
    detail = f"{errors[0].field}: {errors[0].message}"
    return InvalidRequest(detail if count == 1 else f"{detail} (and {count - 1} more)", errors)


def _field_error(item: Any, given: object) -> FieldError:
    path = _path(item["loc"], given, missing=item["type"] == "missing")
    if item["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path.append("type")
    refused = item.get("ctx", {}).get("error")
    if isinstance(refused, RefusedField):
        path.append(refused.field)
    return FieldError(_dotted(path), _message(item))


def _path(location: Sequence[int | str], given: Any, *, missing: bool) -> list[int | str]:
    """Pydantic's location without the names of the union branches that it tried, which the caller never wrote.

    What leads nowhere in ``given`` is such a name, unless it is the field that is missing. So is the ``type`` of an
    object, which distinguishes the members of all unions of objects, unless the object has such a field.
    """
    path: list[int | str] = []
    tag_passed = False
    for index, step in enumerate(location):
        if not tag_passed and _is_type(step, given) and not _leads_through(location[index:], given, missing=missing):
            tag_passed = True
        elif _leads_on(step, given):
            given, tag_passed = given[step], False
            path.append(step)
        elif missing and index == len(location) - 1:
            path.append(step)
    return path


def _is_type(step: int | str, given: object) -> bool:
    return isinstance(given, dict) and step == given.get("type")


def _leads_on(step: int | str, given: object) -> bool:
    return isinstance(given, list) if isinstance(step, int) else isinstance(given, dict) and step in given


def _leads_through(location: Sequence[int | str], given: Any, *, missing: bool) -> bool:
    """Whether each step leads on, or to the field that is missing."""
    for index, step in enumerate(location):
        if missing and index == len(location) - 1:
            return isinstance(given, dict)
        if not _leads_on(step, given):
            return False
        given = given[step]
    return True


def _dotted(path: Sequence[int | str]) -> str:
    return ".".join(map(str, path)) or "body"


def _message(item: Any) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind in ("too_short", "too_long"):
        return _length_message(kind, context)
    if kind == "string_pattern_mismatch" and context["pattern"] == NOT_BLANK:
        return "Input should not be blank"
    if kind in MESSAGES:
        return MESSAGES[kind].format(**context)
    message: str = item["msg"]
    for prefix in PYDANTIC_PREFIXES:
        message = message.removeprefix(prefix)
    return message


def _length_message(kind: str, context: Mapping[str, Any]) -> str:
    """For a list, or for an object, which pydantic calls a dictionary."""
    length = context["min_length" if kind == "too_short" else "max_length"]
    bound = "least" if kind == "too_short" else "most"
    name = "member" if context["field_type"] == "Dictionary" else "item"
    return f"Input should have at {bound} {length} {name}{'' if length == 1 else 's'}"
