"""Carry adaptive through the loop: what each candidate is asked for, what it is told, when the search ends."""

from collections import Counter

import pytest

from service.engines.base import Sampling
from service.engines.scripted import EngineCall
from service.refinement.events import Refined
from service.refinement.program import Search, Stop
from tests.support.scripts import (
    FOAM,
    JUDGE,
    SALT,
    BilledEngine,
    Lines,
    engine,
    program,
    rated,
    refined,
)

ADAPTIVE = Search(drafts=2, beam=2, rounds=6, carry="adaptive")
ALL = Stop(target=1.0, patience=100)
WIDE = Search(drafts=2, beam=30, rounds=1, carry="adaptive")
DRAFTS = tuple(f"Draft {number}." for number in range(60))
REVISIONS = tuple(f"Revision {number}." for number in range(60))
USE_SALT, USE_FOAM = 'Use all of these words: "salt".', 'Use all of these words: "foam".'


def forms(done: Refined) -> Counter[str]:
    return Counter(candidate.form for ended in done.rounds for candidate in ended.candidates)


def shown(call: EngineCall) -> str | None:
    """The reply of the model's own that a call is about."""
    return next((turn.text for turn in reversed([*call.conversation.turns()]) if turn.role == "assistant"), None)


def edits_of(scripted: BilledEngine) -> list[EngineCall]:
    return [call for call in scripted.asked("revise") if shown(call)]


def redrafts(scripted: BilledEngine) -> list[EngineCall]:
    return [call for call in scripted.asked("revise") if not shown(call)]


@pytest.mark.parametrize("seed", range(5))
async def test_every_round_makes_beam_times_branches_candidates_each_in_its_form(seed: int) -> None:
    scripted = engine(Lines(draft=DRAFTS, revise=REVISIONS))

    done = await refined(program(SALT, JUDGE, search=ADAPTIVE, sampling=Sampling(seed=seed)), scripted)

    candidates = [candidate for ended in done.rounds for candidate in ended.candidates]
    texts = {candidate.id: candidate.text for candidate in candidates}
    made = forms(done)
    assert [len(ended.candidates) for ended in done.rounds] == [2] * 7
    assert all((candidate.parent is not None) == (candidate.form == "edit") for candidate in candidates)
    assert (len(scripted.asked("draft")), len(edits_of(scripted)), len(redrafts(scripted))) == (
        made["draft"],
        made["edit"],
        made["redraft"],
    )
    assert Counter(shown(call) for call in edits_of(scripted)) == Counter(
        texts[candidate.parent] for candidate in candidates if candidate.parent
    )
    assert scripted.counts() == {
        role: count
        for role, count in {
            "draft": made["draft"],
            "revise": made["edit"] + made["redraft"],
            "judge": 2 * len(candidates),
        }.items()
        if count
    }


async def test_all_three_forms_are_tried() -> None:
    scripted = engine(Lines(draft=DRAFTS, revise=REVISIONS))

    done = await refined(program(SALT, search=WIDE, sampling=Sampling(seed=1)), scripted)

    assert min(forms(done)[form] for form in ("draft", "redraft", "edit")) > 2
    assert forms(done).total() == 32


async def test_a_draft_is_told_nothing_an_edit_its_parents_faults_and_a_redraft_those_of_all() -> None:
    scripted = engine(Lines(draft=["Waves.", "Salt.", "Sand."], revise=REVISIONS))

    done = await refined(program(SALT, FOAM, search=WIDE, stop=ALL, sampling=Sampling(seed=3)), scripted)

    told = {(shown(call), call.prompt) for call in scripted.asked("revise")}
    assert told == {
        ("Waves.", f"Edit: {USE_SALT} {USE_FOAM} |  | "),
        ("Salt.", f"Edit: {USE_FOAM} |  | "),
        (None, f"Write about the sea.\n\n{USE_FOAM} {USE_SALT}"),  # the most frequent first
    }
    assert len(scripted.asked("draft")) == forms(done)["draft"] > 2


