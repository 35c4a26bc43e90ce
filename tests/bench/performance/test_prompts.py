"""Prompts of exact lengths."""

from bench.performance.prompts import Prompts
from tests.bench.performance.stand_ins import Characters


def test_they_are_as_long_as_asked_and_differ_from_their_first_words_on() -> None:
    prompts = Prompts(Characters())
    made = [*prompts.fresh(300, 40), *prompts.fresh(300, 40)]
    assert {len(prompt) for prompt in made} == {300}
    assert len({prompt[:12] for prompt in made}) == 80


def test_the_waves_of_a_repetition_have_the_same_texts_under_new_numbers() -> None:
    prompts = Prompts(Characters())
    first, second, third = prompts.fresh(300, 5), prompts.fresh(300, 5), prompts.fresh(300, 5, repetition=1)
    assert [prompt[12:] for prompt in first] == [prompt[12:] for prompt in second]
    assert len({prompt[12:] for prompt in [*first, *third]}) == 10
