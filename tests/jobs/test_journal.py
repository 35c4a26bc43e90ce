"""How steps are named, and what happens to calls of a job that is cancelled or lost."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from service.engines.base import Call, Choose, Sample, Sampling, Weigh
from service.engines.conversation import Conversation, Image, Turn
from service.errors import Cancelled
from service.jobs.job import Claim, Job
from service.jobs.journal import Interrupted, Journal, call_key, evaluation_key
from service.jobs.store import JobStore, Step
from tests.support.orders import make_order, make_request

ASKED = Conversation(Turn("user", "Write.")).with_reply("Waves.").with_user("More.")
SAMPLE = Sample(ASKED, Sampling(seed=1))
OTHERS: list[Call[Any]] = [
    replace(SAMPLE, sampling=Sampling(seed=2)),
    replace(SAMPLE, sampling=Sampling(seed=1, temperature=0.0)),
    replace(SAMPLE, schema={"type": "object"}),
    replace(SAMPLE, conversation=ASKED.with_user("More.")),
    replace(SAMPLE, conversation=Conversation(Turn("user", "Write.")).with_reply("Foam.").with_user("More.")),
    replace(SAMPLE, conversation=Conversation(Turn("user", "Write.", images=(Image("image/png", b"1"),)))),
    replace(SAMPLE, conversation=Conversation(Turn("user", "Write.", images=(Image("image/png", b"2"),)))),
    Choose(ASKED, ("A", "B")),
    Choose(ASKED, ("B", "A")),
    Choose(ASKED, ("A", "B"), "Answer: "),
    Weigh(ASKED, "Waves."),
    Weigh(ASKED, "Foam."),
]


def journal(store: Any = None, *steps: Step) -> Journal:
    order = make_order(make_request(0))
    claim = Claim(Job("job-1", "me", "refine", "running", 0.0), order, "me", 1, 1, 2.0, 0, frozenset())
    return Journal(store, claim, steps)


def test_calls_that_differ_have_different_names() -> None:
    assert len({call_key("m", call) for call in [SAMPLE, *OTHERS]} | {call_key("other", SAMPLE)}) == len(OTHERS) + 2


def test_a_call_has_one_name_whatever_is_left_of_the_budget() -> None:
    shorter = replace(SAMPLE, sampling=replace(SAMPLE.sampling, max_tokens=7))
    again = Sample(Conversation(Turn("user", "Write.")).with_reply("Waves.").with_user("More."), Sampling(seed=1))

    assert call_key("m", SAMPLE) == call_key("m", shorter) == call_key("m", again)


def test_evaluations_are_named_by_the_place_of_their_evaluator_and_the_text() -> None:
    keys = {evaluation_key(*stated) for stated in [(0, "webhook", "a"), (1, "webhook", "a"), (0, "webhook", "b")]}
    assert len(keys) == 3


def test_equal_calls_are_numbered_and_a_call_that_failed_returns_its_number() -> None:
    found = journal()
    with found.place("key") as first, found.place("key") as second:
        pass
    with pytest.raises(ValueError, match="failed"), found.place("key"):
        raise ValueError("failed")
    with found.place("key") as third, found.place("other") as other:
        pass

    assert [place.occurrence for place in (first, second, third, other)] == [0, 1, 2, 0]


def test_a_place_has_what_was_recorded_there() -> None:
    step = Step("key", 1, "{}", 0.5)
    found = journal(None, step)
    with found.place("key") as first, found.place("key") as second:
        assert (first.recorded, second.recorded) == (None, step)


async def test_a_withdrawn_job_ends_what_is_in_progress_and_begins_nothing() -> None:
    found = journal()
    ended: list[str] = []

    async def work() -> None:
        try:
            async with found.step():
                await asyncio.sleep(60)
        finally:
            ended.append("work")

    working = asyncio.create_task(work())
    await asyncio.sleep(0)
    found.withdraw()
    await asyncio.sleep(0)
    found.withdraw()  # each look at the store says again that it is to end
    with pytest.raises(Cancelled):
        await working
    with pytest.raises(Cancelled):
        async with found.step():
            ended.append("begun")

    assert ended == ["work"]


async def test_a_step_that_interrupts_the_attempt_ends_the_others() -> None:
    found = journal()

    async def work() -> None:
        async with found.step():
            await asyncio.sleep(60)

    working = asyncio.create_task(work())
    await asyncio.sleep(0)
    found.interrupt(ValueError("lost"))
    with pytest.raises(Interrupted, match="lost"):
        await working
    with pytest.raises(Interrupted, match="lost"):
        await work()


async def test_a_timeout_inside_a_step_stays_what_it_is() -> None:
    with pytest.raises(TimeoutError):
        async with journal().step(), asyncio.timeout(0):
            await asyncio.sleep(60)


async def test_a_step_of_a_job_that_was_taken_ends_the_attempt(store: JobStore) -> None:
    found = journal(store)  # of a claim that the store does not know
    with pytest.raises(Interrupted), found.place("key") as place:
        await found.record(place, {}, 0.1)

    assert found.interrupted is not None