async def test_memory_tells_again_only_what_a_revision_was_told() -> None:
    search = Search(rounds=2, memory=3, carry="adaptive")
    told = []
    for seed in range(40):
        scripted = engine(Lines(draft=["Waves.", "Salt."], revise=REVISIONS))
        done = await refined(program(SALT, FOAM, search=search, stop=ALL, sampling=Sampling(seed=seed)), scripted)
        made = [(candidate.form, candidate.parent) for ended in done.rounds for candidate in ended.candidates]
        if made == [("draft", None), ("draft", None), ("edit", "c1")]:
            told += [call.prompt for call in scripted.asked("revise")]

    assert set(told) == {f"Edit: {USE_FOAM} |  | "}


async def test_without_a_critic_nothing_is_redrafted() -> None:
    scripted = engine(Lines(draft=DRAFTS, revise=REVISIONS))
    search = Search(drafts=2, beam=30, rounds=1, carry="adaptive", critic="none")

    done = await refined(program(SALT, search=search, sampling=Sampling(seed=1)), scripted)

    assert set(forms(done)) == {"draft", "edit"}
    assert {call.prompt for call in scripted.asked("revise")} == {"Edit:  |  | "}


@pytest.mark.parametrize("seed", range(5))
async def test_no_call_follows_the_round_that_reaches_the_target(seed: int) -> None:
    scripted = engine(Lines(draft=["Waves.", "Sand.", "Salt."], revise=["Salt."]))

    done = await refined(program(SALT, search=ADAPTIVE, sampling=Sampling(seed=seed)), scripted)

    assert (done.stop_reason, done.selected.text, len(done.rounds)) == ("target", "Salt.", 2)
    assert len(scripted.calls) == 4
    assert set(done.usage) <= {"draft", "revise"}


@pytest.mark.parametrize("seed", range(5))
async def test_each_text_that_is_edited_is_criticised_once(seed: int) -> None:
    scripted = engine(Lines(draft=DRAFTS, revise=REVISIONS))

    done = await refined(program(JUDGE, search=ADAPTIVE, sampling=Sampling(seed=seed)), scripted)

    edited = {c.parent for ended in done.rounds for c in ended.candidates if c.parent}
    assert {critique.candidate for ended in done.rounds for critique in ended.critiques} == edited
    assert len(scripted.asked("critique")) == len(edited)


async def test_two_candidates_with_one_text_are_criticised_once() -> None:
    scripted = engine(Lines(draft=["One.", "One.", *DRAFTS], revise=REVISIONS, ratings={"One.": rated(1.0)}))

    done = await refined(program(JUDGE, search=WIDE, sampling=Sampling(seed=1)), scripted)

    assert forms(done)["edit"] > 10
    assert len(scripted.asked("critique")) == 1


async def test_what_satisfies_the_critic_is_not_edited_but_drafts_are_still_made() -> None:
    scripted = engine(Lines(draft=DRAFTS, critique=[()]))

    done = await refined(program(JUDGE, search=WIDE, sampling=Sampling(seed=1)), scripted)

    assert set(forms(done)) == {"draft"}
    assert len(done.rounds[1].candidates) == 30
    assert done.stop_reason == "rounds"
    assert "revise" not in done.usage


@pytest.mark.parametrize("seed", range(10))
async def test_a_round_of_repeated_edits_is_no_fixpoint_as_the_next_may_draft(seed: int) -> None:
    scripted = engine(Lines(draft=["Waves."], revise=["Waves."], ratings={"Waves.": rated(0.75)}))
    search = Search(rounds=4, carry="adaptive")

    done = await refined(program(JUDGE, search=search, sampling=Sampling(seed=seed)), scripted)

    assert (done.stop_reason, len(done.rounds)) == ("rounds", 5)


@pytest.mark.parametrize("calls", range(2, 12))
async def test_a_budget_that_runs_out_keeps_what_was_made(calls: int) -> None:
    lines = Lines(draft=DRAFTS, revise=REVISIONS, ratings={text: rated(0.75) for text in (*DRAFTS[2:], *REVISIONS)})
    scripted = engine(lines)

    done = await refined(program(SALT, JUDGE, search=ADAPTIVE, calls=calls, sampling=Sampling(seed=1)), scripted)

    assert done.stop_reason == "budget"
    assert sum(usage.calls for usage in done.usage.values()) == len(scripted.calls) == calls
    assert done.usage == scripted.bill
    made = forms(done)
    assert made.total() == len(scripted.asked("draft")) + len(scripted.asked("revise"))
