import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.wire.diff import MOST_CHARACTERS, Change, diff

TEXTS = st.text(alphabet="ab \n\t\u00a0é", max_size=40) | st.text(max_size=40)


def joined(changes: list[Change], *ops: str) -> str:
    return "".join(change.text for change in changes if change.op in ops)


@given(TEXTS, TEXTS)
def test_the_changes_restore_both_texts(old: str, new: str) -> None:
    changes = list(diff(old, new))

    assert joined(changes, "equal", "delete") == old
    assert joined(changes, "equal", "insert") == new


@given(TEXTS, TEXTS)
def test_no_change_is_empty(old: str, new: str) -> None:
    assert all(change.text for change in diff(old, new))


@given(TEXTS)
def test_equal_texts_are_one_equal_piece(text: str) -> None:
    assert list(diff(text, text)) == ([Change("equal", text)] if text else [])


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("", "", []),
        ("", "new", [("insert", "new")]),
        ("old", "", [("delete", "old")]),
        ("a b c", "a x c", [("equal", "a "), ("delete", "b"), ("insert", "x"), ("equal", " c")]),
        ("a b", "a b c", [("equal", "a b"), ("insert", " c")]),
        ("a  b", "a b", [("equal", "a"), ("delete", "  "), ("insert", " "), ("equal", "b")]),
    ],
)
def test_changes_are_words_and_white_space(old: str, new: str, changes: list[tuple[str, str]]) -> None:
    assert [(change.op, change.text) for change in diff(old, new)] == changes


@pytest.mark.parametrize("word", ["w ", "word " * 10])
def test_very_long_texts_are_told_as_one_replacement(word: str) -> None:
    """Word by word the comparison would take a gigabyte."""
    many = word * (MOST_CHARACTERS // len(word))
    old, new = f"same {many}end", f"same {many[: len(many) // 4]}else end"
    changes = diff(old, new)

    assert joined(changes, "equal", "delete") == old
    assert joined(changes, "equal", "insert") == new
    assert [change.op for change in changes] == ["equal", "delete", "insert", "equal"]


def test_many_short_words_are_not_compared_one_by_one() -> None:
    old, new = "a " * 50_000, "b " * 50_000
    assert diff(old, new) == [Change("delete", old[:-1]), Change("insert", new[:-1]), Change("equal", " ")]
