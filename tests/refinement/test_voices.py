"""A candidate for the writer's place among the first drafts: who writes what, and what is made of it."""

import random
from collections.abc import Sequence
from typing import Any

import pytest

from service.engines.scripted import EngineCall
from service.errors import EngineUnavailable
from service.evaluators.text.format import Format
from service.refinement.events import CallEnded, CandidateFailed, Event, Refined, Started, Tried
from service.refinement.loop import refine
from service.refinement.program import Search
from service.refinement.roles import Models, Roles
from service.refinement.voices import is_candidates
from tests.refinement.test_roles import named, told
from tests.support.scripts import FOAM, JUDGE, SALT, BilledEngine, Broken, Lines, of_type, program

FREE = {"constraints": "off", "aborts": False, "repairs": False}


def writes(model: str, *texts: str) -> BilledEngine:
    return named(model, Lines(draft=texts, revise=("Salt at last.",)))


async def run(
    new: BilledEngine, old: BilledEngine, *rules: Any, its_id: str = "ref_0", **search: Any
) -> Sequence[Event]:
    stated = program(*(rules or (SALT,)), search=Search(**{"drafts": 2, "rounds": 0, **FREE, **search}), id=its_id)
    return await told(refine(stated, Roles(old, old, old, new)))


def done(found: Sequence[Event]) -> Refined:
    [event] = of_type(found, Refined)
    return event


async def test_every_second_draft_is_the_candidates_and_the_account_says_who_wrote_what() -> None:
    found = await run(writes("new", "Salt."), writes("old", "Waves."), drafts=4)

    [first] = done(found).rounds
    models = [candidate.model for candidate in first.candidates]
    assert models in (["new", "old"] * 2, ["old", "new"] * 2)
    assert all((candidate.text == "Salt.") == (candidate.model == "new") for candidate in first.candidates)
    assert (done(found).model, done(found).selected.text) == ("new", "Salt.")
    assert [event.models for event in of_type(found, Started)] == [Models("old", "old", "old", "new")]
    assert of_type(found, Tried) == [Tried("new", "old", 1.0, 0.0)]


async def test_neither_always_has_the_first_draft_and_a_program_has_the_same_order_every_time() -> None:
    firsts = [is_candidates(f"ref_{number}", 0) for number in range(400)]
    assert 160 < sum(firsts) < 240
    for number in range(4):
        orders = [await order(f"ref_{number}") for _ in range(2)]
        assert orders[0] == orders[1]


async def order(its_id: str) -> Sequence[str | None]:
    found = await run(writes("new", "a"), writes("old", "b"), its_id=its_id)
    return [candidate.model for candidate in done(found).rounds[0].candidates]


async def test_a_candidate_costs_no_call_and_its_tokens_are_accounted_to_it() -> None:
    new, old = writes("new", "Foam."), writes("old", "Waves.")
    found = await run(new, old, drafts=4)

    assert (new.counts(), old.counts()) == ({"draft": 2}, {"draft": 2})
    ended = of_type(found, CallEnded)
    assert sorted(each.model for each in ended) == ["new", "new", "old", "old"]
    assert done(found).usage["draft"] == new.bill["draft"] + old.bill["draft"]
    assert done(found).usage["draft"].calls == 4


async def test_the_writer_revises_the_candidates_drafts_too() -> None:
    new, old = writes("new", "Sand."), writes("old", "Waves.")
    found = await run(new, old, rounds=1, critic="evaluators", beam=2)

    assert new.counts() == {"draft": 1}
    assert old.counts() == {"draft": 1, "revise": 2}
    assert {each.model for each in done(found).rounds[1].candidates} == {"old"}
    assert done(found).model == "old"


async def test_a_repair_has_the_model_of_its_parent() -> None:
    found = await run(writes("new", "Salt"), writes("old", "Waves"), Format(kind="quoted"), repairs=True)

    [first] = done(found).rounds
    written = {each.id: each.model for each in first.candidates if each.form == "draft"}
    repairs = {
        each.text: (each.model, written[each.parent or ""]) for each in first.candidates if each.form == "repair"
    }
    assert repairs == {'"Salt"': ("new", "new"), '"Waves"': ("old", "old")}


@pytest.mark.parametrize("seed", range(5))
async def test_the_text_is_never_worse_than_the_best_of_either_voice(seed: int) -> None:
    draws = random.Random(seed)
    texts = ("Waves.", "Salt.", "Foam.", "Salt and foam.", "Sand.")
    for number in range(20):
        mine, others = draws.choices(texts, k=3), draws.choices(texts, k=3)
        found = await run(writes("new", *mine), writes("old", *others), SALT, FOAM, drafts=6, its_id=f"ref_{number}")
        refined = done(found)
        best = refined.assessments[refined.selected.id].score or 0.0
        assert best == max(each.score or 0.0 for each in refined.assessments.values())
        [tried] = of_type(found, Tried)
        passed = [sum("alt" in text for text in drafts) / 3 for drafts in (mine, others)]
        assert [tried.candidate_passed, tried.writer_passed] == pytest.approx(passed)


@pytest.mark.parametrize("rules", [(JUDGE,), (FOAM,), (SALT, Broken())])
async def test_without_what_every_hard_verifier_says_there_is_no_trial(rules: Sequence[Any]) -> None:
    found = await run(writes("new", "Salt."), writes("old", "Waves."), *rules)
    assert of_type(found, Tried) == []
    assert done(found).rounds


@pytest.mark.parametrize("error", [EngineUnavailable("the adapter is gone"), ValueError("its shapes do not fit")])
async def test_what_a_candidate_cannot_write_the_writer_writes(error: Exception) -> None:
    def fault(call: EngineCall) -> None:
        raise error

    new = named("new", fault=fault)
    found = await run(new, writes("old", "Waves.", "Salt."), drafts=2)

    refined = done(found)
    assert [candidate.model for candidate in refined.rounds[0].candidates] == ["old", "old"]
    assert (refined.stop_reason, refined.selected.text) == ("target", "Salt.")
    [failed] = of_type(found, CandidateFailed)
    assert (failed.candidate, failed.writer) == ("new", "old")
    assert failed.reason == (str(error) if isinstance(error, EngineUnavailable) else "ValueError")
    assert of_type(found, Tried) == []


async def test_a_candidate_that_dies_in_the_middle_of_a_text_costs_no_text() -> None:
    def pause(index: int) -> float:
        if index == 3:
            new.kill()
        return 0.01

    new = named("new", Lines(draft=("one two three four five six",)), pause=pause)
    found = await run(new, writes("old", "Waves.", "Salt."))

    assert [c.completion.finish_reason for c in done(found).rounds[0].candidates] == ["stop", "stop"]
    assert len(of_type(found, CandidateFailed)) == 1


async def test_if_the_engine_fails_for_both_it_is_not_the_candidates_fault() -> None:
    new, old = writes("new", "Salt."), writes("old", "Waves.")
    new.kill()
    old.kill()
    with pytest.raises(EngineUnavailable):
        await run(new, old)
