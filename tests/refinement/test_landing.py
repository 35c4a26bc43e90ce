"""Texts that come near the most tokens that they may have, and end at a sentence."""

from typing import Any

import pytest

from service.engines.base import Completion, FinishReason, Sampling, Usage
from service.engines.conversation import Conversation, Turn
from service.engines.scripted import Script, ScriptedEngine
from service.evaluators.base import Evaluator
from service.evaluators.text.keywords import Keywords
from service.evaluators.text.length import Length
from service.evaluators.text.regex import Regex
from service.refinement.candidate import Candidate
from service.refinement.events import Delta, Event, Generated
from service.refinement.landing import Landing, Rules, find_ends
from service.refinement.program import Generate, Search
from service.refinement.roles import Models, Roles
from service.refinement.single import generate
from tests.support.scripts import FOAM, JUDGE, SALT, Broken, Lines, engine, of_type, program, refined

# Nineteen words; sentences end after 8, 11 and 16 of them.
TEXT = "Salt water is heavy and it is cold. Foam is white. Waves carry it far away. And then the"
TWENTY = Sampling(max_tokens=20, landing=True)
FIFTEEN = Sampling(max_tokens=15, landing=True)


async def landed(text: str, *evaluators: Evaluator, sampling: Sampling = TWENTY, **fields: Any) -> Candidate:
    """The only draft of a program."""
    done = await refined(
        program(*evaluators, search=Search(rounds=0), sampling=sampling, **fields), engine(Lines(draft=[text]))
    )
    return done.selected


def cut(text: str, reason: FinishReason = "length") -> Completion:
    return Completion(text, reason, Usage(1, 5, 0, 20), token_ids=(1, 2, 3))


async def test_a_text_ends_at_the_next_sentence_once_it_has_used_four_fifths_of_its_tokens() -> None:
    candidate = await landed(f"{TEXT} moon comes up.", JUDGE)

    assert candidate.text == "Salt water is heavy and it is cold. Foam is white. Waves carry it far away."
    assert candidate.completion.finish_reason == "landed"
    # What was sampled by then counts, up to the end of the piece.
    assert candidate.completion.usage.completion_tokens == 20


async def test_a_text_that_ends_by_itself_is_left_as_it_is() -> None:
    text = "Salt water is heavy and it is cold. Foam is white. Waves carry it far away"

    candidate = await landed(text, JUDGE)

    assert (candidate.text, candidate.completion.finish_reason) == (text, "stop")


async def test_a_text_without_landing_is_cut() -> None:
    candidate = await landed(f"{TEXT} moon comes up.", JUDGE, sampling=Sampling(max_tokens=19))

    assert (candidate.text, candidate.completion.finish_reason) == (f"{TEXT} moon"[: len(TEXT)], "length")


async def test_a_text_that_is_cut_within_a_sentence_loses_the_rest_of_it() -> None:
    candidate = await landed(TEXT, JUDGE, sampling=FIFTEEN)

    assert candidate.text == "Salt water is heavy and it is cold. Foam is white."
    assert candidate.completion.finish_reason == "landed"


@pytest.mark.parametrize(
    ("rule", "tokens", "end"),
    [
        pytest.param(Regex(pattern=r"[.]$"), 20, "Waves carry it far away.", id="an end"),
        pytest.param(Regex(pattern=r"Foam is \w+"), 20, "Waves carry it far away.", id="an earlier match"),
        pytest.param(Regex(pattern=r"moon"), 24, "And then the moon comes up.", id="a later match"),
        pytest.param(Regex(pattern=r"\d", must_match=False), 20, "Waves carry it far away.", id="no match"),
    ],
)
async def test_a_text_under_a_pattern_lands_once_the_pattern_matches(rule: Regex, tokens: int, end: str) -> None:
    candidate = await landed(
        f"{TEXT} moon comes up. More words follow here", rule, sampling=Sampling(max_tokens=tokens, landing=True)
    )

    assert candidate.text.endswith(end)
    assert candidate.completion.finish_reason == "landed"


async def test_a_text_does_not_land_before_its_rules_hold() -> None:
    moon = Keywords(include=("moon",))

    candidate = await landed(
        f"{TEXT} moon comes. More words follow here", moon, sampling=Sampling(max_tokens=23, landing=True)
    )

    assert candidate.text.endswith("the moon comes.")


async def test_a_text_is_not_trimmed_if_a_rule_would_like_it_less() -> None:
    waves = Keywords(include=("waves",))

    candidate = await landed(TEXT, waves, sampling=FIFTEEN)

    assert candidate.text.endswith("Waves carry it far")
    assert candidate.completion.finish_reason == "length"


async def test_a_text_is_trimmed_if_it_breaks_a_rule_either_way() -> None:
    candidate = await landed(TEXT, Keywords(include=("moon",)), sampling=FIFTEEN)

    assert candidate.text.endswith("Foam is white.")


