"""Reads the events of a stream from its bytes. docs/reference/api.md describes their fields."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

import httpx

from redraft.answers import parse, request_id
from redraft.errors import UnexpectedAnswer, make_problem_error
from redraft.results import (
    Choice,
    Constraints,
    Critique,
    Evaluation,
    GenerateResult,
    JudgeTrust,
    Models,
    Problem,
    RefineResult,
    Result,
)
from redraft.sse import EventDecoder

E = TypeVar("E", bound=Result)


class Delta(Result):
    """A piece of one text."""

    prompt_index: int
    index: int
    text: str


class ReasoningDelta(Result):
    """A piece of what the model thinks before that text. Sent only with ``reasoning=True``."""

    prompt_index: int
    index: int
    text: str


class Started(Result):
    id: str
    model: str
    models: Models
    judge_trust: JudgeTrust
    task: str


class TextBegun(Result):
    """A text is begun. If one with the same ``round`` and ``index`` was being written, it has been given up."""

    round: int
    index: int
    form: str
    parent: str | None


class TextDelta(Result):
    """A piece of the text with that ``round`` and ``index``."""

    round: int
    index: int
    text: str


class TextReasoningDelta(Result):
    """A piece of what the model thinks before that text. Sent only with ``reasoning=True``."""

    round: int
    index: int
    text: str


class CandidateAdded(Result):
    """A new candidate.

    index: with ``deltas=True``, which text of the round it is; None for a repair.
    form: draft, redraft, edit or repair.
    parent: the id of the candidate that it revises, if any.
    model: the one that wrote it, or its parent if it is a repair; None for the caller's own draft.
    reasoning: what the model thought, with ``reasoning=True``.
    constraints: what the text was sampled under; None if it was sampled freely.
    """

    round: int
    index: int | None = None
    id: str
    form: str
    parent: str | None
    model: str | None
    text: str
    reasoning: str | None = None
    finish_reason: str
    constraints: Constraints | None = None


class CandidateEvaluated(Result):
    """The evaluation of a candidate. ``tokens``: what the request has spent by then, prompts included."""

    candidate: str
    score: float | None
    passed: bool | None
    evaluations: tuple[Evaluation, ...]
    tokens: int = 0


class Critiqued(Critique):
    round: int


class RoundEnded(Result):
    """The end of a round.

    incumbent: the id of the best candidate so far.
    accepted: whether the round changed it.
    gain: how much higher its score is than before the round.
    tokens: what the request has spent by then, prompts included.
    """

    round: int
    incumbent: str
    accepted: bool
    gain: float | None
    tokens: int = 0


GenerateEvent = Delta | ReasoningDelta | GenerateResult
RefineEvent = (
    Started
    | TextBegun
    | TextDelta
    | TextReasoningDelta
    | CandidateAdded
    | CandidateEvaluated
    | Critiqued
    | RoundEnded
    | RefineResult
)

REFINE_EVENTS: Mapping[str, type[RefineEvent]] = MappingProxyType(
    {
        "started": Started,
        "writing": TextBegun,
        "delta": TextDelta,
        "reasoning": TextReasoningDelta,
        "candidate": CandidateAdded,
        "evaluation": CandidateEvaluated,
        "critique": Critiqued,
        "round": RoundEnded,
        "done": RefineResult,
    }
)


class Events(ABC, Generic[E]):
    """The events of ``response``. Events of unknown names are left out.

    is_finished: the last one has come. last_id: the id of the last one that was complete, if events have ids.
    """

    def __init__(self, response: httpx.Response) -> None:
        """Raises UnexpectedAnswer if the response is not a stream of events."""
        media_type = response.headers.get("Content-Type", "")
        if media_type.partition(";")[0] != "text/event-stream":
            raise UnexpectedAnswer(f"expected a stream of events, but the answer has the type {media_type!r}")
        self.is_finished = False
        self._request_id = request_id(response)
        self._decoder = EventDecoder()

    @property
    def last_id(self) -> str | None:
        return self._decoder.last_id

    def feed(self, chunk: bytes) -> Iterator[E]:
        """Return the events that ``chunk`` completes. Raises ProblemError for an ``error`` event."""
        for name, data in self._decoder.feed(chunk):
            if name == "error":
                raise make_problem_error(parse(Problem, data), self._request_id)
            event = self._make_event(name, data)
            self.is_finished = self.is_finished or name == "done"
            if event is not None:
                yield event

    @abstractmethod
    def _make_event(self, name: str, data: str) -> E | None: ...


class RefineEvents(Events[RefineEvent]):
    def _make_event(self, name: str, data: str) -> RefineEvent | None:
        kind = REFINE_EVENTS.get(name)
        return None if kind is None else parse(kind, data)


class GenerateEvents(Events[GenerateEvent]):
    """The service leaves the texts out of the last event. Here they are joined from the deltas."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(response)
        self._texts: defaultdict[tuple[int, int], str] = defaultdict(str)
        self._thoughts: defaultdict[tuple[int, int], str] = defaultdict(str)

    def _make_event(self, name: str, data: str) -> GenerateEvent | None:
        match name:
            case "delta":
                delta = parse(Delta, data)
                self._texts[delta.prompt_index, delta.index] += delta.text
                return delta
            case "reasoning":
                thought = parse(ReasoningDelta, data)
                self._thoughts[thought.prompt_index, thought.index] += thought.text
                return thought
            case "done":
                return self._add_texts(parse(GenerateResult, data))
            case _:
                return None

    def _add_texts(self, result: GenerateResult) -> GenerateResult:
        return result.model_copy(update={"choices": tuple(map(self._add_text, result.choices))})

    def _add_text(self, choice: Choice) -> Choice:
        place = choice.prompt_index, choice.index
        thoughts = self._thoughts.get(place)
        return choice.model_copy(update={"text": self._texts[place], "reasoning": thoughts and thoughts.strip()})
