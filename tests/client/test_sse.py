"""The decoder of server-sent events, by the examples of the standard and at every cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redraft.sse import EventDecoder

TEXT = "a: ö\u2028b\x85c"
STREAM = (
    ": keep-alive\n\n"
    "event: one\ndata: {1}\n\n"
    "data: first\ndata: second\ndata\nid: 7\nretry: 3\n\n"
    f"event:two\r\ndata:{TEXT}\r\n\r\n"
    "event: three\rdata:  padded\r\r"
    "event: without data\n\n"
    "data: nameless\n\n"
    "event: cut\ndata: off\n"
).encode()
EVENTS = [
    ("one", "{1}"),
    ("message", "first\nsecond\n"),
    ("two", TEXT),
    ("three", " padded"),
    ("message", "nameless"),
]


def decoded(chunks: list[bytes]) -> list[tuple[str, str]]:
    decoder = EventDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def test_events_at_once() -> None:
    assert decoded([STREAM]) == EVENTS


@given(st.sets(st.integers(0, len(STREAM))))
def test_events_in_chunks(cuts: set[int]) -> None:
    ends = [*sorted(cuts), len(STREAM)]
    assert decoded([STREAM[start:end] for start, end in zip([0, *ends], ends, strict=False)]) == EVENTS


def test_an_event_is_given_with_the_chunk_that_completes_it() -> None:
    decoder = EventDecoder()
    assert list(decoder.feed(b"data: 1\n")) == []
    assert list(decoder.feed(b"\ndata: 2")) == [("message", "1")]
    assert list(decoder.feed(b"\r\n\r\n")) == [("message", "2")]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_bytes_that_are_no_text_are_replaced(end: bytes) -> None:
    assert decoded([b"data: \xff" + end + end]) == [("message", "\ufffd")]
