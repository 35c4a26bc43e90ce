"""The one error tree.

RedraftError
├── ProblemError          the service answered with a problem, or a stream ended with one
│   ├── InvalidRequest    422; ``errors`` names the fields
│   ├── Unauthorized      401
│   └── Busy              429 and 503; trying again after ``retry_after`` seconds can help
├── InvalidProxy          the environment names a proxy that cannot be used
├── ConnectionFailed      there was no connection, or it was cut, or stayed silent for too long
└── UnexpectedAnswer      what came is not the service's
"""

from redraft.results import FieldProblem, Problem


class RedraftError(Exception):
    """Anything that the client raises. ``str(error)`` is a sentence."""


class ProblemError(RedraftError):
    """``code`` is for programs (docs/reference/api.md lists them). ``request_id`` finds the request in the log."""

    def __init__(self, problem: Problem, request_id: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(problem, request_id, retry_after)  # all of them, so that the error can be pickled
        self.status = problem.status
        self.code = problem.code
        self.title = problem.title
        self.detail = problem.detail
        self.errors: tuple[FieldProblem, ...] = problem.errors or ()
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.title}: {self.detail}"


class InvalidRequest(ProblemError):
    """The request has to change."""


class Unauthorized(ProblemError):
    """The service wants a key, and this is none that it knows."""


class Busy(ProblemError):
    """The service cannot do it now."""


class InvalidProxy(RedraftError):
    """Raised where the client is made."""


class ConnectionFailed(RedraftError):
    """``sent``: whether the service may have got the request."""

    def __init__(self, message: str, sent: bool) -> None:
        super().__init__(message, sent)
        self.sent = sent

    def __str__(self) -> str:
        return str(self.args[0])


class UnexpectedAnswer(RedraftError):
    """An answer that is not in the form of the service's: is the URL right, is a proxy in between?"""


def make_problem_error(problem: Problem, request_id: str | None, retry_after: int | None = None) -> ProblemError:
    """The error for a problem, by its status."""
    match problem.status:
        case 401:
            kind: type[ProblemError] = Unauthorized
        case 422:
            kind = InvalidRequest
        case 429 | 503:
            kind = Busy
        case _:
            kind = ProblemError
    return kind(problem, request_id, retry_after)
