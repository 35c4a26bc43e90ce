"""Server-sent events out of bytes (WHATWG HTML, section 9.2.6)."""

import re
from collections.abc import Iterator

# Not ``splitlines``, which also cuts at characters that may stand within a text. A carriage return at the end of a
# chunk waits for the line feed that may follow it.
LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")


class EventDecoder:
    """Takes one stream's bytes as they come. An event that is cut off is never given."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[tuple[str, str]]:
        """Name and data of each event that ``chunk`` completes."""
        *lines, self._rest = LINE_END.split(self._rest + chunk)
        for line in lines:
            if line:
                self._take(line.decode(errors="replace"))
                continue
            if self._data:
                yield self._name or "message", "\n".join(self._data)
            self._name, self._data = "", []

    def _take(self, line: str) -> None:
        """One field. A comment is one without a name, and ids and retry times are for those who reconnect."""
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
