"""Texts that max_tokens cut: one that came to its end is better, and the loop asks for it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from service.engines.base import Completion, FinishReason, Sampling, Usage
from service.engines.conversation import Conversation, Turn
from service.refinement.candidate import Candidate, Form
from service.refinement.critic import INCOMPLETE
from service.refinement.program import Critic, Search, Select, Stop
from service.refinement.trust import JudgeTrust, TrustLevel
from service.tasks.task import load_tasks
from tests.support.scripts import (
    JUDGE,
    REQUEST,
    SALT,
    BilledEngine,
    Lines,
    compared,
    engine,
    program,
    rated,
    refined,
    role_of,
)

LONG = "Waves rise. Foam is white. And then the wind"
ENDED = "Waves break."
FOUR = Sampling(max_tokens=4)
"""A token of the scripted engine is a word."""


def asked_for_revisions(scripted: BilledEngine) -> Sequence[str]:
    return [call.conversation.turn.text for call in scripted.calls if role_of(call) == "revise"]


@pytest.mark.parametrize("level", ["break_ties", "none"])
async def test_a_draft_that_was_cut_is_asked_for_again_shorter_without_a_critic(level: TrustLevel) -> None:
    ratings = {"Waves rise. Foam is": rated(0.9), ENDED: rated(0.1)}
    scripted = engine(Lines(draft=[LONG], revise=[ENDED], ratings=ratings))

    done = await refined(program(JUDGE, search=Search(), sampling=FOUR, judge_trust=JudgeTrust(level)), scripted)

    assert (done.stop_reason, done.selected.text, done.selected.form) == ("untrusted", ENDED, "edit")
    assert asked_for_revisions(scripted) == ["Edit: Shorten, in en. |  | "]
    assert [critique.issues for critique in done.rounds[1].critiques] == [(INCOMPLETE,)]
    assert scripted.counts() == {"draft": 1, "revise": 1, "judge": 4}


async def test_once_a_text_has_come_to_its_end_the_critic_reads_it() -> None:
    scripted = engine(Lines(draft=[LONG], revise=[ENDED], critique=[()]))

    done = await refined(program(JUDGE, search=Search(), sampling=FOUR), scripted)

    assert (done.stop_reason, done.selected.text) == ("no_issues", ENDED)
    assert [critique.issues for ended in done.rounds[1:] for critique in ended.critiques] == [(INCOMPLETE,), ()]


async def test_a_text_that_landed_was_cut_too() -> None:
    scripted = engine(Lines(draft=[LONG], revise=[ENDED]))

    landing = Sampling(max_tokens=5, landing=True)
    done = await refined(program(JUDGE, search=Search(rounds=1), sampling=landing), scripted)

    assert (done.first.text, done.first.completion.finish_reason) == ("Waves rise. Foam is white.", "landed")
    assert done.selected.text == ENDED


async def test_a_shorter_text_is_asked_for_once() -> None:
    scripted = engine(Lines(draft=[LONG], revise=[LONG.upper(), ENDED]))

    done = await refined(
        program(JUDGE, search=Search(rounds=9), sampling=FOUR, judge_trust=JudgeTrust("none")), scripted
    )

    assert (done.stop_reason, done.selected.text) == ("untrusted", "Waves rise. Foam is")
    assert scripted.counts() == {"draft": 1, "revise": 1, "judge": 4}


async def test_if_that_is_cut_too_a_critic_is_asked_as_about_any_text() -> None:
    scripted = engine(Lines(draft=[LONG], revise=[LONG.upper(), ENDED], critique=[["Too dull."]]))

    done = await refined(program(JUDGE, search=Search(rounds=2), sampling=FOUR), scripted)

    assert asked_for_revisions(scripted) == ["Edit: Shorten, in en. |  | ", "Edit:  | Too dull. | "]
    assert done.selected.text == ENDED


async def test_an_earlier_text_that_was_cut_is_not_held_against_a_later_one() -> None:
    scripted = engine(Lines(draft=[LONG], revise=[ENDED, "Foam breaks."], critique=[["Too dull."]]))

    search = Search(rounds=2, carry="none", memory=3)
    await refined(program(JUDGE, search=search, sampling=FOUR), scripted)

    assert asked_for_revisions(scripted) == ["Shorten, in en.", "Too dull."]


async def test_a_complete_copy_of_a_text_that_landed_is_better_than_it() -> None:
    scripted = engine(Lines(draft=[LONG], revise=["Waves rise. Foam is white."]))

    landing = Sampling(max_tokens=6, landing=True)
    done = await refined(program(JUDGE, search=Search(), sampling=landing, judge_trust=JudgeTrust("none")), scripted)

    assert (done.first.text, done.first.completion.finish_reason) == ("Waves rise. Foam is white.", "landed")
    assert (done.stop_reason, done.selected.form) == ("fixpoint", "edit")
    assert scripted.counts() == {"draft": 1, "revise": 1, "judge": 2}


async def test_carry_adaptive_asks_for_a_shorter_text_too() -> None:
    scripted = engine(Lines(draft=[LONG], revise=[LONG.upper()]))

    search = Search(rounds=20, carry="adaptive", critic="evaluators")
    await refined(program(JUDGE, search=search, sampling=replace(FOUR, seed=1)), scripted)

    assert set(asked_for_revisions(scripted)) == {"Edit: Shorten, in en. |  | ", "Shorten, in en."}


@pytest.mark.parametrize(("form", "complete"), [("repair", True), ("draft", False)])
def test_a_text_that_had_all_that_its_rules_allow_is_complete_once_it_is_repaired(form: Form, complete: bool) -> None:
    assert Candidate("c0", 0, form, None, REQUEST, Completion("Waves.", "aborted", Usage())).is_complete is complete


async def test_a_blank_text_is_not_complete() -> None:
    scripted = engine(Lines(draft=[" "], revise=[ENDED]))

    done = await refined(program(JUDGE, search=Search(), sampling=FOUR, judge_trust=JudgeTrust("none")), scripted)

    assert (done.stop_reason, done.selected.text) == ("untrusted", ENDED)


async def test_a_judge_s_score_reaches_a_target_that_is_stated() -> None:
    scripted = engine(Lines(draft=[LONG], ratings={"Waves rise. Foam is": rated(0.9)}))

    done = await refined(program(JUDGE, search=Search(), sampling=FOUR, stop=Stop(target=0.8)), scripted)

    assert (done.stop_reason, done.selected.text) == ("target", "Waves rise. Foam is")


async def test_the_draft_of_a_request_is_complete() -> None:
    scripted = engine(Lines(critique=[()]))

    done = await refined(program(JUDGE, search=Search(), sampling=FOUR, draft=LONG), scripted)

    assert (done.stop_reason, done.selected.text) == ("no_issues", LONG)


@pytest.mark.parametrize(
    ("reason", "text", "complete"),
    [
        ("stop", "Waves.", True),
        ("stop", "\n", False),
        ("aborted", "Waves.", False),
        ("landed", "Waves.", False),
        ("length", "Waves and", False),
        ("budget", "Waves and", False),
        ("content_filter", "Waves and", False),
    ],
)
def test_which_texts_are_complete(reason: FinishReason, text: str, complete: bool) -> None:
    assert Completion(text, reason, Usage()).is_complete is complete


async def test_what_verifiers_find_is_told_instead() -> None:
    scripted = engine(Lines(draft=[LONG], revise=["Salt waves."]))

    done = await refined(program(SALT, search=Search(), sampling=FOUR), scripted)

    [told] = asked_for_revisions(scripted)
    assert "salt" in told
    assert "Shorten, in en." not in told
    assert [len(critique.issues) for critique in done.rounds[1].critiques] == [2]
    assert done.stop_reason == "target"


async def test_a_cut_text_that_passes_all_verifiers_is_the_target_as_before() -> None:
    scripted = engine(Lines(draft=["Salt waves rise and rise"]))

    done = await refined(program(SALT, search=Search(), sampling=FOUR), scripted)

    assert (done.stop_reason, scripted.counts()) == ("target", {"draft": 1})


async def test_with_no_critic_nothing_is_told() -> None:
    scripted = engine(Lines(draft=[LONG], revise=[ENDED]))

    done = await refined(program(JUDGE, search=Search(rounds=1, critic="none"), sampling=FOUR), scripted)

    assert asked_for_revisions(scripted) == ["Edit:  |  | "]
    assert done.selected.text == ENDED


async def test_a_chinese_request_is_told_in_chinese() -> None:
    scripted = engine(Lines(draft=[LONG], revise=[ENDED]))
    request = Conversation(Turn("user", "请写一首关于海浪的诗。"))
    prompts = load_tasks()["general"].prompts

    await refined(program(search=Search(rounds=1), sampling=FOUR, request=request, prompts=prompts), scripted)

    assert asked_for_revisions(scripted) == ["你的回答还没有写完就被截断了。请写一个更短而完整的回答。"]


@pytest.mark.parametrize("critic", ["model", "evaluators"])
async def test_any_other_critic_tells_it(critic: Critic) -> None:
    scripted = engine(Lines(draft=[LONG], revise=[ENDED], critique=[()]))

    done = await refined(program(JUDGE, search=Search(rounds=1, critic=critic), sampling=FOUR), scripted)

    assert asked_for_revisions(scripted) == ["Edit: Shorten, in en. |  | "]
    assert done.selected.text == ENDED


async def test_a_redraft_is_told_so_too() -> None:
    scripted = engine(Lines(draft=[LONG], revise=[ENDED]))

    done = await refined(program(JUDGE, search=Search(rounds=1, carry="none"), sampling=FOUR), scripted)

    assert asked_for_revisions(scripted) == ["Shorten, in en."]
    assert done.selected.form == "redraft"


@pytest.mark.parametrize("select", ["pairwise", "vote"])
async def test_of_many_drafts_those_that_were_cut_do_not_count(select: Select) -> None:
    scripted = engine(Lines(draft=[LONG, LONG, ENDED], vote=(1.0,)))

    done = await refined(program(search=Search(drafts=3, rounds=0, select=select), sampling=FOUR), scripted)

    assert done.selected.text == ENDED
    assert not any(map(compared, scripted.calls))


async def test_of_many_drafts_the_best_one_is_one_that_came_to_its_end() -> None:
    ratings = {"Waves rise. Foam is": rated(1.0), ENDED: rated(0.0)}
    scripted = engine(Lines(draft=[LONG, ENDED], ratings=ratings))

    done = await refined(program(JUDGE, search=Search(drafts=2, rounds=0), sampling=FOUR), scripted)

    assert done.selected.text == ENDED
