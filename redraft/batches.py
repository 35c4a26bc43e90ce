"""Reads the results of a batch from the bytes of its response. docs/reference/api.md describes them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import httpx

from redraft.answers import parse, read_openai_problem, request_id, validate
from redraft.errors import ProblemError, UnexpectedAnswer, make_problem_error
from redraft.requests import BatchLine
from redraft.results import ChatCompletion, CritiqueResult, GenerateResult, Problem, RefineResult, Result

LineResult = GenerateResult | CritiqueResult | RefineResult | ChatCompletion

CHAT_URL = "/v1/chat/completions"
RESULTS: Mapping[str, type[LineResult]] = MappingProxyType(
    {
        "/v1/generate": GenerateResult,
        "/v1/critique": CritiqueResult,
        "/v1/refine": RefineResult,
        CHAT_URL: ChatCompletion,
    }
)


@dataclass(frozen=True)
class BatchResult:
    """The result of one line of a batch.

    custom_id: of the line.
    status, body: what the service sent for it.
    answer: the result of the request, if it succeeded.
    error: else, the error that the request would have raised by itself.

    >>> result.answer if result.error is None else result.error.code
    """

    custom_id: str
    status: int
    body: Mapping[str, Any]
    answer: LineResult | None = None
    error: ProblemError | None = None


class Line(Result):
    custom_id: str
    status: int
    body: dict[str, Any]


class ChatResponse(Result):
    status_code: int
    body: dict[str, Any]


class ChatLine(Result):
    """The result of a line that is a chat completion, as in OpenAI's batches."""

    custom_id: str
    response: ChatResponse


class LineId(Result):
    custom_id: str


class BatchResults:
    """The results in ``response``. ``is_finished``: there is one for each line."""

    def __init__(self, response: httpx.Response, lines: Iterable[BatchLine]) -> None:
        self._waiting = {line["custom_id"]: line["url"] for line in lines}
        self._request_id = request_id(response)
        self._begun = b""

    @property
    def is_finished(self) -> bool:
        return not self._waiting

    def feed(self, chunk: bytes) -> Iterator[BatchResult]:
        """Return the results that ``chunk`` completes. Raises UnexpectedAnswer for a line that was not sent."""
        *lines, self._begun = (self._begun + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield self._read_line(line)

    def _read_line(self, text: bytes) -> BatchResult:
        custom_id = parse(LineId, text).custom_id
        url = self._waiting.pop(custom_id, None)
        if url is None:
            raise UnexpectedAnswer(f"the service answered a line that was not sent, {custom_id!r}")
        if url == CHAT_URL:
            response = parse(ChatLine, text).response
            line = Line(custom_id=custom_id, status=response.status_code, body=response.body)
        else:
            line = parse(Line, text)
        if line.status == httpx.codes.OK:
            return BatchResult(**dict(line), answer=validate(RESULTS[url], line.body))
        problem = read_openai_problem(line.status, line.body) if url == CHAT_URL else validate(Problem, line.body)
        return BatchResult(**dict(line), error=make_problem_error(problem, self._request_id))
