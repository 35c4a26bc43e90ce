import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.refinement.diff import Change, diff

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
