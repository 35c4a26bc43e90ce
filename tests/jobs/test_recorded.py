"""Engines and evaluators whose calls are recorded: made once, and then known."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from service.engines.base import Call, Choose, Completion, Reading, Sample, Sampling, Weigh
from service.engines.conversation import Conversation, Turn
from service.engines.scripted import EngineCall, Script, ScriptedEngine
from service.errors import EngineUnavailable
from service.evaluators.base import Authority, Evaluation, EvaluationFailed, Issue, Submission
from service.evaluators.text.keywords import Keywords
from service.jobs.job import Claim
from service.jobs.journal import Interrupted, Journal
from service.jobs.recorded import RecordedEngine, RecordedEvaluator, decode_result, encode_result, record_evaluators
from service.jobs.store import JobStore
from tests.support.orders import add_jobs, make_request
from tests.support.scripts import JUDGE

REQUEST = Conversation(Turn("user", "Write about the sea."))
CALLS: list[Call[Any]] = [
    Sample(REQUEST, Sampling(seed=1)),
    Choose(REQUEST, ("A", "B")),
    Weigh(REQUEST, "Waves and salt."),
]


@dataclass
class Attempts:
    """The attempts at one job, which follow each other."""

    store: JobStore
    claim: Claim

    async def journal(self) -> Journal:
        return Journal(self.store, self.claim, await self.store.steps(self.claim.job.id))


@asynccontextmanager
async def _claimed(store: JobStore) -> AsyncIterator[Attempts]:
    await add_jobs(store, [make_request(0)])
    claim = await store.claim("me", 15.0)
    assert claim is not None
    yield Attempts(store, claim)


@pytest.fixture
async def attempts(store: JobStore) -> AsyncIterator[Attempts]:
    async with _claimed(store) as found:
        yield found


@pytest.mark.parametrize("call", CALLS, ids=lambda call: type(call).__name__)
async def test_a_call_is_made_once_and_its_result_is_the_same_to_the_last_digit(
    attempts: Attempts, call: Call[Any]
) -> None:
    engine = ScriptedEngine(Script(weights=lambda call: [1 / 3, 0.0]))
    first = await RecordedEngine(engine, await attempts.journal()).call(call)
    again = await RecordedEngine(engine, await attempts.journal()).call(call)

    assert again == first
    assert len(engine.calls) == 1


async def test_a_result_keeps_its_tokens_and_thoughts() -> None:
    [made] = [item async for item in ScriptedEngine().stream(Sample(REQUEST)) if isinstance(item, Completion)]
    whole = Completion("Wäves \u2028", "length", made.usage, (1, 2**40), "Hm.")

    assert decode_result(json.dumps(encode_result(whole))) == whole


async def test_a_streamed_text_is_recorded_too(attempts: Attempts) -> None:
    engine = ScriptedEngine()
    sample = Sample(REQUEST, Sampling(seed=1))

    async def read() -> list[object]:
        return [piece async for piece in RecordedEngine(engine, await attempts.journal()).stream(sample)]

    first, again = await read(), await read()

    assert again[-1] == first[-1]
    assert "".join(map(str, again[:-1])) == "".join(map(str, first[:-1]))
    assert len(engine.calls) == 1


async def test_a_text_that_its_reader_ended_is_recorded_as_far_as_it_came(attempts: Attempts) -> None:
    engine = ScriptedEngine()
    sample = Sample(REQUEST, Sampling(seed=1))

    async def read() -> tuple[list[object], list[float], list[Completion]]:
        pieces: list[object] = []
        shares: list[float] = []
        cut: list[Completion] = []
        reading = Reading(on_progress=shares.append, on_cut=cut.append)
        stream = RecordedEngine(engine, await attempts.journal()).stream(sample, reading=reading)
        async with aclosing(stream) as items:
            async for piece in items:
                pieces.append(piece)
                if len(pieces) == 3:
                    break
        return pieces, shares, cut

    first, again = await read(), await read()

    assert again == first
    assert len(first[2]) == 1
    assert len(engine.calls) == 1


async def test_equal_calls_of_one_attempt_have_their_own_results(attempts: Attempts) -> None:
    texts = iter(["one", "two", "three"])
    engine = ScriptedEngine(Script(reply=lambda call: next(texts)))
    sample = Sample(REQUEST)
    recorded = RecordedEngine(engine, await attempts.journal())
    first = [(await recorded.call(sample)).text for _ in range(2)]
    recorded = RecordedEngine(engine, await attempts.journal())
    again = [(await recorded.call(sample)).text for _ in range(3)]

    assert (first, again) == (["one", "two"], ["one", "two", "three"])


async def test_an_engine_that_cannot_serve_interrupts_the_attempt(attempts: Attempts) -> None:
    def fault(call: EngineCall) -> None:
        raise EngineUnavailable("away")

    journal = await attempts.journal()
    with pytest.raises(Interrupted):
        await RecordedEngine(ScriptedEngine(Script(fault=fault)), journal).call(CALLS[0])

    assert journal.interrupted is not None
    assert list(await attempts.store.steps(attempts.claim.job.id)) == []


@dataclass
class Asked:
    """A verifier that asks somebody, who counts."""

    fails: bool = False
    times: int = 0
    type: ClassVar[str] = "asked"
    authority: ClassVar[Authority] = "verifier"
    hard: ClassVar[bool] = True
    weight: ClassVar[float] = 1.0

    async def evaluate(self, submission: Submission) -> Evaluation:
        self.times += 1
        if self.fails:
            raise EvaluationFailed("nobody answers")
        return Evaluation.from_evaluator(self, 0.25, issues=(Issue("r", "wrong", "Do it right."),))


def submission(engine: ScriptedEngine | RecordedEngine) -> Submission:
    class Plain:
        prefill = "Answer: "

        def question(self, question: str) -> str:
            return question

    return Submission("Waves.", REQUEST, REQUEST, Plain(), engine)


async def test_an_evaluator_is_asked_once(attempts: Attempts) -> None:
    asked = Asked()
    found = [
        await RecordedEvaluator(asked, 0, await attempts.journal()).evaluate(submission(ScriptedEngine()))
        for _ in range(2)
    ]

    assert found[0] == found[1]
    assert asked.times == 1


async def test_a_failure_that_an_evaluator_states_is_a_result(attempts: Attempts) -> None:
    asked = Asked(fails=True)
    for _ in range(2):
        with pytest.raises(EvaluationFailed, match="nobody answers"):
            await RecordedEvaluator(asked, 0, await attempts.journal()).evaluate(submission(ScriptedEngine()))

    assert asked.times == 1


async def test_of_a_judge_the_calls_are_recorded_and_entered_each_time(attempts: Attempts) -> None:
    engine = ScriptedEngine()
    keys = []
    for _ in range(2):
        journal = await attempts.journal()
        [judge] = record_evaluators([JUDGE], journal)
        await judge.evaluate(submission(RecordedEngine(engine, journal)))
        keys.append(journal.replays.calls)

    assert keys == [0, len(JUDGE.criteria)]
    assert len(engine.calls) == len(JUDGE.criteria)


async def test_evaluators_that_need_only_the_text_stay_as_they_are(attempts: Attempts) -> None:
    salt = Keywords(include=("salt",))
    assert record_evaluators([salt], await attempts.journal()) == [salt]
