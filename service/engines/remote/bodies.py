"""The bytes that a server sends, within bounds: whole bodies, and the events of streams (WHATWG HTML, section 9.2).

A server may be broken or hostile: it may write without end, in one line or in many, or a little that unpacks to a lot.
So what is read is bounded by what was asked for, and nothing is decompressed.
"""

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import httpx

from service.engines.base import UNSTATED_TOKENS
from service.errors import EngineUnavailable

MIB = 1 << 20
LEAST_BYTES = 1 * MIB
"""What any answer may have, whatever was asked for."""
TOKEN_BYTES = 2048
"""For each token that was asked for: an event of its own with all that proxies add, several times over."""
MOST_BYTES = 128 * MIB
"""What no answer may pass."""
LIST_BYTES = 8 * MIB
"""A list of models: a gateway's names hundreds, each with a page of its own."""
FAILURE_BYTES = 65_536
"""What is read of a failure; more is cut off."""
BYTES_A_TOKEN_ID = 16
"""In a list of the ids of a prompt's tokens, of which a prompt has no more than bytes."""

MAX_TOKENS_PARAMS = ("max_tokens", "max_completion_tokens")
LINE_END = re.compile(rb"\r\n|\n|\r")
"""Not ``splitlines``, which also cuts at characters that may be a part of a text."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DONE = b"[DONE]"


class TooMuch(EngineUnavailable):
    """The server sends more than was asked for, or packed where it was asked for plain bytes."""


def most_bytes(body: Mapping[str, Any]) -> int:
    """The most bytes that a server may answer to a completion's request.

    >>> most_bytes({"messages": [], "max_tokens": 512}) // MIB
    2
    """
    limits = [body[name] for name in MAX_TOKENS_PARAMS if isinstance(body.get(name), int)]
    prompt = body.get("prompt")
    weighed = len(prompt) if isinstance(prompt, list) else 0  # the server may weigh, or repeat, each of its tokens
    return min(MOST_BYTES, LEAST_BYTES + TOKEN_BYTES * (max(limits, default=UNSTATED_TOKENS) + weighed))


async def read(response: httpx.Response, most: int) -> bytes:
    """The whole body. TooMuch if it has more than ``most`` bytes."""
    body = bytearray()
    async for chunk in _chunks(response, most):
        body += chunk
    return bytes(body)


async def read_beginning(response: httpx.Response, most: int) -> bytes:
    """The first bytes of a body, whatever it goes on with."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) >= most:
            break
    return bytes(body[:most])


async def read_events(response: httpx.Response, most: int) -> AsyncIterator[bytes]:
    """The data of each event of a stream. TooMuch once it has had more than ``most`` bytes, events or not."""
    decoder = EventDecoder()
    async for chunk in _chunks(response, most):
        for data in decoder.feed(chunk):
            yield data
    for data in decoder.end():
        yield data


async def _chunks(response: httpx.Response, most: int) -> AsyncIterator[bytes]:
    packing = response.headers.get("Content-Encoding", "identity").strip().lower()
    if packing not in ("", "identity"):
        raise TooMuch("the engine's server compresses its answers, which it was asked not to")
    size = 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > most:
            raise TooMuch(f"the engine's server answers with more than {most} bytes, the most for what it was asked")
        yield chunk


class EventDecoder:
    """Takes a stream's bytes as they come and gives the data of its events, in time linear in the bytes.

    Servers that forget the blank line between two events, or after the last, are understood too: an event that is a
    JSON object in one line ends where the next one begins.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []
        self._begun = False
        self._skips_line_feed = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The data of each event that is known to be whole after ``chunk``."""
        if not chunk:
            return
        if self._skips_line_feed and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._skips_line_feed = chunk.endswith(b"\r")
        first, *others = LINE_END.split(chunk)
        self._line += first
        for piece in others:
            line = bytes(self._line)
            self._line = bytearray(piece)
            yield from self._take(line)

    def end(self) -> Iterator[bytes]:
        """What the last event holds, unless it was cut off."""
        line, self._line = bytes(self._line), bytearray()
        yield from self._take(line)
        if _is_whole(self._data):
            yield from self._flush()

    def _take(self, line: bytes) -> Iterator[bytes]:
        if not self._begun:
            self._begun, line = True, line.removeprefix(BYTE_ORDER_MARK)
        if not line:
            yield from self._flush()
            return
        field, _, value = line.partition(b":")
        if field != b"data":
            return
        value = value.strip()
        if _is_whole(self._data) and value.startswith((b"{", b"[")):
            yield from self._flush()
        self._data.append(value)
        if value == DONE:
            yield from self._flush()

    def _flush(self) -> Iterator[bytes]:
        data, self._data = b"\n".join(self._data), []
        if data:
            yield data


def _is_whole(lines: list[bytes]) -> bool:
    """Whether the lines are one object as JSON, as far as its ends tell."""
    return len(lines) == 1 and lines[0].startswith(b"{") and lines[0].endswith(b"}")
