"""What a text earns: rules that hold for every text, and the guards one by one."""

from collections.abc import Mapping

import pytest

from service.learning.exercises import Exercise
from service.learning.rewards import CREDIT, CUT, LOOPING, reward
from tests.learning.made import prompt

NO_COMMAS = {"type": "format", "kind": "no_commas"}
SALT = {"type": "keywords", "include": ["salt"]}
FEW_WORDS = {"type": "length", "unit": "words", "max": 3}
USUAL = "There is some salt in the sea and nobody knows why."


def exercise(*rules: Mapping[str, object], usual: float = len(USUAL)) -> Exercise:
    return Exercise(prompt=prompt("p", "Write about the sea.", *rules), passed=0.5, usual=usual)


def test_a_text_that_follows_every_rule_earns_everything() -> None:
    assert reward(exercise(SALT, NO_COMMAS), USUAL, "stop") == 1.0


def test_the_more_rules_a_text_follows_the_more_it_earns_and_a_pass_is_a_leap() -> None:
    both, one, neither = (
        reward(exercise(SALT, NO_COMMAS), text, "stop")
        for text in (USUAL, USUAL.replace("and", ", and"), USUAL.replace("salt", "sand,").replace("and", ", and"))
    )
    assert both == 1.0
    assert 0.0 <= neither < one <= CREDIT


def test_a_text_that_is_nearer_to_a_number_earns_more() -> None:
    rewards = [reward(exercise(FEW_WORDS), "word " * count, "stop") for count in (3, 4, 6, 12)]
    assert rewards == sorted(rewards, reverse=True)
    assert len(set(rewards)) == 4


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_text_earns_nothing_even_if_it_breaks_no_rule(text: str) -> None:
    assert reward(exercise(NO_COMMAS), text, "stop") == 0.0


def test_a_text_that_was_cut_never_passes() -> None:
    assert reward(exercise(SALT), USUAL, "length") == CUT * CREDIT


def test_a_text_that_loops_earns_next_to_nothing() -> None:
    assert reward(exercise(SALT, usual=400), "There is salt in it. " * 20, "stop") == LOOPING


@pytest.mark.parametrize("text", ["salt", "There is salt. " + " ".join(map(str, range(200)))])
def test_a_text_of_a_very_unusual_length_earns_less(text: str) -> None:
    assert 0.0 < reward(exercise(SALT), text, "stop") < 0.5


def test_the_length_is_free_where_a_rule_is_about_it() -> None:
    assert reward(exercise(SALT, FEW_WORDS), "Just salt.", "stop") == 1.0
