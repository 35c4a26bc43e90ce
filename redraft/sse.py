"""Decodes server-sent events (WHATWG HTML, section 9.2.6)."""

import re
from collections.abc import Iterator

# Not ``splitlines``, which also splits at characters that may occur in a text. A carriage return at the end of a chunk
# waits for the line feed that may follow.
LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")


class EventDecoder:
    """Decodes the bytes of one stream. An event that is cut off is never returned."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[str] = []
        self._id: str | None = None
        self.last_id: str | None = None
        """The id of the last event that was complete, from which a stream can be resumed."""

    def feed(self, chunk: bytes) -> Iterator[tuple[str, str]]:
        """Return the name and the data of each event that ``chunk`` completes."""
        *lines, self._rest = LINE_END.split(self._rest + chunk)
        for line in lines:
            if line:
                self._take(line.decode(errors="replace"))
                continue
            if self._data:
                self.last_id = self._id
                yield self._name or "message", "\n".join(self._data)
            self._name, self._data = "", []

    def _take(self, line: str) -> None:
        """Read one field. A comment has no name."""
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        elif field == "id":
            self._id = value
