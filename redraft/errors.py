"""The one error tree.

RedraftError
├── ProblemError          the service answered with a problem, or a stream ended with one
│   ├── InvalidRequest    422; ``errors`` names the fields
│   ├── Unauthorized      401
│   └── Busy              409 ``still_at_work``, 429 and 503; try again after ``retry_after`` seconds
├── InvalidProxy          the environment names a proxy that cannot be used
├── ConnectionFailed      there was no connection, it was cut, or it was silent for too long
└── UnexpectedAnswer      the answer is not in the service's form

>>> try:
...     client.refine(prompt="Write about the sea.")
... except Busy as error:
...     print("try again in", error.retry_after, "seconds")
"""

from redraft.results import FieldProblem, Problem


class RedraftError(Exception):
    """Base class of everything that the client raises. ``str(error)`` is a message for people."""


class ProblemError(RedraftError):
    """The service answered with a problem.

    status, title, detail: of the problem document.
    code: for programs to act on. docs/reference/api.md lists the codes.
    errors: the fields that are wrong, if any.
    request_id: identifies the request in the service's log.
    retry_after: seconds until another try can succeed, if the service says so.
    """

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
    """The request is invalid. ``errors`` names the fields."""


class Unauthorized(ProblemError):
    """The service requires a key, and does not know this one."""


class Busy(ProblemError):
    """The service cannot take the request now. Try again after ``retry_after`` seconds."""


class InvalidProxy(RedraftError):
    """The environment names a proxy that cannot be used. Raised when the client is made."""


class ConnectionFailed(RedraftError):
    """The connection failed. ``sent``: whether the service may have received the request."""

    def __init__(self, message: str, sent: bool) -> None:
        super().__init__(message, sent)
        self.sent = sent

    def __str__(self) -> str:
        return str(self.args[0])


class UnexpectedAnswer(RedraftError):
    """The answer is not in the service's form. Check the URL, and whether there is a proxy in between."""


def make_problem_error(problem: Problem, request_id: str | None, retry_after: int | None = None) -> ProblemError:
    """The error for a problem, by its status."""
    match problem.status:
        case 401:
            kind: type[ProblemError] = Unauthorized
        case 422:
            kind = InvalidRequest
        case 429 | 503:
            kind = Busy
        case 409 if problem.code == "still_at_work":
            kind = Busy
        case _:
            kind = ProblemError
    return kind(problem, request_id, retry_after)
