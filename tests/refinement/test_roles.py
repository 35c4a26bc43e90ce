"""Which of a program's engines is asked for what."""

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from service.refinement.events import CallEnded, Event, Refined, Reviewed, Started
from service.refinement.loop import refine
from service.refinement.program import Search
from service.refinement.roles import CallRole, Models, Roles
from service.refinement.single import generate, review
from tests.refinement.scripts import JUDGE, SALT, BilledEngine, Lines, engine, of_type, program
from tests.refinement.test_single import critique_of, generation

TRIO = Models("pen", "eye", "scale")


def named(model: str, lines: Lines | None = None, **script: Any) -> BilledEngine:
    made = engine(lines, **script)
    made.model = model
    return made


def trio() -> tuple[BilledEngine, BilledEngine, BilledEngine]:
    return named("pen"), named("eye"), named("scale")


async def told(found: Any) -> Sequence[Event]:
    async with aclosing(found):
        return [event async for event in found]


def callers(found: Sequence[Event]) -> set[tuple[CallRole, str]]:
    return {(ended.role, ended.model) for ended in of_type(found, CallEnded)}


async def test_each_role_has_its_own_engine() -> None:
    writer, critic, judge = trio()
    found = await told(refine(program(JUDGE, search=Search(rounds=1, critic="model")), Roles(writer, critic, judge)))

    assert writer.counts() == {"draft": 1, "revise": 1}
    assert critic.counts() == {"critique": 1}
    assert judge.counts() == {"judge": 2}
    assert callers(found) == {("draft", "pen"), ("revise", "pen"), ("critique", "eye"), ("judge", "scale")}
    assert [event.models for event in of_type(found, Started)] == [TRIO]
    assert [event.models for event in of_type(found, Refined)] == [TRIO]


async def test_the_judge_votes_and_compares() -> None:
    for select in ("vote", "pairwise"):
        writer, critic, judge = (
            named("pen", Lines(draft=("Waves.", "Foam."))),
            named("eye"),
            named("scale", Lines(vote=(0.2, 0.8))),
        )
        await told(refine(program(search=Search(drafts=2, rounds=0, select=select)), Roles(writer, critic, judge)))

        assert writer.counts() == {"draft": 2}
        assert critic.counts() == {}
        assert set(judge.counts()) == {"judge"}


async def test_a_critique_asks_the_critic_and_the_judge_only() -> None:
    writer, critic, judge = trio()
    found = await told(review(critique_of("Sand.", SALT, JUDGE), Roles(writer, critic, judge)))

    assert (writer.counts(), critic.counts(), judge.counts()) == ({}, {"critique": 1}, {"judge": 1})
    assert [event.models for event in of_type(found, Reviewed)] == [TRIO]


async def test_the_writer_alone_generates() -> None:
    writer, critic, judge = trio()
    await told(generate(generation(), Roles(writer, critic, judge)))

    assert len(writer.calls) == 3
    assert not critic.calls
    assert not judge.calls
