"""The one error tree. Each error knows its code and its HTTP status; the mapping to a response is in api/problems.py.

RedraftError
├── RequestError                      the caller can fix it
│   ├── MalformedRequest       400    not HTTP; the connection closes after the answer
│   ├── MalformedBody          400
│   ├── Unauthorized           401
│   ├── Forbidden              403
│   ├── OperatorOnly           403
│   ├── NotFound               404
│   ├── MethodNotAllowed       405
│   ├── HeadTimeout            408
│   ├── BodyTimeout            408
│   ├── StillAtWork            409    the same request, sent before
│   ├── AdapterRefused         409
│   ├── RunRefused             409    a run of learning
│   ├── BodyTooLarge           413
│   ├── StorageFull            413    until something is deleted or expires
│   ├── UriTooLong             414
│   ├── InvalidRequest         422    names the fields
│   │   ├── PromptTooLong      422    names the lengths that are known
│   │   └── ModelNotFound      404
│   ├── KeyReused              422
│   ├── CallerLimit            429
│   └── HeadersTooLarge        431
└── Unavailable                503    trying again later can help
    ├── Overloaded
    ├── Starting
    ├── Draining
    ├── DeadlineExceeded              nothing was written in time
    ├── FormNotKept                   the engine broke the schema that it was given
    ├── StoreUnavailable              the service's database does not answer
    └── EngineUnavailable             a remote engine does not answer, or rejects the work
        ├── EngineBusy                for now: it has too much to do
        ├── EngineDead                for good: the process has to be restarted
        └── Cancelled                 the caller has cancelled the job; its engines do no more
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

LONGEST_PATH = 200
"""Characters of a field's path, which may hold the caller's own keys."""


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field; ``field`` is a dotted path such as ``evaluators.0.pattern``."""

    field: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "field", self.field[:LONGEST_PATH])


class RedraftError(Exception):
    """Anything that Redraft itself raises. ``str(error)`` is a sentence for the caller."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, *, retry_after: int | None = None) -> None:
        """``retry_after``: whole seconds after which trying again makes sense."""
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after


class RequestError(RedraftError):
    """The caller has to change the request."""


class MalformedRequest(RequestError):
    status, code, title = 400, "malformed_request", "This is not an HTTP request"


class MalformedBody(RequestError):
    status, code, title = 400, "malformed_body", "The body is not JSON"


class Unauthorized(RequestError):
    status, code, title = 401, "unauthorized", "A valid key is needed"


class Forbidden(RequestError):
    status, code, title = 403, "forbidden", "This origin or host is not allowed"


class OperatorOnly(RequestError):
    status, code, title = 403, "operator_only", "Only an operator may do this"


class NotFound(RequestError):
    status, code, title = 404, "not_found", "There is nothing here"


class MethodNotAllowed(RequestError):
    status, code, title = 405, "method_not_allowed", "This path does not take that method"


class HeadTimeout(RequestError):
    status, code, title = 408, "head_timeout", "The head of the request did not arrive in time"


class BodyTimeout(RequestError):
    status, code, title = 408, "body_timeout", "The body did not arrive in time"


class StillAtWork(RequestError):
    status, code, title = 409, "still_at_work", "The same request is still being worked on"


class AdapterRefused(RequestError):
    status, code, title = 409, "adapter_refused", "The adapter cannot serve"


class RunRefused(RequestError):
    status, code, title = 409, "run_refused", "The run of learning cannot be started or cancelled"


class BodyTooLarge(RequestError):
    status, code, title = 413, "body_too_large", "The body is too large"


class StorageFull(RequestError):
    status, code, title = 413, "storage_full", "There is no room to keep more"


class UriTooLong(RequestError):
    status, code, title = 414, "uri_too_long", "The URL is too long"


class InvalidRequest(RequestError):
    status, code, title = 422, "invalid_request", "The request is not valid"

    def __init__(self, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.errors = tuple(errors)


def wrong_fields(errors: Sequence[FieldError]) -> InvalidRequest:
    """The error for wrong fields. Its detail describes the first of them."""
    return InvalidRequest(f"{errors[0].field}: {errors[0].message}", errors)


def wrong_field(field: str, message: str) -> InvalidRequest:
    return wrong_fields([FieldError(field, message)])


class PromptTooLong(InvalidRequest):
    code, title = "prompt_too_long", "The prompt does not fit the model's context"

    def __init__(self, prompt_tokens: int | None, context_tokens: int | None, field: str = "prompt") -> None:
        """The lengths are None if a remote server does not say. ``field``: the part of the request that is too long."""
        detail = "the prompt leaves no room for the reply in the model's context"
        if prompt_tokens is not None and context_tokens is not None:
            detail = (
                f"the prompt has {prompt_tokens} tokens; the model's context holds {context_tokens}, "
                "of which at least one is needed for the reply"
            )
        elif context_tokens is not None:
            detail = f"{detail}, which holds {context_tokens} tokens"
        super().__init__(detail, [FieldError(field, detail)])
        self.prompt_tokens = prompt_tokens
        self.context_tokens = context_tokens


class ModelNotFound(InvalidRequest):
    status, code, title = 404, "model_not_found", "There is no such model"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, [FieldError("model", detail)])


class KeyReused(RequestError):
    status, code, title = 422, "idempotency_key_reused", "The key was used for another request"


class CallerLimit(RequestError):
    status, code, title = 429, "caller_limit", "Too many requests under this key"


class HeadersTooLarge(RequestError):
    status, code, title = 431, "headers_too_large", "The headers are too large"


class Unavailable(RedraftError):
    """The service cannot do this now; the same request may succeed later."""

    status, code, title = 503, "unavailable", "The service is unavailable"

    def __init__(self, detail: str, *, retry_after: int = 1) -> None:
        super().__init__(detail, retry_after=retry_after)


class Overloaded(Unavailable):
    code, title = "overloaded", "The service is full"


class Starting(Unavailable):
    code, title = "starting", "The engine is still loading"


class Draining(Unavailable):
    code, title = "draining", "The service is shutting down"


class DeadlineExceeded(Unavailable):
    code, title = "deadline_exceeded", "Time ran out before anything was written"


class FormNotKept(Unavailable):
    code, title = "form_not_kept", "The text does not fit its schema"


class StoreUnavailable(Unavailable):
    code, title = "store_unavailable", "The database cannot be used"


class EngineUnavailable(Unavailable):
    code, title = "engine_unavailable", "The engine cannot be reached"


class EngineBusy(EngineUnavailable):
    code, title = "engine_busy", "The engine has too much to do"


class EngineDead(EngineUnavailable):
    code, title = "engine_dead", "The engine has stopped"


class Cancelled(EngineUnavailable):
    code, title = "cancelled", "The job was cancelled"
