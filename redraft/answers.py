"""How an HTTP response becomes a result or an error."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import TypeVar

import httpx
from pydantic import ValidationError

from redraft.errors import ConnectionFailed, ProblemError, UnexpectedAnswer, make_problem_error
from redraft.results import Problem, Result

R = TypeVar("R", bound=Result)

OPENAI_CODES: Mapping[str, str] = MappingProxyType(
    {
        "context_length_exceeded": "prompt_too_long",
        "invalid_api_key": "unauthorized",
        "rate_limit_exceeded": "caller_limit",
    }
)
"""Error codes on the routes that are compatible with OpenAI's, and the service's own codes for them."""

SECONDS = re.compile(r"[0-9]{1,9}")
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class OpenAIError(Result):
    message: str
    code: str | None = None


class OpenAIErrorBody(Result):
    """An error in OpenAI's form."""

    error: OpenAIError


def parse(kind: type[R], document: str | bytes) -> R:
    """Parse a JSON document as a result. Raises UnexpectedAnswer if it is not one."""
    try:
        return kind.model_validate_json(document)
    except ValidationError as error:
        raise UnexpectedAnswer(f"the answer is not a valid {kind.__name__}: {error}") from error


def validate(kind: type[R], value: object) -> R:
    """Validate a value as a result. Raises UnexpectedAnswer if it is not one."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise UnexpectedAnswer(f"the answer is not a valid {kind.__name__}: {error}") from error


def make_refusal(response: httpx.Response) -> ProblemError:
    """Make the error for a response whose body has been read. A proxy may have sent it instead of the service."""
    seconds = response.headers.get("Retry-After", "")  # the service states no dates
    retry_after = int(seconds) if SECONDS.fullmatch(seconds) else None
    return make_problem_error(_read_problem(response), request_id(response), retry_after)


def _read_problem(response: httpx.Response) -> Problem:
    with suppress(ValidationError):
        return Problem.model_validate_json(response.content)
    code, detail = "unknown", f"{_host(response.request)} did not send a problem document with it"
    with suppress(ValidationError):
        said = OpenAIErrorBody.model_validate_json(response.content).error
        word = said.code or code
        code, detail = OPENAI_CODES.get(word, word), said.message
    return _make_problem(response.status_code, code, detail)


def read_openai_problem(status: int, body: object) -> Problem:
    """The problem for an error in OpenAI's form."""
    said = validate(OpenAIErrorBody, body).error
    word = said.code or "unknown"
    return _make_problem(status, OPENAI_CODES.get(word, word), said.message)


def _make_problem(status: int, code: str, detail: str) -> Problem:
    return Problem(type="about:blank", title=f"HTTP status {status}", status=status, detail=detail, code=code)


def request_id(response: httpx.Response) -> str | None:
    found: str | None = response.headers.get("X-Request-ID")
    return found


@contextmanager
def map_httpx_errors() -> Iterator[None]:
    """Turn httpx's errors into ConnectionFailed."""
    try:
        yield
    except httpx.RequestError as error:
        reason = "timed out" if isinstance(error, httpx.TimeoutException) else str(error) or type(error).__name__
        raise ConnectionFailed(f"{_host(error.request)}: {reason}", not isinstance(error, NEVER_SENT)) from error


def _host(request: httpx.Request) -> str:
    """Host and port, without a password that the URL may contain."""
    return request.url.netloc.decode()