async def test_rules_that_only_another_service_can_check_leave_a_text_as_it_is() -> None:
    candidate = await landed(TEXT, SALT, Broken(), sampling=FIFTEEN)

    assert (candidate.text.endswith("Waves carry it far"), candidate.completion.finish_reason) == (True, "length")


async def test_a_text_that_the_budget_shortens_lands_too() -> None:
    candidate = await landed(TEXT, SALT, sampling=Sampling(max_tokens=100, landing=True), tokens=5 + 15)

    assert candidate.text.endswith("Foam is white.")
    assert candidate.completion.finish_reason == "landed"


def test_a_text_of_which_too_little_would_be_left_is_not_trimmed() -> None:
    text = "Salt. " + "and more " * 20

    assert Landing(Rules(())).trim(cut(text)) == cut(text)


def test_a_text_that_is_cut_at_the_very_end_of_a_sentence_has_landed() -> None:
    assert Landing(Rules(())).trim(cut("Salt water is heavy.")).finish_reason == "landed"


def test_a_trimmed_text_has_no_token_ids_and_costs_what_it_cost() -> None:
    trimmed = Landing(Rules(())).trim(cut("Salt water is heavy. And"))

    assert trimmed == Completion("Salt water is heavy.", "landed", Usage(1, 5, 0, 20))


@pytest.mark.parametrize("reason", ["stop", "deadline", "content_filter", "engine_failed"])
def test_only_what_a_limit_of_tokens_cut_is_trimmed(reason: FinishReason) -> None:
    completion = cut("Salt water is heavy. And", reason)

    assert Landing(Rules(())).trim(completion) is completion


@pytest.mark.parametrize(
    "text",
    [
        '{"text": "Salt. Water is heavy. And',
        "[Salt. Water is heavy. And",
        "```python\nprint('Salt. Water.')\nAnd",
        "<p>Salt. Water is heavy. And",
        "`Salt. Water is heavy. And",
    ],
)
def test_what_is_no_prose_never_lands(text: str) -> None:
    landing = Landing(Rules(()))

    assert landing.trim(cut(text)) == cut(text)
    assert landing.feed(text, 0.9) is None
    assert landing.feed(" then. And", 0.95) is None


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("Salt. Dr. Wu swims. He", [5, 19]),
        ("Salt. Pi is 3.14. He", [5, 17]),
        ("Salt.", []),
        ("Salt. ", [5]),
        ("Is it? Yes! Well", [6, 11]),
        ("“Salt. Water.” He", [14]),
        ('He said "Salt. Water." Then', [22]),
        ("Salt (see below. There) is. He", [27]),
        ("# Salt. Water.\nIt is", []),
        ("Three kinds:\n- salt\n- foam\n- wa", [19, 26]),
        ("Salt.\n```\nfoam. And\n```\nWater. He", [5, 30]),
        ("海は青い。波は高い。そ", []),
        ("Salt.\n\nFoam", [5]),
    ],
)
def test_sentences_end_where_the_text_goes_on(text: str, ends: list[int]) -> None:
    assert find_ends(text, 0) == ends


def test_only_the_end_of_a_long_text_is_looked_at() -> None:
    text = "Salt is heavy. " * 1_000 + "And"

    assert find_ends(text, len(text) - 10) == [len(text) - 4]
    assert find_ends(text, 0) == [15 * number - 1 for number in range(1, 1_001)]


async def generated(stream: bool, reply: str, sampling: Sampling) -> list[Event]:
    scripted = ScriptedEngine(Script(reply=lambda call: reply))
    asked = Generate(
        id="gen-1",
        task="general",
        models=Models.single("scripted"),
        requests=[Conversation(Turn("user", "Why?"))],
        budget=program().budget,
        sampling=sampling,
        stream=stream,
    )
    return [event async for event in generate(asked, Roles.single(scripted))]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_generated_text_lands_and_its_deltas_join_to_it(stream: bool) -> None:
    found = await generated(stream, f"{TEXT} moon comes up.", TWENTY)

    [done] = of_type(found, Generated)
    [[completion]] = done.completions
    assert completion.text.endswith("Waves carry it far away.")
    assert completion.finish_reason == "landed"
    if stream:
        assert "".join(delta.text for delta in of_type(found, Delta)) == completion.text


async def test_a_stream_takes_nothing_back() -> None:
    found = await generated(True, TEXT, FIFTEEN)

    [done] = of_type(found, Generated)
    [[completion]] = done.completions
    assert (completion.text.endswith("Waves carry it far"), completion.finish_reason) == (True, "length")


async def test_a_landed_text_is_whole_and_may_reach_the_target() -> None:
    done = await refined(
        program(Length(unit="words", max=18), FOAM, sampling=TWENTY), engine(Lines(draft=[f"{TEXT} moon comes up."]))
    )

    assert done.stop_reason == "target"
    assert done.selected.completion.finish_reason == "landed"
