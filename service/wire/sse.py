"""Events as bytes: server-sent events (WHATWG HTML, section 9.2), and JSON lines, which are sent the same way."""

from collections.abc import Mapping
from typing import Any

from service.wire.model import encode

SseEvent = tuple[str, Mapping[str, Any]]
"""An event's name and data."""


def event_frame(name: str, data: Mapping[str, Any], number: int | None = None) -> bytes:
    """An event under its name. ``number``: its id, by which a client can resume the stream."""
    resumable = "" if number is None else f"id: {number}\n"
    return f"{resumable}event: {name}\ndata: {encode(data)}\n\n".encode()


def data_frame(data: Mapping[str, Any]) -> bytes:
    """An event without a name, as OpenAI sends it."""
    return f"data: {encode(data)}\n\n".encode()


DONE_FRAME = b"data: [DONE]\n\n"
"""What OpenAI's streams end with."""


def json_line(data: Mapping[str, Any]) -> bytes:
    return f"{encode(data)}\n".encode()
