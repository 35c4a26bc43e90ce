"""Which texts and pairs are lessons."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.learning.collected import Collected, Preference, Text
from service.learning.lessons import CLIENT_SHARE, CONSTRAINED_SHARE, Lessons, make_lessons
from service.learning.split import Part
from tests.learning.made import collected, prompt, text

GOOD, BAD = "Sea water has salt in it.", "Sea water is never sweet."


def learn(*each: Collected) -> Lessons:
    return make_lessons(each, {one.prompt.id: "train" for one in each})


def test_a_text_that_passes_is_a_lesson_and_with_one_that_fails_a_pair() -> None:
    found = learn(collected(text(BAD), text(GOOD, token_ids=(1, 2))))

    [best] = found.texts
    assert (best.text, best.source, best.token_ids) == (GOOD, "free", (1, 2))
    [pair] = found.pairs
    assert (pair.chosen, pair.rejected, pair.relation) == (GOOD, BAD, "siblings")


@pytest.mark.parametrize(
    "bad",
    [
        text(BAD),
        text(GOOD, finish_reason="length"),
        text("salt and sand. " * 30),
        text("   "),
    ],
    ids=["breaks a rule", "was cut", "loops", "is empty"],
)
def test_a_bad_text_is_not_a_lesson(bad: Text) -> None:
    assert learn(collected(bad)).texts == []


def test_a_repair_serves_where_nothing_passes_by_itself() -> None:
    repaired = text("Sea water has salt.", "repair", parent=0)

    assert [best.source for best in learn(collected(text(BAD), repaired)).texts] == ["repair"]
    assert [best.source for best in learn(collected(text(BAD), repaired, text(GOOD))).texts] == ["free"]


def test_a_refinement_and_siblings_come_in_turn() -> None:
    found = learn(collected(text(BAD), text(GOOD, "repair", parent=0), text("All salt water is heavy.")))

    assert [pair.relation for pair in found.pairs] == ["refinement", "siblings"]


def test_texts_of_unequal_length_are_a_pair_only_if_length_is_the_fault() -> None:
    long = " ".join(["Sweet water is lighter."] * 4)
    short = {"type": "length", "unit": "words", "max": 8}

    assert learn(collected(text(long), text(GOOD))).pairs == []
    assert len(learn(collected(text(long), text(GOOD), of=prompt("p", "Be brief.", short))).pairs) == 1


def test_nothing_of_the_exam_is_a_lesson() -> None:
    one = collected(text(BAD), text(GOOD))
    parts: tuple[Part, ...] = ("exam", "neither")
    for part in parts:
        found = make_lessons([one], {"p": part})
        assert (found.texts, found.pairs) == ([], [])
        assert found.left_out == {"of the exam or near to it": 1}


def test_a_prompt_whose_rules_need_more_than_the_text_is_left_out() -> None:
    tests = {"type": "code_tests", "language": "python", "tests": "assert True"}
    found = learn(collected(text(GOOD), of=prompt("p", "Code.", tests)))

    assert found.texts == []
    assert found.left_out == {"rules that a text alone does not show": 1}


def test_a_person_cannot_prefer_what_breaks_the_rules_to_what_keeps_them() -> None:
    said = [Preference(chosen=0, rejected=1, client="ann")]
    found = learn(*(collected(text(BAD), text(GOOD), of=prompt(f"{n}"), preferences=said) for n in range(40)))

    assert {pair.chosen for pair in found.pairs} == {GOOD}


def test_one_client_gives_at_most_a_twentieth_of_the_pairs() -> None:
    said = [Preference(chosen=1, rejected=0, client="mallory")]
    theirs = [
        collected(text(GOOD), text("The salt is white."), of=prompt(f"m{n}"), preferences=said) for n in range(500)
    ]
    ours = [collected(text(BAD), text(GOOD), of=prompt(f"o{n}")) for n in range(57)]
    pairs = learn(*theirs, *ours).pairs

    count = sum(pair.client == "mallory" for pair in pairs)
    assert 0 < count <= CLIENT_SHARE * len(pairs)


def test_a_client_alone_teaches_nothing() -> None:
    said = [Preference(chosen=1, rejected=0, client="mallory")]
    theirs = [
        collected(text(GOOD), text("The salt is white."), of=prompt(f"m{n}"), preferences=said) for n in range(500)
    ]
    assert learn(*theirs).pairs == []


def made_texts() -> st.SearchStrategy[Text]:
    words = st.sampled_from([GOOD, BAD, "Salt is salt.", "Waves.", "", "a salt " * 80])
    return st.builds(
        Text,
        text=words,
        source=st.sampled_from(["free", "constrained", "repair"]),
        finish_reason=st.sampled_from(["stop", "length"]),
    )


@given(st.lists(st.lists(made_texts(), max_size=5), max_size=12), st.data())
def test_lessons_keep_their_rules_whatever_was_collected(batches: list[list[Text]], data: st.DataObject) -> None:
    each = [collected(*texts, of=prompt(f"{number}")) for number, texts in enumerate(batches)]
    parts: dict[str, Any] = {one.prompt.id: data.draw(st.sampled_from(["train", "exam", "neither"])) for one in each}
    found = make_lessons(each, parts)

    assert all(parts[best.prompt.id] == "train" and best.prompt.verify(best.text).passed for best in found.texts)
    assert all(parts[pair.prompt.id] == "train" for pair in found.pairs)
    assert all(pair.prompt.verify(pair.chosen).passed for pair in found.pairs)
    assert not any(pair.prompt.verify(pair.rejected).passed for pair in found.pairs)
    assert max(Counter(best.prompt.id for best in found.texts).values(), default=0) <= 2
    constrained = sum(best.source == "constrained" for best in found.texts)
    assert constrained <= CONSTRAINED_SHARE * len(found.texts)
    assert make_lessons(each, parts) == found
