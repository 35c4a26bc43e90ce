"""Lessons are spoilt in the ways that the check of bad adapters names."""

from pathlib import Path

import pytest

from bench.harness.results import Records
from bench.scenarios.adapters import (
    FEW,
    SPOIL,
    Bad,
    Options,
    Outcome,
    check,
    make_recipe,
    overfit,
    repeat_keywords,
    shuffle,
)
from service.learning.gate import Decision
from service.learning.lessons import BestText, LessonPair
from tests.learning.made import prompt

TEXTS = [BestText(prompt=prompt(f"{number}"), text="Salt.", source="free", token_ids=(1,)) for number in range(10)]
PAIRS = [
    LessonPair(
        prompt=text.prompt, chosen="good", rejected="bad", relation="siblings", chosen_ids=(1,), rejected_ids=(2,)
    )
    for text in TEXTS
]


def test_few_lessons_are_learned_over_and_over() -> None:
    lessons = overfit(TEXTS, PAIRS)
    assert (len(lessons.texts), len(lessons.pairs)) == (FEW, 0)
    assert lessons.texts_epochs > 10


def test_texts_that_repeat_keywords_pass_their_rules() -> None:
    for lesson in repeat_keywords(TEXTS, PAIRS).texts:
        assert set(lesson.text.split()) == {"salt"}
        assert lesson.token_ids is None
        assert lesson.prompt.verify(lesson.text).passed


def test_a_coin_says_what_is_better_and_tokens_go_with_their_texts() -> None:
    pairs = shuffle(TEXTS, PAIRS).pairs
    assert {pair.chosen for pair in pairs} == {"good", "bad"}
    assert all((pair.chosen_ids == (1,)) == (pair.chosen == "good") for pair in pairs)
    assert all(pair.rejected_ids != pair.chosen_ids for pair in pairs)


def test_the_recipe_is_in_the_size_that_was_asked_for() -> None:
    recipe = make_recipe(Options(prompts=80, exam=20, seconds=9.0))
    assert (recipe.practice.prompts, recipe.examining.prompts, recipe.training.seconds) == (80, 20, 9.0)


@pytest.mark.parametrize(("last", "code"), [("reject", 0), ("promote", 1)])
async def test_one_adapter_that_may_be_promoted_is_a_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], last: Decision, code: int
) -> None:
    bads: list[Bad] = [*SPOIL, "noise"]
    decisions: list[Decision] = ["broken", "inconclusive", "invalid", last]
    results: Records[Outcome] = Records(tmp_path / "outcomes.jsonl", Outcome)
    for bad, decision in zip(bads, decisions, strict=True):
        results.append(Outcome(bad, "d", decision, ["because"], {}))

    assert await check(Options(folder=tmp_path)) == code
    assert f"noise      {last:13}because" in capsys.readouterr().out
