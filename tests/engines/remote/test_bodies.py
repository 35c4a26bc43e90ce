"""Events out of bytes, however they are cut and whatever ends their lines, and the bounds of what is read."""

import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engines.base import UNSTATED_TOKENS
from service.engines.remote.bodies import (
    LEAST_BYTES,
    MOST_BYTES,
    TOKEN_BYTES,
    EventDecoder,
    most_bytes,
)

PLAIN = b'data: {"a": 1}\n\ndata: {"b": 2}\n\ndata: [DONE]\n\n'
TOLD = [b'{"a": 1}', b'{"b": 2}', b"[DONE]"]


def decoded(chunks: Iterable[bytes]) -> list[bytes]:
    decoder = EventDecoder()
    return [data for chunk in chunks for data in decoder.feed(chunk)] + list(decoder.end())


@pytest.mark.parametrize(
    "stream",
    [
        PLAIN,
        PLAIN.replace(b"\n", b"\r\n"),
        PLAIN.replace(b"\n", b"\r"),
        b"\xef\xbb\xbf" + PLAIN,
        PLAIN.replace(b"data: ", b"data:"),
        b": awake\n\nretry: 10\n\nid: 1\nevent: message\n" + PLAIN,
        PLAIN.replace(b"\n\n", b"\n"),  # without blank lines
        PLAIN.removesuffix(b"\n\n"),  # without an end
        PLAIN.replace(b'{"a": 1}', b'{"a": 1}\n\ndata:'),  # an empty event, to keep the connection
    ],
)
def test_an_event_is_read_in_every_form_that_is_legal_or_known(stream: bytes) -> None:
    assert decoded([stream]) == TOLD
    assert decoded(stream[place : place + 1] for place in range(len(stream))) == TOLD


def test_the_data_of_an_event_may_have_several_lines() -> None:
    [data] = decoded([b'data: {\r\ndata: "a": [1,\r\ndata: 2]\r\ndata: }\r\n\r\n'])
    assert json.loads(data) == {"a": [1, 2]}


def test_what_is_cut_off_is_no_event() -> None:
    assert decoded([b'data: {"a": 1}\n\ndata: {"b']) == [b'{"a": 1}']


def test_only_line_ends_of_the_format_end_lines() -> None:
    text = "a\u2028b\u0085c\u000bd\u001ce"
    [data] = decoded([f"data: {json.dumps({'a': text}, ensure_ascii=False)}\n\n".encode()])
    assert json.loads(data) == {"a": text}


documents = st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3), max_size=5)


@given(documents, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.data())
def test_events_are_the_same_however_their_bytes_are_cut(
    told: list[dict[str, str]], end: bytes, data: st.DataObject
) -> None:
    stream = b"".join(b"data: " + json.dumps(each).encode() + end + end for each in told)
    chunks = []
    while stream:
        size = data.draw(st.integers(1, max(1, len(stream))))
        chunks.append(stream[:size])
        stream = stream[size:]

    assert [json.loads(each) for each in decoded(chunks)] == told


@pytest.mark.parametrize(
    ("body", "most"),
    [
        ({"max_tokens": 512}, LEAST_BYTES + 512 * TOKEN_BYTES),
        ({"max_completion_tokens": 512}, LEAST_BYTES + 512 * TOKEN_BYTES),
        ({"max_tokens": 1, "prompt": list(range(100))}, LEAST_BYTES + 101 * TOKEN_BYTES),
        ({"messages": []}, LEAST_BYTES + UNSTATED_TOKENS * TOKEN_BYTES),
        ({"max_tokens": 10**12}, MOST_BYTES),
    ],
)
def test_the_bound_follows_what_was_asked_for(body: dict[str, object], most: int) -> None:
    assert most_bytes(body) == most
