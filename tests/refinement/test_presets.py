"""What each preset of the loop does: its width, its depth, what its prompts show, and who picks the result."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engines.base import Sampling
from service.engines.conversation import Conversation, Turn
from service.engines.scripted import ScriptedEngine
from service.evaluators.base import Evaluator
from service.evaluators.text.length import Length
from service.refinement.events import Refined
from service.refinement.program import PRESETS, Critic, Search, Select, Stop
from service.tasks.overrides import Preset
from tests.support.assessments import order_of
from tests.support.scripts import FENCE, FOAM, JUDGE, SALT, Broken, Lines, engine, program, rated, refined

PRINCIPLES = ("Be kind.", "Be brief.", "Be true.")
TEXTS = ("Waves.", "Sea.", "Salt.", "More salt.", "Foam.", "Salt foam.", "Foam and salt.")
NO_EVALUATOR_FAILS = Length(unit="words", min=1, hard=False)


def test_every_preset_that_a_request_may_name_exists() -> None:
    assert set(get_args(Preset)) == set(PRESETS)


async def test_best_of_n_drafts_and_keeps_the_best() -> None:
    lines = Lines(draft=["One.", "Two.", "Three.", "Four."], ratings={"Three.": rated(0.9), "Four.": rated(0.0)})
    scripted = engine(lines)

    done = await refined(program(JUDGE, search=PRESETS["best_of_n"]), scripted)

    assert (done.selected.text, done.stop_reason) == ("Three.", "rounds")
    assert scripted.counts() == {"draft": 4, "judge": 8}


async def test_a_vote_goes_to_the_text_that_most_drafts_share() -> None:
    scripted = engine(Lines(draft=["41", "42", " 42 ", "43", "42"]))

    done = await refined(program(search=PRESETS["vote"]), scripted)

    assert (done.selected.id, done.selected.text) == ("c1", "42")
    assert scripted.counts() == {"draft": 5}


async def test_a_vote_without_a_leader_is_the_models_choice() -> None:
    lines = Lines(draft=["41", "42", "43", "43", "42"], vote=[0.2, 0.3, 0.5])
    scripted = engine(lines)

    done = await refined(program(search=PRESETS["vote"]), scripted)

    [choice] = scripted.asked("judge")
    assert done.selected.text == "43"
    assert (choice.options, choice.prefill) == (("A", "B", "C"), "Reply ")
    assert choice.prompt == f"Write about the sea.\n\nA=41;B=42;C=43; {FENCE}"


async def test_a_vote_is_among_those_that_the_verifiers_cannot_tell_apart() -> None:
    scripted = engine(Lines(draft=["Sand.", "Sand.", "Salt one.", "Salt two.", "Sand."], vote=[0.1, 0.9]))

    done = await refined(program(SALT, search=PRESETS["vote"]), scripted)

    assert done.selected.text == "Salt two."
    assert [call.options for call in scripted.asked("judge")] == [("A", "B")]


async def test_one_passing_draft_needs_no_vote() -> None:
    scripted = engine(Lines(draft=["Sand.", "Sand.", "Salt.", "Sand.", "Sand."]))

    done = await refined(program(SALT, search=PRESETS["vote"]), scripted)

    assert done.selected.text == "Salt."
    assert scripted.asked("judge") == []


async def test_a_vote_among_more_texts_than_letters_is_still_held() -> None:
    scripted = engine(Lines(draft=[f"Text {number}." for number in range(40)], vote=[0.0] * 25 + [1.0]))

    done = await refined(program(search=Search(drafts=40, rounds=0, select="vote")), scripted)

    assert done.stop_reason == "rounds"
    assert done.selected.text == "Text 25."


async def test_a_vote_that_cannot_be_paid_for_leaves_the_incumbent() -> None:
    scripted = engine(Lines(draft=["41", "42", "43"]))

    done = await refined(program(search=Search(drafts=3, rounds=0, select="vote"), calls=3), scripted)

    assert (done.stop_reason, done.selected.text) == ("budget", "41")


async def test_a_majority_wins_without_a_call_however_the_search_ended() -> None:
    scripted = engine(Lines(draft=["41", "42", "42", "42", "43"]))

    done = await refined(program(search=Search(drafts=5, rounds=1, select="vote"), calls=5), scripted)

    assert (done.stop_reason, done.selected.text) == ("budget", "42")
    assert scripted.counts() == {"draft": 5}


async def test_a_beam_works_on_its_best_candidates() -> None:
    ratings = {"Two.": rated(0.75), "Four.": rated(1.0)}
    lines = Lines(draft=["One.", "Two.", "Three.", "Four."], revise=[f"R{n}." for n in range(4)], ratings=ratings)
    scripted = engine(lines)
    search = PRESETS["beam"]

    done = await refined(program(JUDGE, search=search, stop=Stop(patience=1)), scripted)

    assert [candidate.parent for candidate in done.rounds[1].candidates] == ["c3", "c3", "c1", "c1"]
    assert [critique.candidate for critique in done.rounds[1].critiques] == ["c3", "c1"]
    assert scripted.counts() == {"draft": 4, "critique": 4, "revise": 4, "judge": 16}


async def test_reflexion_shows_no_parent_and_tells_what_earlier_rounds_found() -> None:
    lines = Lines(
        draft=["One."],
        revise=["Two.", "Three.", "Four."],
        critique=[["First remark."], ["Second remark."], ["Third remark."]],
        ratings={"One.": rated(0.05), "Two.": rated(0.4), "Three.": rated(0.8), "Four.": rated(0.99)},
    )
    scripted = engine(lines)

    done = await refined(program(JUDGE, search=PRESETS["reflexion"]), scripted)

    asked = [[(turn.role, turn.text) for turn in call.conversation.turns()] for call in scripted.asked("revise")]
    request = ("user", "Write about the sea.")
    assert asked == [
        [request, ("user", "First remark.")],
        [request, ("user", "Second remark. First remark.")],
        [request, ("user", "Third remark. First remark. Second remark.")],
    ]
    assert all(candidate.parent is None for ended in done.rounds for candidate in ended.candidates)
    assert done.selected.text == "Four."


async def test_memory_reaches_back_as_many_rounds_as_asked_for() -> None:
    lines = Lines(
        revise=["One.", "Two.", "Three."],
        critique=[["First."], ["Second."], ["Third."]],
        ratings={"Waves.": rated(0.05), "One.": rated(0.4), "Two.": rated(0.8), "Three.": rated(0.99)},
    )
    scripted = engine(lines)

    await refined(program(JUDGE, search=Search(rounds=3, memory=1)), scripted)

    assert [call.prompt for call in scripted.asked("revise")] == [
        "Edit:  | First. | ",
        "Edit:  | Second. | First.",
        "Edit:  | Third. | Second.",
    ]


async def test_a_lesson_that_is_told_anyway_is_not_told_again_from_memory() -> None:
    scripted = engine(Lines(revise=["One.", "Two."]))

    await refined(program(FOAM, search=Search(rounds=2, carry="none", memory=3, critic="model")), scripted)

    assert {call.prompt for call in scripted.asked("revise")} == {
        'Write about the sea.\n\nUse all of these words: "foam". Too short.'
    }


async def test_constitutional_draws_one_principle_a_round_into_the_critique() -> None:
    texts = [f"Revision {number}." for number in range(9)]
    scripted = engine(Lines(revise=texts))
    search = replace(PRESETS["constitutional"], rounds=9)

    await refined(program(JUDGE, search=search, principles=PRINCIPLES, sampling=Sampling(seed=1)), scripted)

    told = [call.prompt.partition("Principles: ")[2] for call in scripted.asked("critique")]
    assert sorted(told) == sorted(PRINCIPLES)  # the same question about the same parent is asked once


async def test_without_principles_none_is_told() -> None:
    scripted = engine()

    await refined(program(JUDGE, search=PRESETS["constitutional"]), scripted)

    assert all(call.prompt.endswith("Principles: ") for call in scripted.asked("critique"))


@pytest.mark.parametrize("preset", ["self_refine", "best_of_n", "beam", "reflexion", "constitutional", "adaptive"])
async def test_a_seed_repeats_a_program_to_the_letter(preset: str) -> None:
    async def texts(seed: int) -> Sequence[tuple[str, str]]:
        asked = program(
            JUDGE, NO_EVALUATOR_FAILS, search=PRESETS[preset], principles=PRINCIPLES, sampling=Sampling(seed=seed)
        )
        done = await refined(asked, ScriptedEngine())
        return [(candidate.id, candidate.text) for ended in done.rounds for candidate in ended.candidates]

    first, again, other = await texts(1), await texts(1), await texts(2)

    assert first == again
    assert first != other


@settings(max_examples=200, deadline=None)
@given(
    preset=st.sampled_from(list(PRESETS)),
    select=st.sampled_from(get_args(Select)),
    critic=st.sampled_from(get_args(Critic)),
    evaluators=st.lists(st.sampled_from([SALT, FOAM, Broken(), JUDGE]), unique_by=id),
    draft=st.none() | st.sampled_from(TEXTS),
    calls=st.none() | st.integers(1, 25),
    seed=st.integers(0, 1000),
)
def test_no_search_returns_a_text_that_ranks_below_its_first(
    preset: str,
    select: Select,
    critic: Critic,
    evaluators: list[Evaluator],
    draft: str | None,
    calls: int | None,
    seed: int,
) -> None:
    draws = random.Random(seed)
    search = replace(PRESETS[preset], select=select, critic=critic)
    verifiers = [evaluator for evaluator in evaluators if evaluator.authority == "verifier"]

    def few(texts: Sequence[str]) -> list[str]:
        return draws.choices(texts, k=12)

    def compare(first: str, second: str) -> Sequence[float]:
        return [random.Random(f"{seed} {place} {first} {second}").random() for place in "AB"]

    async def done() -> Refined:
        lines = Lines(
            draft=few(TEXTS),
            revise=few(TEXTS),
            critique=[draws.choice([(), ("Too short.",)]) for _ in range(12)],
            questions=["Is it?"],
            ratings={text: [draws.random() / 2 for _ in range(2)] for text in TEXTS},
            vote=[draws.random() for _ in range(26)],
            compare=compare,
        )
        speaking = evaluators if select == "score" else verifiers
        asked = program(*speaking, search=search, draft=draft, calls=calls, sampling=Sampling(seed=seed))
        return await refined(asked, engine(lines))

    found = asyncio.run(done())

    first, selected = (found.assessments.get(candidate.id) for candidate in (found.first, found.selected))
    if first is None:
        assert found.selected is found.first or (selected is not None and selected.passed)
    else:
        assert selected is not None
        assert order_of(selected) >= order_of(first)


async def test_a_seed_does_not_make_the_search_alike_for_every_request() -> None:
    """Programs of different requests with the same seed must not draw the same: they would all go wide, or all deep."""

    async def forms(text: str) -> Sequence[str]:
        asked = program(SALT, search=PRESETS["adaptive"], sampling=Sampling(seed=1))
        asked = replace(asked, request=Conversation(Turn("user", text)))
        done = await refined(asked, ScriptedEngine())
        return tuple(candidate.form for ended in done.rounds for candidate in ended.candidates)

    assert len({await forms(f"Request {number}.") for number in range(20)}) > 3
