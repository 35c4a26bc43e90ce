"""Thoughts and answers, told apart by the marks in a text."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engines.base import ReplyEnd, Thought
from service.engines.conversation import Conversation, Turn
from service.engines.thoughts import (
    MARKS,
    MOST_BLANKS,
    MOST_BLOCKS,
    THINK,
    Habit,
    Opening,
    Split,
    Splitter,
    find_open_marks,
    find_requested_marks,
)

NOBODY = frozenset[object]()


def split(text: str, splitter: Splitter, finish_reason: ReplyEnd = "stop", size: int = 10**6) -> Split:
    """Split the text, given in pieces of that size."""
    pieces: list[str | Thought] = []
    for begin in range(0, len(text), size):
        pieces += splitter.feed(text[begin : begin + size])
    last, whole = splitter.end(finish_reason)
    pieces += last
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == whole.text
    return whole


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
@pytest.mark.parametrize(
    ("opening", "written", "text", "thoughts"),
    [
        ("plain", "<think>Hm {x}.</think>\n{}", "{}", "Hm {x}."),
        ("plain", " \n<think>Hm.</think>Yes.", "Yes.", "Hm."),
        ("plain", "<think>\n\n</think>\n\nYes.\n", "Yes.\n", ""),
        ("plain", "<think>a</think>\n<think>b</think>\n\nYes.", "Yes.", "a\n\nb"),
        ("plain", "<think>a</think>", "", "a"),
        ("plain", "<think>a</think>\n\n    code()\n  more()", "    code()\n  more()", "a"),
        ("plain", "<think>a <thinking> b < c</think>Yes.", "Yes.", "a <thinking> b < c"),
        ("plain", "Write <think> first, then </think>.", "Write <think> first, then </think>.", ""),
        ("plain", "Hm.</think>Yes.", "Hm.</think>Yes.", ""),
        ("plain", "  Yes. <think>no</think>", "  Yes. <think>no</think>", ""),
        ("plain", "<thinker> is a word", "<thinker> is a word", ""),
        ("plain", "<th", "<th", ""),
        ("plain", "", "", ""),
        ("plain", "[THINK]Hm.[/THINK]Yes.", "Yes.", "Hm."),
        ("plain", "<thought>Hm.</thought>Yes.", "Yes.", "Hm."),
        ("tagged", "<think>Hm.</think>Yes. <think>", "Yes. <think>", "Hm."),
        ("open", "\nHm.\n</think>\n\nYes.", "Yes.", "Hm."),
        ("open", "<think>Hm.</think>Yes.", "Yes.", "Hm."),
        ("unknown", "Hm.</think>\n\nYes.", "Yes.", "Hm."),
        ("unknown", "Yes.", "Yes.", ""),
        ("unknown", "<think>Hm.</think>Yes.", "Yes.", "Hm."),
        ("whole", "<think>Hm.</think>Yes.", "<think>Hm.</think>Yes.", ""),
    ],
)
def test_only_a_beginning_is_thought(opening: Opening, written: str, text: str, thoughts: str, size: int) -> None:
    assert split(written, Splitter(opening), size=size) == Split(text, thoughts, "stop")


@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_only_so_many_blocks_in_a_row_are_thoughts(size: int) -> None:
    block = "<think>x</think>"
    whole = split(block * (MOST_BLOCKS + 3), Splitter(), size=size)
    assert whole.text == block * 3
    assert whole.thoughts.count("x") == MOST_BLOCKS


@pytest.mark.parametrize("size", [1, 7, 10**6])
@pytest.mark.parametrize(
    ("before", "text", "thoughts"),
    [("", "", "b"), ("<think>a</think>", "", "a\n\nb")],
    ids=["before any block", "behind a block"],
)
def test_blanks_before_a_block_are_bounded(before: str, text: str, thoughts: str, size: int) -> None:
    near = f"{before}{' ' * MOST_BLANKS}<think>b</think>"
    assert split(near, Splitter(), size=size) == Split(text, thoughts, "stop")
    far = f"{' ' * (MOST_BLANKS + 1)}<think>b</think>"
    assert split(before + far, Splitter(), size=size).text == far


def test_endless_blanks_are_not_kept_waiting() -> None:
    told = Splitter().feed(" " * (MOST_BLANKS + 1))
    assert told == [" " * (MOST_BLANKS + 1)]
    splitter = Splitter("open")
    assert [*splitter.feed(" " * MOST_BLANKS), *splitter.feed("  "), *splitter.feed("   ")] == [
        Thought(" " * (MOST_BLANKS + 2)),
        Thought("   "),
    ]


@pytest.mark.parametrize(("end", "text"), [("</think>\nYes.", "Yes."), ("", "x <" * 5_000)])
def test_what_is_held_is_whole(end: str, text: str) -> None:
    whole = split("x <" * 5_000 + end, Splitter("unknown"), size=3)
    assert whole == Split(text, "x <" * 5_000 if end else "", "stop")


@pytest.mark.parametrize("marks", MARKS)
def test_every_pair_of_marks_is_known(marks: tuple[str, str]) -> None:
    start, end = marks

    assert split(f"{start}Hm.{end}\nYes.", Splitter(), size=3) == Split("Yes.", "Hm.", "stop")


@pytest.mark.parametrize(
    ("opening", "written", "finish_reason"),
    [("plain", "<think>Hm, I", "length"), ("plain", "<think>Hm.", "stop"), ("open", "Hm, I", "length")],
)
def test_thoughts_that_do_not_end_leave_no_text(opening: Opening, written: str, finish_reason: ReplyEnd) -> None:
    found = split(written, Splitter(opening), finish_reason)

    assert (found.text, found.finish_reason) == ("", "length")
    assert found.thoughts == written.removeprefix("<think>")


@given(st.lists(st.sampled_from(["<think>", "</think>", "<", "think", ">", " ", "\n", "a", "</thin"]), max_size=12))
def test_pieces_of_any_size_come_to_the_same(parts: list[str]) -> None:
    written = "".join(parts)
    openings: tuple[Opening, ...] = ("plain", "tagged", "unknown", "whole")
    for opening in openings:
        found = [split(written, Splitter(opening), size=size) for size in (1, 2, 3, 8, 1000)]
        assert all(one == other for one, other in pairwise(found))


def test_marks_that_a_prompt_speaks_of_are_text_unless_the_model_thinks() -> None:
    conversation = Conversation(Turn("system", "Reply as <think>…</think>.")).with_user("Go.")
    written = "<think>Hm.</think><think>xml</think>"

    assert find_requested_marks(conversation) == {THINK}
    assert split(written, Splitter("plain", asked=find_requested_marks(conversation))).text == written
    assert split(written, Splitter("tagged", asked=find_requested_marks(conversation))).text == "<think>xml</think>"


def test_marks_in_a_reply_of_the_model_are_not_asked_for() -> None:
    earlier = Conversation(Turn("user", "Go.")).with_reply("<think>").with_user("On.")

    assert find_requested_marks(earlier) == NOBODY


def test_a_prompt_shows_whether_it_opens_thoughts() -> None:
    assert find_open_marks("<|im_start|>assistant\n<think>\n") == THINK
    assert find_open_marks("<|im_start|>assistant\n<think>\n\n</think>\n\n") is None
    assert find_open_marks("<|im_start|>assistant\n") is None


def after(habit: Habit, *replies: tuple[str, ReplyEnd]) -> Opening:
    """How replies are taken to begin after those."""
    for written, finish_reason in replies:
        splitter = habit.splitter()
        habit.learn(splitter, split(written, splitter, finish_reason).finish_reason)
    return habit.opening


def test_an_unknown_habit_is_learned_from_replies_and_can_be_unlearned() -> None:
    thinks: tuple[str, ReplyEnd] = ("Hm.</think>Yes.", "stop")

    assert after(Habit("unknown"), thinks) == "open"
    assert after(Habit("unknown"), ("Yes.", "stop"), thinks) == "plain"
    assert after(Habit("unknown"), ("Yes, but", "length")) == "unknown"
    assert after(Habit("unknown"), thinks, ("Yes.", "stop"), ("Yes.", "stop")) == "plain"


def test_what_a_template_shows_is_not_unlearned() -> None:
    assert after(Habit("open", certain=True), ("Yes.", "stop")) == "open"
    assert after(Habit("plain", certain=True), ("Hm.</think>Yes.", "stop")) == "plain"


def test_a_whole_reply_of_a_model_that_only_seemed_to_think_is_text() -> None:
    assert split("Yes.", Habit("open").splitter()) == Split("Yes.", "", "stop")
    assert split("{}", Habit("open", certain=True).splitter(way="grammar")) == Split("{}", "", "stop")
    assert split("Yes.", Habit("open", certain=True).splitter(way="direct")) == Split("Yes.", "", "stop")
