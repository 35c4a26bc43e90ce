"""Which of a program's engines is asked for what, what they are told, and what is left when one of them fails."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import pytest

from service.engines.base import Completion, Piece, Usage
from service.engines.scripted import EngineCall, Script
from service.errors import EngineDead, EngineUnavailable
from service.refinement.events import CallEnded, EvaluatorEnded, Event, Refined, Reviewed, Started
from service.refinement.loop import refine
from service.refinement.program import Search
from service.refinement.roles import CallRole, Models, Roles
from service.refinement.single import generate, review
from tests.refinement.test_single import critique_of, generation
from tests.support.scripts import JUDGE, REQUEST, SALT, BilledEngine, Lines, engine, of_type, program, rated

TRIO = Models("pen", "eye", "scale")
BETTER = {"Waves.": rated(0.25), "More waves.": rated(0.75)}


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
    assert critic.counts() == {"critique": 3}
    assert judge.counts() == {"judge": 4}
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

    assert (writer.counts(), critic.counts(), judge.counts()) == ({}, {"critique": 6}, {"judge": 2})
    assert [event.models for event in of_type(found, Reviewed)] == [TRIO]


async def test_the_writer_alone_generates() -> None:
    writer, critic, judge = trio()
    await told(generate(generation(), Roles(writer, critic, judge)))

    assert len(writer.calls) == 3
    assert not critic.calls
    assert not judge.calls


class NumberingEngine(BilledEngine):
    """An engine that tells the ids of what it sampled."""

    async def stream(self, *args: Any, **options: Any) -> AsyncGenerator[Piece, None]:
        async with aclosing(super().stream(*args, **options)) as items:
            async for item in items:
                yield replace(item, token_ids=(7, 8)) if isinstance(item, Completion) else item


@dataclass
class Adapter(NumberingEngine):
    """Another model of the same engine."""

    base: BilledEngine | None = None

    @property
    def backend(self) -> object:
        return self.base


def numbering(model: str, kind: type[NumberingEngine] = NumberingEngine, **fields: Any) -> NumberingEngine:
    lines = Lines()
    return kind(Script(reply=lines.reply, weights=lines.weights), model, **fields)


def ids_read(scripted: BilledEngine, role: CallRole) -> set[tuple[int, ...] | None]:
    """The token ids of the replies in the conversations that an engine was given."""
    turns = [turn for call in scripted.asked(role) for turn in call.conversation.turns()]
    return {turn.token_ids for turn in turns if turn.role == "assistant"}


async def test_a_critic_reads_texts_and_a_reviser_the_ids_of_its_replies() -> None:
    writer, stranger = numbering("pen"), numbering("eye")
    adapter = numbering("eye", Adapter, base=writer)
    asked = program(JUDGE, search=Search(rounds=1, critic="factored"))

    for critic in (writer, adapter, stranger):
        await told(refine(asked, Roles(writer, critic, writer)))
        assert ids_read(critic, "critique") == set()
        assert ids_read(writer, "revise") == {(7, 8)}
    assert "Waves." in [turn.text for turn in stranger.calls[1].conversation.turns()][1]


def test_what_is_text_already_stays_the_same_conversation() -> None:
    reply = Completion("Waves.", "stop", Usage(), token_ids=(7, 8))
    asked = REQUEST.with_reply("Sand.").with_user("More.")

    read = asked.with_reply(reply).with_user("Again.").as_text()

    assert [turn.token_ids for turn in read.turns()] == [None] * 5
    assert [turn.text for turn in read.turns()][-2:] == ["Waves.", "Again."]
    assert read.before is not None
    assert read.before.before is asked
    assert asked.as_text() is asked


def failing(scripted: BilledEngine, *, after: int) -> BilledEngine:
    """The engine, which is gone once it has begun so many calls."""

    def fault(call: EngineCall) -> None:
        if len(scripted.calls) > after:
            raise EngineUnavailable("none of its servers answers")

    scripted.script = replace(scripted.script, fault=fault)
    return scripted


async def test_a_judge_on_another_engine_that_fails_costs_its_evaluations_only() -> None:
    writer, critic, judge = named("pen", Lines(revise=("Salt.",))), named("eye"), failing(named("scale"), after=2)
    found = await told(refine(program(SALT, JUDGE, search=Search(rounds=1)), Roles(writer, critic, judge)))

    [done] = of_type(found, Refined)
    assert (done.stop_reason, done.selected.text) == ("rounds", "Salt.")
    first, second = (done.assessments[name].evaluations for name in ("c0", "c1"))
    assert [evaluation.error for evaluation in first] == [None, None]
    assert [evaluation.error for evaluation in second] == [None, "scale cannot serve: none of its servers answers"]
    assert [event.failed for event in of_type(found, EvaluatorEnded)] == [False, False, False, True]


async def test_where_nothing_but_a_judge_that_is_gone_evaluates_the_program_ends_for_that() -> None:
    writer, critic, judge = named("pen"), named("eye"), failing(named("scale"), after=0)
    found = await told(refine(program(JUDGE, search=Search(rounds=2)), Roles(writer, critic, judge)))

    [done] = of_type(found, Refined)
    assert (done.stop_reason, done.selected.text) == ("evaluators_failed", "Waves.")


async def test_a_judge_on_the_writer_s_engine_that_fails_ends_the_program() -> None:
    writer = numbering("pen")
    judge = failing(numbering("scale", Adapter, base=writer), after=2)
    found = await told(refine(program(JUDGE, search=Search(rounds=2)), Roles(writer, writer, judge)))

    [done] = of_type(found, Refined)
    assert (done.stop_reason, len(done.rounds), done.selected.id) == ("engine_failed", 2, "c0")


async def test_a_critic_that_fails_ends_the_program_with_the_best_text() -> None:
    writer, critic, judge = named("pen"), failing(named("eye"), after=3), named("scale", Lines(ratings=BETTER))
    asked = program(JUDGE, search=Search(rounds=3, critic="model"))
    found = await told(refine(asked, Roles(writer, critic, judge)))

    [done] = of_type(found, Refined)
    assert (done.stop_reason, done.selected.text) == ("engine_failed", "More waves.")


async def test_an_engine_that_cannot_serve_is_found_before_any_work_and_named() -> None:
    writer, critic, judge = trio()
    judge.kill()

    with pytest.raises(EngineDead, match="scale cannot serve"):
        await Roles(writer, critic, judge).check()
    await Roles(writer, critic, critic).check()
