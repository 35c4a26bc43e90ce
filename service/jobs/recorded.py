"""Engines and evaluators whose calls are steps of a job: recorded when they are made, and then not made again."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, cast

from pydantic import TypeAdapter

from service.engines.base import (
    PLAINLY,
    Call,
    CallResult,
    Choice,
    Completion,
    EngineDecorator,
    Likelihood,
    Piece,
    R,
    Reading,
    Sample,
    Thought,
)
from service.errors import Cancelled, EngineUnavailable
from service.evaluators.base import Authority, Evaluation, EvaluationFailed, Evaluator, Submission, Verifier
from service.jobs.journal import Journal, call_key, evaluation_key

RESULTS: Mapping[str, TypeAdapter[Any]] = {
    kind.__name__: TypeAdapter(kind) for kind in (Completion, Choice, Likelihood)
}
EVALUATION = TypeAdapter(Evaluation)


@dataclass(frozen=True)
class RecordedEngine(EngineDecorator):
    """An Engine each of whose calls is a step. What an earlier attempt has recorded is returned at once.

    Calls that fail because the engine cannot serve interrupt the attempt, if ``interrupts``.
    """

    journal: Journal
    interrupts: bool = True

    async def call(self, call: Call[R], *, priority: int = 0) -> R:
        with self.journal.place(call_key(self.model, call)) as place:
            if place.recorded is not None:
                await asyncio.sleep(0)
                known = decode_result(place.recorded.result)
                self.journal.replays.note_call(self.model, known.usage)
                return cast(R, known)
            started = time.perf_counter()
            try:
                async with self.journal.step():
                    result = await self.engine.call(call, priority=priority)
            except Cancelled:
                raise
            except EngineUnavailable as error:
                if not self.interrupts:
                    raise
                raise self.journal.interrupt(error) from error
            await self.journal.record(place, encode_result(result), time.perf_counter() - started)
            return result

    async def stream(
        self, sample: Sample, *, priority: int = 0, reading: Reading = PLAINLY
    ) -> AsyncGenerator[Piece, None]:
        """A recorded text comes in the same pieces. One that its reader ended early is recorded too, as far as it
        came."""
        with self.journal.place(call_key(self.model, sample)) as place:
            if place.recorded is not None:
                await asyncio.sleep(0)
                async with aclosing(self._replay(place.recorded.result, reading)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            tape = Tape(reading)
            started = time.perf_counter()
            try:
                stream = self.engine.stream(sample, priority=priority, reading=tape.reading)
                async with aclosing(stream) as pieces:
                    while (found := await self._next(pieces)) is not None:
                        if isinstance(found, Completion):
                            await self.journal.record(place, tape.encode(found), time.perf_counter() - started)
                        else:
                            tape.note(found)
                        yield found
            except GeneratorExit:
                if tape.cut is not None:
                    await self.journal.record(place, tape.encode(tape.cut), time.perf_counter() - started)
                raise

    async def _replay(self, document: str, reading: Reading) -> AsyncGenerator[Piece, None]:
        found = json.loads(document)
        completion = decode_result(document)
        if not isinstance(completion, Completion):
            raise TypeError(f"a stream ends with a Completion, not with a {type(completion).__name__}")
        self.journal.replays.note_call(self.model, completion.usage)
        try:
            for share, text, is_thought in found["pieces"]:
                reading.on_progress(share)
                yield Thought(text) if is_thought else text
        except GeneratorExit:
            reading.on_cut(completion)
            raise
        yield completion

    async def _next(self, pieces: AsyncGenerator[Piece, None]) -> Piece | None:
        try:
            async with self.journal.step():
                return await anext(pieces, None)
        except Cancelled:
            raise
        except EngineUnavailable as error:
            if not self.interrupts:
                raise
            raise self.journal.interrupt(error) from error


@dataclass(frozen=True)
class RecordedEvaluator:
    """An evaluator whose work on a text is a step. One that asks a model is not: its calls are steps already.

    A failure that the evaluator states is a result, and recorded too.
    """

    evaluator: Evaluator
    index: int
    journal: Journal

    @property
    def type(self) -> str:
        return self.evaluator.type

    @property
    def authority(self) -> Authority:
        return self.evaluator.authority

    @property
    def hard(self) -> bool:
        return self.evaluator.hard

    @property
    def weight(self) -> float:
        return self.evaluator.weight

    async def evaluate(self, submission: Submission) -> Evaluation:
        with self.journal.place(evaluation_key(self.index, self.type, submission.text)) as place:
            if place.recorded is not None:
                await asyncio.sleep(0)
                self.journal.replays.note_evaluation(self.type)
                return _decode_evaluation(place.recorded.result)
            engine = WatchedEngine(submission.engine)
            started = time.perf_counter()
            failure: EvaluationFailed | None = None
            evaluation: Evaluation | None = None
            try:
                async with self.journal.step():
                    evaluation = await self.evaluator.evaluate(replace(submission, engine=engine))
            except EvaluationFailed as error:
                failure = error
            if not engine.calls:
                found = (
                    {"failed": str(failure)}
                    if evaluation is None
                    else {"evaluation": EVALUATION.dump_python(evaluation)}
                )
                await self.journal.record(place, found, time.perf_counter() - started)
            if evaluation is None:
                raise failure or EvaluationFailed("no result")
            return evaluation


@dataclass(frozen=True)
class WatchedEngine(EngineDecorator):
    """An Engine that remembers what it was asked."""

    calls: list[Call[Any]] = field(default_factory=list)

    async def call(self, call: Call[R], *, priority: int = 0) -> R:
        self.calls.append(call)
        return await self.engine.call(call, **_stated(priority))

    def stream(self, sample: Sample, *, priority: int = 0, reading: Reading = PLAINLY) -> AsyncGenerator[Piece, None]:
        self.calls.append(sample)
        return self.engine.stream(sample, reading=reading, **_stated(priority))


class Tape:
    """The pieces of a stream with their shares, and the text if it was cut."""

    def __init__(self, reading: Reading) -> None:
        self.cut: Completion | None = None
        self._pieces: list[tuple[float, str, bool]] = []
        self._share = 0.0
        self._outer = reading
        self.reading = replace(reading, on_progress=self._progress, on_cut=self._cut)

    def note(self, piece: str | Thought) -> None:
        is_thought = isinstance(piece, Thought)
        self._pieces.append((self._share, piece.text if isinstance(piece, Thought) else piece, is_thought))

    def encode(self, completion: Completion) -> Mapping[str, Any]:
        return {**encode_result(completion), "pieces": self._pieces}

    def _progress(self, share: float) -> None:
        self._share = share
        self._outer.on_progress(share)

    def _cut(self, completion: Completion) -> None:
        self.cut = completion
        self._outer.on_cut(completion)


def _stated(priority: int) -> dict[str, int]:
    """The priority if it was stated; otherwise the program's rank applies."""
    return {"priority": priority} if priority else {}


def record_evaluators(evaluators: Sequence[Evaluator], journal: Journal) -> Sequence[Evaluator]:
    """The evaluators, recorded. Those that need nothing but the text stay as they are: to check it again is cheaper."""
    return [
        evaluator if isinstance(evaluator, Verifier) else RecordedEvaluator(evaluator, index, journal)
        for index, evaluator in enumerate(evaluators)
    ]


def encode_result(result: CallResult) -> Mapping[str, Any]:
    kind = type(result).__name__
    return {kind: RESULTS[kind].dump_python(result)}


def decode_result(document: str) -> CallResult:
    """The result that was encoded, to the token and the last digit."""
    [(kind, value)] = [(name, value) for name, value in json.loads(document).items() if name in RESULTS]
    result: CallResult = RESULTS[kind].validate_python(value)
    return result


def _decode_evaluation(document: str) -> Evaluation:
    found = json.loads(document)
    if "failed" in found:
        raise EvaluationFailed(found["failed"])
    evaluation: Evaluation = EVALUATION.validate_python(found["evaluation"])
    return replace(evaluation, issues=tuple(evaluation.issues))
