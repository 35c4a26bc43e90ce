import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.batch_lines import MOST_BATCH_VALUES, MOST_LINES, cut_lists, lines
from service.api.structure import WINDOW
from service.errors import BodyTooLarge, InvalidRequest

JSON = st.recursive(
    st.none() | st.integers() | st.text(alphabet='a"\\,[]{}: \n'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(JSON, max_size=5), st.sampled_from([None, 1, "\t"]))
def test_members_of_a_list_are_cut_as_they_stand(members: list[Any], indent: int | str | None) -> None:
    body = json.dumps({"requests": members}, indent=indent).encode()
    rest, found = cut_lists(body)

    assert json.loads(rest) == {"requests": []}
    assert [json.loads(raw) for raw in found] == members


@pytest.mark.parametrize(
    ("body", "rest", "found"),
    [
        (b'{"requests": [ 1 , 2 ], "more": 3}', b'{"requests": [], "more": 3}', [b" 1 ", b" 2 "]),
        (b'{"requests": [1], "requests": [2]}', b'{"requests": [], "requests": []}', [b"2"]),
        (b'{"requests": {"a": [1]}}', b'{"requests": {"a": [1]}}', []),
        (b'{"requests": [,]}', b'{"requests": []}', [b"", b""]),
        (b'{"requests": [1,]}', b'{"requests": []}', [b"1", b""]),
        (b'{"requests": [1', b'{"requests": [1', []),
        (b"]][[", b"]][[", []),
        (b"", b"", []),
    ],
)
def test_what_is_cut_and_what_is_left(body: bytes, rest: bytes, found: list[bytes]) -> None:
    assert cut_lists(body) == (rest, found)


def test_lines_are_those_that_are_not_blank() -> None:
    blank = b" " * (2 * WINDOW) + b"\r\n\n"
    assert list(lines(blank + b'{"a": 1}\n' + blank + b" [2] \r\n3")) == [b'{"a": 1}', b"[2] \r", b"3"]
    assert list(lines(blank)) == []


def test_too_many_lines_are_refused_before_they_are_all_cut() -> None:
    cut_lists(b'{"requests":[' + b",".join([b"0"] * MOST_LINES) + b"]}")
    with pytest.raises(InvalidRequest, match="at most 1000 lines"):
        cut_lists(b'{"requests":[' + b",".join([b"0"] * (MOST_LINES + 1)) + b"]}")


def test_the_values_of_all_lines_together_have_a_bound() -> None:
    many = b"[" + b"0," * (MOST_BATCH_VALUES // 2) + b"0]"
    with pytest.raises(BodyTooLarge):
        cut_lists(b'{"requests":[' + many + b"," + many + b"]}")
    with pytest.raises(BodyTooLarge):
        list(lines(many + b"\n" + many))
