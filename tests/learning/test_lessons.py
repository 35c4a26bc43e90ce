"""Which texts and pairs are lessons."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.learning.collected import Collected, Preference, Text
from service.learning.lessons import CLIENT_SHARE, CONSTRAINED_SHARE, Lessons, make_lessons
from service.learning.prompts import Prompt
from service.learning.split import Part
from tests.learning.made import collected, prompt, text

GOOD, BAD = "Sea water has salt in it.", "Sea water is never sweet."


def learn(*each: Collected) -> Lessons:
    return make_lessons(each, {one.prompt.id: "train" for one in each})


def asked(its_id: str) -> Prompt:
    """A prompt that is asked for the first time."""
    return prompt(its_id, f"Write about the sea, the {its_id}.")


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
    said = [Preference(chosen=0, rejected=1)]
    found = learn(*(collected(text(BAD), text(GOOD), of=asked(f"{n}"), preferences=said) for n in range(40)))

    assert {pair.chosen for pair in found.pairs} == {GOOD}


def test_one_client_gives_at_most_a_twentieth_of_the_pairs() -> None:
    said = [Preference(chosen=1, rejected=0)]
    theirs = [
        collected(text(GOOD), text("The salt is white."), of=asked(f"m{n}"), preferences=said, client="mallory")
        for n in range(500)
    ]
    ours = [collected(text(BAD), text(GOOD), of=asked(f"o{n}")) for n in range(57)]
    pairs = learn(*theirs, *ours).pairs

    count = sum(pair.client == "mallory" for pair in pairs)
    assert 0 < count <= CLIENT_SHARE * len(pairs)


def test_a_client_alone_teaches_nothing() -> None:
    said = [Preference(chosen=1, rejected=0)]
    theirs = [
        collected(text(GOOD), text("The salt is white."), of=asked(f"m{n}"), preferences=said, client="mallory")
        for n in range(500)
    ]
    assert learn(*theirs).pairs == []


def test_a_client_is_capped_in_texts_too_and_what_is_left_out_is_counted() -> None:
    theirs = [collected(text(GOOD), of=asked(f"m{n}"), trace=f"t{n}", client="mallory") for n in range(30)]
    ours = [collected(text(GOOD), of=asked(f"o{n}")) for n in range(57)]
    found = learn(*theirs, *ours)

    assert [len(found.texts), sum(best.client == "mallory" for best in found.texts)] == [60, 3]
    assert found.capped == 27
    assert found.traces == {"t0", "t1", "t2"}


def test_a_caller_that_the_operator_trusts_is_not_capped() -> None:
    found = learn(*(collected(text(GOOD), of=asked(f"{n}"), trace=f"t{n}") for n in range(30)))
    assert (len(found.texts), found.capped) == (30, 0)


def test_a_prompt_that_is_asked_often_gives_no_more_than_one_that_is_asked_once() -> None:
    words = ("The salt is white.", "Salt is old.", "We like salt.")
    often = [collected(text(BAD), text(words[n % 3]), of=prompt(f"{n}"), trace=f"t{n}") for n in range(9)]
    found = learn(*often)

    assert [best.text for best in found.texts] == list(words[:2])
    assert [pair.chosen for pair in found.pairs] == [words[0]]  # the others are much shorter than the bad text


def test_a_text_of_a_trace_without_rules_needs_a_thumb_up() -> None:
    plain = prompt("p").model_copy(update={"evaluators": ()})
    silent = learn(collected(text(GOOD), of=plain, trace="t"))
    assert silent.texts == []
    assert silent.left_out == {"no rules and no feedback": 1}

    praised = learn(collected(text(BAD), text(GOOD, rating="up"), of=plain, trace="t"))
    assert [best.text for best in praised.texts] == [GOOD]
    assert praised.pairs == []  # nothing says that the other one is worse


def test_a_thumb_down_forbids_a_text_and_makes_a_pair_with_a_sibling_that_passes() -> None:
    other = "Salt is what the sea has."
    found = learn(collected(text(GOOD, rating="down"), text(other), trace="t"))

    assert [best.text for best in found.texts] == [other]
    [pair] = found.pairs
    assert (pair.chosen, pair.rejected, pair.relation) == (other, GOOD, "preference")


def test_a_thumb_up_is_better_than_a_thumb_down() -> None:
    plain = prompt("p").model_copy(update={"evaluators": ()})
    found = learn(collected(text(GOOD, rating="down"), text(BAD, rating="up"), of=plain, trace="t"))

    [pair] = found.pairs
    assert (pair.chosen, pair.rejected) == (BAD, GOOD)


def test_a_thumb_up_does_not_let_a_text_through_that_breaks_its_rules() -> None:
    assert learn(collected(text(BAD, rating="up"), trace="t")).texts == []


def test_an_edit_is_a_best_text_and_a_pair_unless_it_breaks_the_rules() -> None:
    said = [Preference(chosen=1, rejected=0)]
    edited = "Sea water has a lot of salt."
    good = learn(collected(text(GOOD), text(edited, "edit", parent=0), preferences=said, trace="t"))
    assert [best.text for best in good.texts] == [edited, GOOD]
    assert [(pair.chosen, pair.rejected, pair.relation) for pair in good.pairs] == [(edited, GOOD, "preference")]

    bad = learn(collected(text(GOOD), text("Sea water is sweet.", "edit", parent=0), preferences=said, trace="t"))
    assert [best.text for best in bad.texts] == [GOOD]
    assert bad.pairs == []


def test_a_revision_and_what_it_revises_are_a_refinement() -> None:
    revised = text("Sea water has some salt.", "revision", parent=0)
    found = learn(collected(text(BAD), revised, trace="t"))

    assert [best.source for best in found.texts] == ["revision"]
    assert [pair.relation for pair in found.pairs] == ["refinement"]


def made_texts() -> st.SearchStrategy[Text]:
    words = st.sampled_from([GOOD, BAD, "Salt is salt.", "Waves.", "", "a salt " * 80])
    return st.builds(
        Text,
        text=words,
        source=st.sampled_from(["free", "constrained", "repair", "revision", "edit"]),
        finish_reason=st.sampled_from(["stop", "length"]),
        rating=st.sampled_from([None, None, "up", "down"]),
    )


@given(st.lists(st.lists(made_texts(), max_size=5), max_size=12), st.data())
def test_lessons_keep_their_rules_whatever_was_collected(batches: list[list[Text]], data: st.DataObject) -> None:
    clients = st.sampled_from(["", "ann", "ben"])
    each = [
        collected(*texts, of=asked(f"{number}"), trace=f"t{number}", client=data.draw(clients))
        for number, texts in enumerate(batches)
    ]
    parts: dict[str, Any] = {one.prompt.id: data.draw(st.sampled_from(["train", "exam", "neither"])) for one in each}
    found = make_lessons(each, parts)

    assert all(parts[best.prompt.id] == "train" and best.prompt.verify(best.text).passed for best in found.texts)
    assert all(parts[pair.prompt.id] == "train" for pair in found.pairs)
    assert all(pair.prompt.verify(pair.chosen).passed for pair in found.pairs)
    disliked = {text.text for texts in batches for text in texts if text.rating == "down"}
    assert all(not pair.prompt.verify(pair.rejected).passed or pair.rejected in disliked for pair in found.pairs)
    for lessons in (found.texts, found.pairs):
        shares = Counter(lesson.client for lesson in lessons)
        assert all(count <= CLIENT_SHARE * len(lessons) for client, count in shares.items() if client)
    assert max(Counter(best.prompt.id for best in found.texts).values(), default=0) <= 2
    constrained = sum(best.source == "constrained" for best in found.texts)
    assert constrained <= CONSTRAINED_SHARE * len(found.texts)
    assert make_lessons(each, parts) == found
