"""Nothing in training is nearly the same as a prompt of the exam, whatever comes in whatever order."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from service.learning.prompts import Message, Prompt
from service.learning.split import EXAM_SHARE, NEAR, Split, normalize, resemblance, sign
from tests.learning.made import prompt

LETTERS = str.maketrans("01", "ab")
WORDS = ("sea", "salt", "wave", "boat", "gull", "rock", "sand", "wind", "tide", "port", "fish", "rope", "sail", "moon")


def sentences() -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(WORDS), min_size=1, max_size=14).map(" ".join)


def prompts() -> st.SearchStrategy[list[Prompt]]:
    texts = st.lists(st.tuples(sentences(), st.sampled_from(["", "", "north", "south"])), max_size=25)
    return texts.map(lambda found: [prompt(f"{n}", text, family=family) for n, (text, family) in enumerate(found)])


@settings(max_examples=60)
@given(prompts(), prompts())
def test_no_prompt_in_training_is_near_to_one_of_the_exam(first: list[Prompt], second: list[Prompt]) -> None:
    early, split = Split().assign(first)
    late, _ = split.assign(second)
    assigned = [(each, early[each.id]) for each in first] + [(each, late[each.id]) for each in second]
    exam = [each for each, part in assigned if part == "exam"]
    train = [each for each, part in assigned if part == "train"]
    for one in train:
        for other in exam:
            assert resemblance(sign(one.text), sign(other.text)) < NEAR
            assert not one.family or one.family != other.family


@settings(max_examples=60)
@given(prompts(), st.randoms())
def test_the_order_does_not_matter_and_a_part_is_for_ever(given_prompts: list[Prompt], draws: random.Random) -> None:
    parts, split = Split().assign(given_prompts)
    shuffled = list(given_prompts)
    draws.shuffle(shuffled)
    assert Split().assign(shuffled)[0] == parts
    assert Split.model_validate_json(split.model_dump_json()) == split
    again, grown = split.assign(given_prompts)
    assert grown == split
    assert {key: part for key, part in again.items() if part != "neither"}.items() <= parts.items()


def outside(its_id: str, exam: Prompt, how: str) -> Prompt:
    """A prompt that somebody else wrote, in which one of the exam may be hidden."""
    hidden = {
        "alone": [("user", exam.text)],
        "in capitals": [("user", f"{exam.text.upper()}!")],
        "in an earlier turn": [("user", exam.text), ("assistant", "Well."), ("user", "And now shorter.")],
        "in a paragraph": [("user", f"Please answer what follows.\n\n{exam.text}\n\nAnswer briefly.")],
        "as instructions": [("system", exam.text), ("user", "Go on.")],
        "not at all": [("system", "Be kind."), ("user", f"Something else about {its_id}, at length.")],
    }
    messages = tuple(Message(role=role, content=content) for role, content in hidden[how])
    return prompt(its_id).model_copy(update={"messages": messages})


HIDDEN = ("alone", "in capitals", "in an earlier turn", "in a paragraph", "as instructions", "not at all")


@settings(max_examples=60)
@given(prompts(), st.lists(st.tuples(st.sampled_from(HIDDEN), st.integers(0, 99)), max_size=12))
def test_nothing_from_elsewhere_hides_a_prompt_of_the_exam(made: list[Prompt], drawn: list[tuple[str, int]]) -> None:
    parts, split = Split().assign(made)
    exam = [each for each in made if parts[each.id] == "exam" and each.text]
    others = [outside(f"o{n}", exam[which % len(exam)], how) for n, (how, which) in enumerate(drawn) if exam]
    found, grown = split.assign(others, examinable=False)

    for other, (how, _) in zip(others, drawn, strict=False):
        assert (found[other.id] == "train") == (how == "not at all")
        if found[other.id] == "train":
            for passage in other.passages:
                assert all(resemblance(sign(passage), sign(each.text)) < NEAR for each in exam)
    later, _ = grown.assign([prompt(f"l{n}", each.text) for n, each in enumerate(exam)])
    assert set(later.values()) <= {"exam"}


def test_a_prompt_of_a_trace_is_never_for_the_exam_and_what_resembles_it_later_is_not_either() -> None:
    asked = [prompt(f"{n}", f"{bin(n)[2:].translate(LETTERS)} is what this is about") for n in range(40)]
    parts, split = Split().assign(asked, examinable=False)
    assert set(parts.values()) == {"train"}
    assert set(split.assign(asked)[0].values()) == {"train"}


def test_another_number_or_another_quoted_word_makes_a_prompt_nearly_the_same() -> None:
    one = 'Write about the sea in at most 40 words and use the word "salt".'
    other = 'Write about the sea in at most 50 words and use the word "boat".'
    assert normalize(one) == normalize(other)

    parts, _ = Split().assign([prompt("a", one), prompt("b", other)])
    assert parts["a"] == parts["b"]


def test_the_exam_has_its_share_and_another_salt_another_one() -> None:
    many = [prompt(f"{n}", f"{bin(n)[2:].translate(LETTERS)} is what this is about") for n in range(400)]
    first, _ = Split().assign(many)
    other, _ = Split(salt="another").assign(many)
    assert abs(list(first.values()).count("exam") / 400 - EXAM_SHARE) < 0.08
    assert first != other
