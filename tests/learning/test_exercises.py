"""Which prompts are tried in reinforcement learning."""

import pytest

from service.learning.exercises import find_exercises
from service.learning.split import Part
from tests.learning.made import collected, prompt, text

GOOD, BAD = "There is salt.", "There is none."


@pytest.mark.parametrize(("passing", "failing", "found"), [(0, 8, 0), (1, 7, 1), (6, 2, 1), (7, 1, 0), (8, 0, 0)])
def test_prompts_that_are_passed_sometimes_are_exercises(passing: int, failing: int, found: int) -> None:
    texts = [*(text(GOOD) for _ in range(passing)), *(text(BAD) for _ in range(failing))]
    assert len(list(find_exercises([collected(*texts)], {"p": "train"}))) == found


def test_an_exercise_knows_how_often_it_is_passed_and_how_long_its_texts_are() -> None:
    [exercise] = find_exercises([collected(text(GOOD), text(BAD), text(BAD), text(BAD + BAD))], {"p": "train"})
    assert (exercise.prompt, exercise.passed, exercise.usual) == (prompt(), 0.25, len(BAD))


@pytest.mark.parametrize("part", ["exam", "neither"])
def test_no_prompt_of_the_exam_is_one(part: Part) -> None:
    assert list(find_exercises([collected(text(GOOD), text(BAD))], {"p": part})) == []


def test_texts_that_were_cut_or_helped_do_not_count_as_passes() -> None:
    helped = [text(GOOD, source="repair", parent=0), text(GOOD, source="constrained")]
    cut = text(GOOD, finish_reason="length")
    assert list(find_exercises([collected(cut, text(BAD), *helped)], {"p": "train"})) == []


def test_a_prompt_whose_rules_need_more_than_its_text_is_none() -> None:
    judged = prompt("p", "Write about the sea.", {"type": "rubric", "criteria": ["clear"]})
    assert list(find_exercises([collected(text(GOOD), text(BAD), of=judged)], {"p": "train"})) == []
