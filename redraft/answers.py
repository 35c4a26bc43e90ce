"""How an HTTP response becomes a result or an error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx
from pydantic import ValidationError

from redraft.errors import ConnectionFailed, ProblemError, UnexpectedAnswer, problem_error
from redraft.results import Problem, Result

R = TypeVar("R", bound=Result)

NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def parsed(kind: type[R], document: str | bytes) -> R:
    """The result that a JSON document states. UnexpectedAnswer if it states none."""
    try:
        return kind.model_validate_json(document)
    except ValidationError as error:
        raise UnexpectedAnswer(f"the answer is no {kind.__name__}: {error}") from error


def read(kind: type[R], value: object) -> R:
    """The same for a value."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise UnexpectedAnswer(f"the answer is no {kind.__name__}: {error}") from error


def refusal(response: httpx.Response) -> ProblemError:
    """The error that a response states, whose body has been read; whatever stands between may have sent it."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        problem = Problem(
            type="about:blank",
            title=f"HTTP status {response.status_code}",
            status=response.status_code,
            detail=f"{_host(response.request)} sent no problem document with it",
            code="unknown",
        )
    seconds = response.headers.get("Retry-After", "")  # the service states no dates
    return problem_error(problem, request_id(response), int(seconds) if seconds.isdecimal() else None)


def request_id(response: httpx.Response) -> str | None:
    found: str | None = response.headers.get("X-Request-ID")
    return found


@contextmanager
def connection_failures() -> Iterator[None]:
    """Turn httpx's errors into ConnectionFailed."""
    try:
        yield
    except httpx.RequestError as error:
        reason = "timed out" if isinstance(error, httpx.TimeoutException) else str(error) or type(error).__name__
        raise ConnectionFailed(f"{_host(error.request)}: {reason}", not isinstance(error, NEVER_SENT)) from error


def _host(request: httpx.Request) -> str:
    """Host and port, without a password that the URL may hold."""
    return request.url.netloc.decode()
