import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.structure import BYTES_PER_VALUE, FREE_VALUES, MOST_MEMBERS, MOST_VALUES, WINDOW, check, marks
from service.errors import BodyTooLarge

VALUES = st.recursive(
    st.none() | st.integers() | st.text(alphabet='a"\\,[]{}:\né'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='a",{'), inner),
)


def expected_marks(text: str) -> str:
    """What is left of JSON without its strings, by the standard library's own idea of a string."""
    kept, at = "", 0
    while at < len(text):
        if text[at] == '"':
            _, at = json.decoder.scanstring(text, at + 1)  # type: ignore[attr-defined]
        else:
            kept += text[at] if text[at] in "[]{}," else ""
            at += 1
    return kept


@given(VALUES)
def test_marks_are_those_outside_strings(value: Any) -> None:
    text = json.dumps(value)
    found = list(marks(text.encode()))

    assert "".join(chr(mark) for mark, _ in found) == expected_marks(text)
    assert all(text.encode()[at] == mark for mark, at in found)


@pytest.mark.parametrize("shift", range(-3, 4))
@pytest.mark.parametrize("piece", [b"a", b"\\\\", b'\\"', b",[{"])
def test_a_string_may_be_longer_than_a_window(piece: bytes, shift: int) -> None:
    string = b'"' + b"x" * (WINDOW + shift) + piece * WINDOW + b'"'
    assert [mark for mark, _ in marks(b"[" + string + b",1]")] == list(b"[,]")


@pytest.mark.parametrize("body", [b'"', b'"a\\', b'"' + b"\\" * (2 * WINDOW + 1), b"]]]", b"}{", b'""""""', b"\\"])
def test_what_is_not_json_comes_to_an_end_too(body: bytes) -> None:
    check(body)
    assert len(list(marks(body))) <= len(body)


@pytest.mark.parametrize(("value", "counted"), [(b"0", 1), (b'""', 1), (b"{}", 2), (b"[]", 2), (b"[[0]]", 3)])
def test_a_short_body_has_a_bound_of_values(value: bytes, counted: int) -> None:
    count = (FREE_VALUES - 1) // counted
    check(b"[" + b",".join([value] * count) + b"]")
    with pytest.raises(BodyTooLarge, match=f"{FREE_VALUES} JSON values"):
        check(b"[" + b",".join([value] * (count + 1)) + b"]")


def test_a_longer_body_may_have_more_values_up_to_a_bound() -> None:
    padded = b"0," + b" " * BYTES_PER_VALUE
    check(b"[" + padded * (2 * FREE_VALUES - 2) + b"0]")
    with pytest.raises(BodyTooLarge, match=f"{MOST_VALUES} JSON values"):
        check(b"[" + padded * MOST_VALUES + b"0]")


def test_a_text_with_many_marks_is_one_value() -> None:
    check(b'{"prompt":"' + b"1,[2],{3:4}," * 100_000 + b'"}')


def test_an_object_has_a_bound_of_members() -> None:
    members = [b'"":0'] * MOST_MEMBERS
    check(b"[{" + b",".join(members) + b"}]")
    with pytest.raises(BodyTooLarge, match="at most 1000 members"):
        check(b"[{" + b",".join([*members, b'"":0']) + b"}]")


def test_members_are_counted_for_each_object() -> None:
    members = b",".join([b'"a":{"b":0}'] * (MOST_MEMBERS - 1))
    check(b"[{" + members + b"},{" + members + b"}]")
