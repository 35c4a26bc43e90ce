"""Where a text departs from what the model would have written."""

import math
from collections.abc import Sequence

import pytest

from service.engines.base import WeighedToken
from service.engines.conversation import Conversation, Turn
from service.refinement.departures import Departure, find_departures, is_long


def as_expected(text: str) -> WeighedToken:
    return WeighedToken(text, -0.1, text, -0.1)


def departing(text: str, rival: str, *, logprob: float = -8.0, sure: float = 1.0) -> WeighedToken:
    return WeighedToken(text, logprob, rival, math.log(sure))


def capital(*tail: WeighedToken) -> Sequence[WeighedToken]:
    return [*map(as_expected, ("The", " capital", " of", " France", " is")), *tail]


def test_a_word_that_the_model_would_not_have_written_is_found_with_what_it_expected() -> None:
    [found] = find_departures(capital(departing(" Lon", " Paris"), as_expected("don"), as_expected(".")))

    assert (found.passage, found.expected, found.size) == ("The capital of France is London", "Paris", 8.0)


def test_a_text_as_the_model_would_have_written_it_has_no_departures() -> None:
    assert find_departures(capital(as_expected(" Paris"))) == []
    assert find_departures([]) == []


def test_where_several_words_would_do_an_unlikely_one_departs_less() -> None:
    [found] = find_departures(capital(departing(" a", " the", sure=0.5)))

    assert found.size == pytest.approx(math.sqrt(0.5) * (8.0 + math.log(0.5)))
    assert find_departures(capital(departing(" a", " the", sure=0.1))) == []


def test_the_largest_come_first_and_small_ones_are_left_out() -> None:
    tokens = [departing(f" {number}", " x", logprob=-float(number)) for number in (3, 9, 1, 7, 4)]

    assert [found.size for found in find_departures(tokens)] == [9.0, 7.0, 4.0, 3.0]


def test_an_impossible_word_has_a_finite_size() -> None:
    [found] = find_departures([departing("x", "y", logprob=-math.inf)])

    assert found.size == 20.0


def test_a_passage_stays_on_its_line() -> None:
    tokens = [as_expected("def add(a, b):"), as_expected("\n   "), as_expected(" return a"), departing(" -", " +")]

    assert [found.passage for found in find_departures(tokens)] == ["return a -"]


def test_an_operator_between_letters_is_one() -> None:
    [found] = find_departures([as_expected("return n"), departing("-", "+"), as_expected("1")])

    assert (found.passage, found.tells) == ("return n-", True)


def test_a_word_after_a_mark_that_departs_is_not_the_one_that_does() -> None:
    for mark in (".\n\n", ".", '"', "\n"):
        [found] = find_departures([as_expected("It is Paris"), departing(mark, " France"), as_expected("The")])
        assert not found.is_of_words


def test_a_blank_before_a_number_belongs_to_it() -> None:
    [found] = find_departures([as_expected("It has"), departing(" ", " no"), as_expected("3"), as_expected("6")])

    assert (found.passage, found.is_of_words) == ("It has 36", True)


def test_all_turns_count_where_a_request_is_too_long_to_be_weighed() -> None:
    question = Turn("user", "Which one?")
    short = Conversation(Turn("user", "Two cities.")).with_user("Which one?")
    told = Conversation(question, Conversation(Turn("assistant", "x" * 2_000), Conversation(Turn("user", "Go on."))))

    assert not is_long(short, "Paris.")
    assert is_long(told, "Paris.")
    assert is_long(short, "x" * 2_000)


@pytest.mark.parametrize(
    ("departure", "tells"),
    [
        (Departure("It is London", "Paris", 9.0), True),
        (Departure("它是伦敦", "巴黎", 9.0), True),
        (Departure("It is London", "Paris", 3.9), False),
        (Departure("It is London.", "Paris", 9.0), False),
        (Departure("It is London", ".", 9.0), False),
        (Departure("", "Paris", 9.0), False),
        (Departure("return a -", "+", 9.0), True),
        (Departure("n % 2 =", "==", 9.0), True),
        (Departure("return a -", "b", 9.0), False),
        (Departure("return a -", "", 9.0), False),
        (Departure("-", "*", 9.0), False),
    ],
)
def test_a_large_departure_from_word_to_word_or_operator_to_operator_tells(departure: Departure, tells: bool) -> None:
    assert departure.tells is tells


def test_a_small_departure_may_be_of_words_too() -> None:
    assert Departure("It is London", "Paris", 2.5).is_of_words
    assert not Departure("It is London.", "", 9.0).is_of_words
