"""A line of a batch as a program: what its URL takes, decoded and compiled as a request of its own would be."""

from collections.abc import Sequence

from pydantic import BaseModel
from pydantic_core import from_json

from service.api.answers import AnswerFormat, compile_native
from service.api.body import decode, decode_bounded
from service.api.openai.answers import compile_chat, compile_response
from service.api.openai.response_requests import ResponseRequest, StatedResponse
from service.api.openai.translate import Chat, ChatRequest
from service.api.problems import error_body, status_at
from service.api.state import AppState
from service.batches.batch import ENDPOINTS
from service.engines.base import Usage
from service.errors import RedraftError, wrong_field
from service.jobs.job import Claim
from service.refinement.events import Done
from service.refinement.program import Program
from service.wire.requests import CritiqueRequest, GenerateRequest, NativeRequest, RefineRequest
from service.wire.responses import total

LineRequest = Chat | StatedResponse | NativeRequest
URLS = {kind: url for url, kind in ENDPOINTS.items()}


def decode_line(url: str, body: bytes, served: Sequence[str]) -> LineRequest:
    """The request that a line's body holds. Raises what ``decode`` raises, and ModelNotFound."""
    request = _decode(url, body, served)
    stated = request.request if isinstance(request, Chat | StatedResponse) else request
    for field in ("stream", "background"):
        if getattr(stated, field, None):
            raise wrong_field(field, "a batch's lines are answered whole")
    return request


def _decode(url: str, body: bytes, served: Sequence[str]) -> LineRequest:
    match url:
        case "/v1/critique":
            return decode(CritiqueRequest, body, None)
        case "/v1/generate":
            return decode(GenerateRequest, body, None)
        case "/v1/refine":
            return decode(RefineRequest, body, None)
        case "/v1/responses":
            return StatedResponse.from_request(decode(ResponseRequest, body, None), served)
        case _:
            return Chat.from_request(decode(ChatRequest, body, None), served)


async def compile_line(request: LineRequest, state: AppState, job: str | None = None) -> tuple[Program, AnswerFormat]:
    """The program of a line, and how it is answered. ``job``: the job's id, if the line is one."""
    match request:
        case Chat():
            return await compile_chat(request, state, "batch", job)
        case StatedResponse():
            return await compile_response(request, state, "batch", job)
        case _:
            return await compile_native(request, state, "batch")


class LineAnswer(BaseModel):
    """The answer to a line, as OpenAI's files with results have it, and what it cost."""

    status_code: int
    request_id: str
    body: dict[str, object]
    usage: Usage | None = None


class LineFormat:
    """How a line is answered that is a job."""

    reasoning = False

    def __init__(self, form: AnswerFormat, state: AppState, request_id: str) -> None:
        self._form = form
        self._state = state
        self._request_id = request_id

    def response(self, done: Done) -> LineAnswer:
        body = from_json(self._form.response(done).model_dump_json())
        self._state.runner.metrics.count_batch_line(200)
        usage = total(done.outcome.usage)
        return LineAnswer(status_code=200, request_id=self._request_id, body=body, usage=usage)


class LineOrders:
    """What the lines of stored batches ask for."""

    def __init__(self, state: AppState) -> None:
        self._state = state

    async def compile(self, claim: Claim) -> tuple[Program, LineFormat]:
        url, served = URLS[claim.order.kind], self._state.served.names
        request = await decode_bounded(lambda body: decode_line(url, body, served), claim.order.body.encode())
        program, form = await compile_line(request, self._state, claim.job.id)
        return program, LineFormat(form, self._state, claim.order.request_id)

    def describe(self, error: RedraftError, claim: Claim) -> dict[str, object]:
        url = URLS[claim.order.kind]
        status = status_at(error, url)
        self._state.runner.metrics.count_batch_line(status)
        answer = LineAnswer(status_code=status, request_id=claim.order.request_id, body=error_body(error, url))
        return answer.model_dump()
