"""Every stop reason of a refine program, reached for real, and what a program keeps that was stopped in between."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pytest

from service.engines.base import Choose, Sampling
from service.engines.conversation import Conversation, Turn
from service.engines.scripted import EngineCall, Script
from service.errors import DeadlineExceeded, EngineDead, PromptTooLong
from service.evaluators.text.length import Length
from service.refinement.events import RoundEnded
from service.refinement.program import PRESETS, Search, Stop
from service.refinement.roles import CallRole
from service.refinement.trust import JudgeTrust
from tests.support.scripts import (
    FOAM,
    JUDGE,
    REQUEST,
    SALT,
    Broken,
    Clock,
    Lines,
    Stuck,
    engine,
    events,
    halt,
    of_type,
    program,
    rated,
    refined,
    role_of,
    settled,
    shown_in,
    stall,
)

BLIND = Search(rounds=3, critic="none")


async def test_verifiers_that_all_pass_are_the_target_when_none_is_stated() -> None:
    scripted = engine(Lines(draft=["Salt."]))

    done = await refined(program(SALT), scripted)

    assert (done.stop_reason, done.selected.text, len(done.rounds)) == ("target", "Salt.", 1)
    assert scripted.counts() == {"draft": 1}


@pytest.mark.parametrize(("target", "text"), [(None, "Salt."), (1.0, "Salt foam.")])
async def test_a_soft_verifier_that_fails_is_worth_more_rounds_only_to_a_stated_target(
    target: float | None, text: str
) -> None:
    stop = Stop(target=target, patience=100)

    done = await refined(program(SALT, FOAM, stop=stop), engine(Lines(draft=["Salt."], revise=["Salt foam."])))

    assert (done.stop_reason, done.selected.text) == ("target", text)


async def test_a_judge_leaves_no_target_unless_one_is_stated() -> None:
    lines = Lines(draft=["Salt."], ratings={"Salt.": rated(1.0)})

    unstated = await refined(program(SALT, JUDGE), engine(lines))
    stated = await refined(program(SALT, JUDGE, stop=Stop(target=1.0)), engine(lines))

    assert (unstated.stop_reason, stated.stop_reason) == ("rounds", "target")
    assert len(stated.rounds) == 1


async def test_a_stated_target_ends_the_loop_in_the_round_that_reaches_it() -> None:
    ratings = {"One.": rated(0.25), "Two.": rated(0.5), "Three.": rated(0.75), "Four.": rated(1.0)}
    lines = Lines(draft=["One."], revise=["Two.", "Three.", "Four."], ratings=ratings)

    done = await refined(program(JUDGE, search=Search(rounds=3), stop=Stop(target=0.75)), engine(lines))

    assert (done.stop_reason, done.selected.text, len(done.rounds)) == ("target", "Three.", 3)


async def test_a_target_is_not_reached_by_a_text_that_fails_a_hard_verifier() -> None:
    done = await refined(program(SALT, search=Search(rounds=1), stop=Stop(target=0.0)), engine())

    assert done.stop_reason == "rounds"


async def test_a_critic_without_issues_ends_the_loop() -> None:
    scripted = engine(Lines(critique=[()]))

    done = await refined(program(JUDGE, search=Search(rounds=3)), scripted)

    assert (done.stop_reason, len(done.rounds)) == ("no_issues", 2)
    assert scripted.counts() == {"draft": 1, "judge": 2, "critique": 1}
    assert done.rounds[1].candidates == ()
    assert [critique.issues for critique in done.rounds[1].critiques] == [()]


async def test_a_critic_without_issues_does_not_end_the_loop_while_a_verifier_fails() -> None:
    done = await refined(program(SALT, JUDGE, search=Search(rounds=1)), engine(Lines(critique=[()])))

    assert done.stop_reason == "rounds"


async def test_a_critic_that_finds_fault_with_one_parent_of_two_goes_on_with_that_one() -> None:
    scripted = engine(Lines(draft=["One.", "Two."], critique=[(), ["Longer."]]))

    done = await refined(program(JUDGE, search=Search(drafts=2, beam=2, rounds=1)), scripted)

    assert done.stop_reason == "rounds"
    assert [candidate.parent for candidate in done.rounds[1].candidates] == ["c1"]


async def test_a_critique_that_was_cut_before_its_first_point_is_not_a_satisfied_critic() -> None:
    done = await refined(program(JUDGE, search=Search(rounds=1)), engine(Lines(critique=['{"iss'])))

    assert done.stop_reason != "no_issues"


async def test_revisions_that_only_repeat_end_the_loop() -> None:
    lines = Lines(draft=["One.", "Two."], revise=["Two.", "One."])

    done = await refined(program(JUDGE, search=Search(drafts=2, branches=2, rounds=3)), engine(lines))

    assert (done.stop_reason, len(done.rounds)) == ("fixpoint", 2)
    assert done.selected.text == "One."


async def test_an_edit_that_repeats_a_text_with_a_broken_rule_is_followed_by_a_redraft() -> None:
    lines = Lines(draft=["Waves."], revise=["Waves.", "Salt."])

    done = await refined(program(SALT, search=Search(rounds=3)), engine(lines))

    assert (done.stop_reason, done.selected.text) == ("target", "Salt.")


async def test_one_new_revision_beside_a_repeated_one_is_no_fixpoint() -> None:
    lines = Lines(draft=["One."], revise=["One.", "Two."])

    done = await refined(program(JUDGE, search=Search(branches=2, rounds=1)), engine(lines))

    assert done.stop_reason == "rounds"


@pytest.mark.parametrize("patience", [1, 2])
async def test_patience_counts_the_rounds_since_the_last_gain(patience: int) -> None:
    texts = ["One.", "Two.", "Three.", "Four."]
    lines = Lines(revise=texts, ratings={"Waves.": rated(0.25), "One.": rated(0.75)})

    done = await refined(program(JUDGE, search=Search(rounds=9), stop=Stop(patience=patience)), engine(lines))

    assert (done.stop_reason, done.selected.text) == ("patience", "One.")
    assert [ended.accepted for ended in done.rounds] == [True, True, *([False] * patience)]


@pytest.mark.parametrize("rounds", [0, 1, 3])
async def test_the_loop_ends_after_the_rounds_asked_for(rounds: int) -> None:
    lines = Lines(revise=["One.", "Two.", "Three."])

    done = await refined(program(JUDGE, search=Search(rounds=rounds)), engine(lines))

    assert (done.stop_reason, len(done.rounds)) == ("rounds", rounds + 1)


async def test_evaluators_that_all_fail_end_the_loop_with_the_draft() -> None:
    scripted = engine()

    done = await refined(program(Broken(), Broken(authority="judge", hard=False)), scripted)

    assert (done.stop_reason, done.selected.text) == ("evaluators_failed", "Waves.")
    assert done.assessments["c0"].score is None
    assert scripted.counts() == {"draft": 1}


async def test_one_evaluator_that_works_is_enough_to_go_on() -> None:
    done = await refined(program(Broken(), SALT, search=BLIND), engine(Lines(revise=["One.", "Two.", "Three."])))

    assert done.stop_reason == "rounds"


@pytest.mark.parametrize(
    ("calls", "text", "spent"),
    [
        (1, "Waves.", {"draft": 1}),
        (3, "Waves.", {"draft": 1, "judge": 2}),
        (4, "Waves.", {"draft": 1, "judge": 2, "critique": 1}),
        (5, "Waves.", {"draft": 1, "judge": 2, "critique": 2}),
        (6, "Waves.", {"draft": 1, "judge": 2, "critique": 2, "revise": 1}),
        (8, "Salt.", {"draft": 1, "judge": 4, "critique": 2, "revise": 1}),
    ],
)
async def test_a_budget_of_calls_ends_the_loop_before_the_call_beyond_it(
    calls: int, text: str, spent: dict[CallRole, int]
) -> None:
    ratings = {"Waves.": rated(0.0), "Salt.": rated(1.0)}
    scripted = engine(Lines(revise=["Salt.", "Foam."], ratings=ratings))

    done = await refined(program(JUDGE, search=Search(rounds=5), calls=calls), scripted)

    assert (done.stop_reason, done.selected.text) == ("budget", text)
    assert scripted.counts() == spent
    assert sum(usage.calls for usage in done.usage.values()) == calls


async def test_a_budget_of_calls_shortens_the_last_siblings() -> None:
    done = await refined(program(FOAM, search=Search(drafts=4, rounds=0), calls=2), engine())

    assert len(done.rounds[0].candidates) == 2


async def test_a_revision_that_the_verifiers_prefer_is_kept_though_no_call_is_left_to_judge_it() -> None:
    lines = Lines(revise=["Salt."])

    done = await refined(program(SALT, JUDGE, calls=4), engine(lines))

    assert (done.stop_reason, done.selected.text) == ("budget", "Salt.")
    assert done.assessments["c1"].passed is True


@pytest.mark.parametrize(
    ("search", "calls"),
    [(Search(branches=2, critic="evaluators"), 2), (Search(drafts=2, beam=2, critic="evaluators"), 3)],
    ids=["an edit and a redraft of one parent", "edits of two parents"],
)
async def test_a_revision_that_has_begun_is_finished_when_the_one_beside_it_is_refused(
    search: Search, calls: int
) -> None:
    scripted = engine(Lines(draft=["One.", "Two."], revise=["Salt."]))

    done = await refined(program(SALT, search=search, calls=calls), scripted)

    assert done.selected.text == "Salt."
    assert sum(usage.calls for usage in done.usage.values()) == len(scripted.calls) == calls


async def test_a_revision_that_has_begun_is_finished_when_it_holds_all_the_tokens_that_are_left() -> None:
    scripted = engine(Lines(draft=["One.", "Two."], revise=["Salt."]))
    search = Search(drafts=2, beam=2, critic="evaluators")

    done = await refined(program(SALT, search=search, tokens=100), scripted)

    assert done.selected.text == "Salt."


async def test_a_judge_with_too_few_calls_left_leaves_no_call_out_of_the_account() -> None:
    scripted = engine()

    done = await refined(program(replace(JUDGE, criteria=JUDGE.criteria * 3), calls=3), scripted)

    assert done.stop_reason == "budget"
    assert sum(usage.calls for usage in done.usage.values()) == len(scripted.calls)
    assert done.usage == scripted.bill


async def test_a_budget_of_tokens_cuts_the_last_text_and_ends_the_loop() -> None:
    lines = Lines(draft=["one two three four five six seven eight nine ten"])
    scripted = engine(lines)
    prompt_tokens = 1 + len(["Write", "about", "the", "sea."])

    done = await refined(program(JUDGE, tokens=prompt_tokens + 4), scripted)

    assert done.stop_reason == "budget"
    assert done.selected.completion.finish_reason == "budget"
    assert done.selected.completion.usage.completion_tokens == 4


async def test_a_round_that_the_budget_cut_short_may_still_reach_the_target() -> None:
    scripted = engine(Lines(draft=["Waves.", "Salt.", "Foam."]))

    done = await refined(program(SALT, search=Search(drafts=3), calls=2), scripted)

    assert (done.stop_reason, done.selected.text) == ("target", "Salt.")


async def test_a_text_that_the_budget_cut_reaches_no_target() -> None:
    done = await refined(program(SALT, tokens=7), engine(Lines(draft=["Salt is in the sea."])))

    assert (done.stop_reason, done.selected.text) == ("budget", "Salt is")
    assert done.assessments["c0"].passed is True


async def test_siblings_never_pass_a_budget_of_tokens() -> None:
    long = " ".join(f"word{number}" for number in range(200))

    done = await refined(program(JUDGE, search=Search(drafts=4), tokens=100), engine(Lines(draft=[long])))

    assert done.stop_reason == "budget"
    assert sum(usage.tokens for usage in done.usage.values()) == 100


async def test_a_conversation_that_outgrows_the_context_ends_the_loop_with_what_there_is() -> None:
    scripted = engine(Lines(draft=["word " * 40]), context_tokens=50)

    done = await refined(program(Length(unit="words", max=1), search=Search(aborts=False)), scripted)

    assert done.stop_reason == "budget"
    assert done.selected.id == "c0"


async def test_a_redraft_is_kept_though_the_edit_beside_it_does_not_fit_the_context() -> None:
    scripted = engine(Lines(draft=["word " * 40], revise=["Salt."]), context_tokens=50)

    done = await refined(program(SALT, search=Search(rounds=1, branches=2, critic="evaluators")), scripted)

    assert done.selected.text == "Salt."


async def test_a_request_that_fills_the_context_is_refused_before_any_event() -> None:
    found = []
    endless = program(JUDGE, request=Conversation(Turn("user", "word " * 100)))
    scripted = engine(context_tokens=50)

    with pytest.raises(PromptTooLong) as refused:
        found.extend(await events(endless, scripted))

    assert (refused.value.prompt_tokens, refused.value.context_tokens) == (102, 50)
    assert (found, scripted.calls) == ([], [])


async def test_a_deadline_while_drafting_is_an_error(clock: Clock) -> None:
    scripted = engine()
    stall(scripted, lambda call: role_of(call) == "draft", clock.jump)

    with pytest.raises(DeadlineExceeded):
        await refined(program(SALT), scripted)
    await settled(scripted)


async def test_a_deadline_among_siblings_keeps_those_that_are_finished(clock: Clock) -> None:
    scripted = engine(Lines(draft=["Salt.", "Waves.", "Foam."]))
    seen = 0

    def last(call: EngineCall) -> bool:
        nonlocal seen
        seen += 1
        return seen == 3

    async def jump_once_the_others_are_finished() -> None:
        while seen < 3 or scripted.in_flight > 1:
            await asyncio.sleep(0)
        clock.jump()

    stall(scripted, last)
    jumping = asyncio.create_task(jump_once_the_others_are_finished())

    done = await refined(program(SALT, search=Search(drafts=3)), scripted)

    await jumping
    assert (done.stop_reason, [c.text for c in done.rounds[0].candidates]) == ("deadline", ["Salt.", "Waves."])
    assert done.usage["draft"].calls == 2
    await settled(scripted)


async def test_a_deadline_keeps_texts_as_far_as_they_came_and_has_them_verified(clock: Clock) -> None:
    scripted = engine(Lines(draft=["Waves are tall.", "Salt waves are tall."]))
    halt(scripted, 2, clock.jump, streams=2)

    done = await refined(program(SALT, search=Search(drafts=2)), scripted)

    assert (done.stop_reason, done.selected.text) == ("deadline", "Salt waves")
    assert [(c.text, c.completion.finish_reason) for c in done.rounds[0].candidates] == [
        ("Waves are", "deadline"),
        ("Salt waves", "deadline"),
    ]
    assert [done.assessments[c.id].passed for c in done.rounds[0].candidates] == [False, True]
    assert done.usage == scripted.bill
    await settled(scripted)


async def test_texts_that_were_cut_come_after_those_that_are_finished_and_the_longest_of_them_first(
    clock: Clock,
) -> None:
    scripted = engine(Lines(draft=["One two three four.", "One two.", "One."]))
    halted = 0

    def pause(at: int) -> float:
        nonlocal halted
        halted += at == 2
        if halted == 1 and at == 2:
            asyncio.get_running_loop().call_later(0.05, clock.jump)
        return 3600.0 if at == 2 else 0.0

    scripted.script = replace(scripted.script, pause=pause)

    done = await refined(program(JUDGE, search=Search(drafts=3)), scripted)

    assert [c.text for c in done.rounds[0].candidates] == ["One two.", "One.", "One two"]
    assert done.selected.text == "One two."


async def test_a_revision_that_the_deadline_cuts_wins_only_by_what_verifiers_say(clock: Clock) -> None:
    scripted = engine(Lines(draft=["Waves."], revise=["Salt and much more of it."]))
    halt(scripted, 2, clock.jump)

    done = await refined(program(SALT, JUDGE, search=Search(rounds=3)), scripted)

    assert (done.stop_reason, done.selected.text, done.selected.completion.finish_reason) == (
        "deadline",
        "Salt and",
        "deadline",
    )
    assert done.assessments["c1"].evaluations[1].error == "not evaluated"


async def test_verifiers_that_take_longer_than_the_time_after_the_deadline_are_not_waited_for(clock: Clock) -> None:
    scripted = engine(Lines(draft=["Salt waves."]))
    halt(scripted, 1, clock.jump)

    done = await refined(program(SALT, Stuck()), scripted)

    assert (done.stop_reason, done.selected.text) == ("deadline", "Salt")
    assert [e.error for e in done.assessments["c0"].evaluations] == [None, "not evaluated"]


async def test_an_engine_that_dies_in_mid_stream_leaves_what_was_written() -> None:
    scripted = engine(Lines(draft=["Waves are tall.", "Salt waves are tall."]))
    halt(scripted, 2, scripted.kill, streams=2)

    done = await refined(program(SALT, search=Search(drafts=2)), scripted)

    assert (done.stop_reason, done.selected.text) == ("engine_failed", "Salt waves")
    assert {c.completion.finish_reason for c in done.rounds[0].candidates} == {"engine_failed"}
    assert done.usage == scripted.bill


async def test_a_deadline_while_judging_keeps_what_the_verifiers_said(clock: Clock) -> None:
    scripted = engine(Lines(revise=["Salt."]))
    stall(scripted, lambda call: role_of(call) == "judge" and shown_in(call) == "Salt.", clock.jump)

    done = await refined(program(SALT, JUDGE), scripted)

    assert (done.stop_reason, done.selected.text) == ("deadline", "Salt.")
    verified, judged = done.assessments["c1"].evaluations
    assert (verified.passed, judged.score, judged.error) == (True, None, "not evaluated")
    await settled(scripted)


async def test_a_deadline_while_judging_keeps_the_draft_where_only_the_judge_evaluates(clock: Clock) -> None:
    scripted = engine()
    stall(scripted, lambda call: role_of(call) == "judge" and shown_in(call) == "More waves.", clock.jump)

    done = await refined(program(JUDGE), scripted)

    assert (done.stop_reason, done.selected.text) == ("deadline", "Waves.")
    assert "c1" not in done.assessments


@pytest.mark.parametrize("role", ["critique", "revise"])
async def test_a_deadline_within_a_round_keeps_the_best_so_far(clock: Clock, role: CallRole) -> None:
    scripted = engine(Lines(draft=["Waves.", "Foam."]))
    stall(scripted, lambda call: role_of(call) == role, clock.jump)

    done = await refined(program(SALT, FOAM, search=Search(drafts=2, critic="model")), scripted)

    assert (done.stop_reason, done.selected.text) == ("deadline", "Foam.")
    assert done.rounds[-1].candidates == ()
    await settled(scripted)


async def test_a_deadline_that_has_passed_already_still_returns_the_callers_own_draft() -> None:
    done = await refined(program(Broken(), draft="Mine.", seconds=-1.0), engine())

    assert (done.stop_reason, done.selected.text) == ("deadline", "Mine.")


async def test_an_engine_that_dies_within_a_round_leaves_the_best_so_far() -> None:
    scripted = engine(Lines(draft=["Waves.", "Foam."]))
    stall(scripted, lambda call: role_of(call) == "revise", scripted.kill)

    found = await events(program(SALT, FOAM, search=Search(drafts=2)), scripted)

    [*_, closing, done] = found
    assert isinstance(closing, RoundEnded)
    assert (closing.round.number, closing.round.accepted) == (1, False)
    assert getattr(done, "stop_reason", None) == "engine_failed"
    assert len(of_type(found, RoundEnded)) == 2
    await settled(scripted)


async def test_an_engine_that_dies_while_it_judges_the_first_draft_still_leaves_that_draft() -> None:
    scripted = engine()
    stall(scripted, lambda call: isinstance(call, Choose), scripted.kill)

    done = await refined(program(JUDGE), scripted)

    assert (done.stop_reason, done.selected.text, done.assessments) == ("engine_failed", "Waves.", {})


async def test_an_engine_that_is_dead_before_the_draft_is_an_error() -> None:
    scripted = engine()
    scripted.kill()

    with pytest.raises(EngineDead):
        await refined(program(JUDGE), scripted)


async def test_what_is_no_known_failure_of_an_engine_is_raised_as_itself() -> None:
    def fault(call: EngineCall) -> None:
        if call.conversation is not REQUEST:
            raise ZeroDivisionError

    scripted = engine()
    scripted.script = Script(reply=scripted.script.reply, fault=fault)

    with pytest.raises(ZeroDivisionError):
        await refined(program(SALT, sampling=Sampling(max_tokens=5)), scripted)


async def test_a_judge_that_is_not_trusted_has_nothing_revised_that_no_verifier_finds_fault_with() -> None:
    lines = Lines(draft=["Salt."], revise=["More salt."], ratings={"Salt.": rated(0.25), "More salt.": rated(1.0)})
    scripted = engine(lines)

    done = await refined(program(SALT, JUDGE, judge_trust=JudgeTrust("none", 0.5, "built_in")), scripted)

    assert (done.stop_reason, done.selected.text, len(done.rounds)) == ("untrusted", "Salt.", 1)
    assert done.judge_trust == JudgeTrust("none", 0.5, "built_in")
    assert scripted.counts() == {"draft": 1, "judge": 2}


async def test_what_a_verifier_finds_is_revised_whatever_the_judge_is_worth() -> None:
    scripted = engine(Lines(draft=["Waves."], revise=["Salt waves."]))

    done = await refined(program(SALT, JUDGE, search=Search(), judge_trust=JudgeTrust("none")), scripted)

    assert (done.stop_reason, done.selected.text, len(done.rounds)) == ("untrusted", "Salt waves.", 2)
    assert scripted.counts() == {"draft": 1, "revise": 1, "judge": 4}


async def test_a_critic_that_the_request_asks_for_is_asked_but_an_untrusted_judge_still_decides_nothing() -> None:
    ratings = {"Waves.": rated(0.0), "More waves.": rated(1.0)}
    scripted = engine(Lines(ratings=ratings))

    done = await refined(
        program(JUDGE, search=Search(rounds=1, critic="model"), judge_trust=JudgeTrust("none")), scripted
    )

    assert (done.stop_reason, done.selected.text) == ("rounds", "Waves.")
    assert scripted.counts() == {"draft": 1, "critique": 2, "revise": 1, "judge": 4}


@pytest.mark.parametrize(("level", "text"), [("break_ties", "Foam."), ("none", "Waves.")])
async def test_a_judge_that_may_break_ties_picks_among_drafts(level: Literal["break_ties", "none"], text: str) -> None:
    lines = Lines(draft=["Waves.", "Foam."], ratings={"Waves.": rated(0.0), "Foam.": rated(1.0)})

    done = await refined(program(JUDGE, search=Search(drafts=2), judge_trust=JudgeTrust(level)), engine(lines))

    assert (done.stop_reason, done.selected.text) == ("untrusted", text)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("drafts", [["Salt."], ["Waves."]])
async def test_what_only_verifiers_drive_is_the_same_whatever_the_judge_is_worth(
    preset: str, drafts: Sequence[str]
) -> None:
    async def account(trust: JudgeTrust) -> tuple[object, ...]:
        lines = Lines(draft=drafts, revise=["Foam.", "Salt waves."], vote=[0.2] * 5)
        scripted = engine(lines)
        sampling = Sampling(seed=1)
        done = await refined(
            program(SALT, search=PRESETS[preset], sampling=sampling, principles=("Be kind.",), judge_trust=trust),
            scripted,
        )
        texts = [[candidate.text for candidate in ended.candidates] for ended in done.rounds]
        return done.stop_reason, done.selected.text, texts, scripted.bill

    assert await account(JudgeTrust("none")) == await account(JudgeTrust("drive"))
