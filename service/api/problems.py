"""The one place where an error becomes a response: an RFC 9457 problem document, or what OpenAI's clients expect."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.errors import (
    DeadlineExceeded,
    Draining,
    EngineDead,
    FieldError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PromptTooLong,
    RedraftError,
    Unauthorized,
)
from service.evaluators.base import RefusedField

MOST_FIELD_ERRORS = 20
LONGEST_PATH = 200  # characters; a path may hold the caller's own keys
PYDANTIC_PREFIXES = ("Value error, ", "Assertion failed, ")

OPENAI_PATHS = ("/v1/chat/", "/v1/models")
OPENAI_CODES: Mapping[str, str] = {
    "caller_limit": "rate_limit_exceeded",
    "prompt_too_long": "context_length_exceeded",
    "unauthorized": "invalid_api_key",
}
"""OpenAI's words for some of our codes; the others stay as they are."""

logger = logging.getLogger(__name__)


def error_body(error: RedraftError, path: str) -> dict[str, Any]:
    """What tells of ``error`` at ``path``: the body of a response, or the data of a stream's ``error`` event."""
    return _openai_body(error) if path.startswith(OPENAI_PATHS) else problem_body(error)


def _openai_body(error: RedraftError) -> dict[str, Any]:
    """``param`` is the first field that is wrong."""
    param, message = None, error.detail
    if isinstance(error, PromptTooLong):
        param = "messages"
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


def problem_body(error: RedraftError) -> dict[str, Any]:
    """The members of the problem document."""
    body: dict[str, Any] = {
        "type": f"urn:redraft:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
    }
    if isinstance(error, InvalidRequest):
        body["errors"] = [{"field": item.field, "message": item.message} for item in error.errors]
    return body


def problem(error: RedraftError, path: str) -> Response:
    """The response that tells of ``error`` at ``path``."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Draining):
        headers["Connection"] = "close"  # on a connection that is kept, the next request would come here again
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if path.startswith(OPENAI_PATHS):
        if isinstance(error, DeadlineExceeded | EngineDead):
            headers["x-should-retry"] = "false"  # the SDKs would: for as long again, or in vain
        status = 400 if error.status == 422 else error.status  # OpenAI has no 422
        return JSONResponse(_openai_body(error), status, headers)
    return JSONResponse(problem_body(error), error.status, headers, media_type="application/problem+json")


def public(error: Exception, request_id: str) -> RedraftError:
    """What the caller may know of ``error``: our own errors as they are, of any other nothing but that it happened.

    The other kind is a bug, so it is logged with its traceback.
    """
    if isinstance(error, RedraftError):
        return error
    logger.error("request %s failed", request_id, exc_info=error, extra={"request_id": request_id})
    return RedraftError("the request failed inside the service; its X-Request-ID finds the cause in the log")


def invalid(error: ValidationError, given: object) -> InvalidRequest:
    """Name the fields of ``given``, the caller's JSON value, that pydantic refused. No message repeats a value."""
    found = error.errors(include_url=False, include_input=False)
    return _invalid([_field_error(item, given) for item in found[:MOST_FIELD_ERRORS]], len(found))


def install(app: FastAPI) -> None:
    """Answer our errors, Starlette's and FastAPI's; RequestContext answers all others."""
    for kind in (RedraftError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _answer)


async def _answer(request: Request, error: Exception) -> Response:
    """A coroutine, because Starlette would run a plain function in a thread."""
    response = problem(_translated(error), request.scope["path"])
    if isinstance(error, HTTPException):
        response.headers.update(error.headers or {})  # Allow
    return response


def _translated(error: Exception) -> RedraftError:
    match error:
        case RedraftError():
            return error
        case RequestValidationError():
            found = error.errors()
            fields = [FieldError(_dotted(item["loc"][1:]), _message(item)) for item in found[:MOST_FIELD_ERRORS]]
            return _invalid(fields, len(found))
        case HTTPException(status_code=404):
            return NotFound("the service has nothing at this path")
        case HTTPException(status_code=405):
            return MethodNotAllowed("see the Allow header for the methods of this path")
    raise error  # an HTTPException that no code of ours raises


def _invalid(errors: Sequence[FieldError], count: int) -> InvalidRequest:
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

    What leads nowhere in ``given`` is such a name, unless it is the field that is missing; and so is the
    ``type`` of an object, by which all unions of objects are told apart, unless it is a field of the object too.
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
    return ".".join(map(str, path))[:LONGEST_PATH] or "body"


def _message(item: Any) -> str:
    if item["type"] == "union_tag_invalid":  # pydantic's own words repeat the tag
        return f"Input should be one of {item['ctx']['expected_tags']}"
    if item["type"] == "union_tag_not_found":
        return "Field required"
    message: str = item["msg"]
    for prefix in PYDANTIC_PREFIXES:
        message = message.removeprefix(prefix)
    return message
