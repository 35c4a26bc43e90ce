"""Checking an input file, line by line: what is wrong with it, and the requests that it holds."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from pydantic_core import from_json, to_json

from service.batches.batch import Line, LineFault

MOST_LINES = 50_000
MOST_FAULTS = 100
"""Of one file; what follows is not looked at."""
LONGEST_ID = 128
LONGEST_NAME = 256
MEMBERS = ("custom_id", "method", "url", "body")
_UNSEEN = object()
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


async def cut_lines(chunks: AsyncIterator[bytes], max_bytes: int) -> AsyncGenerator[bytes, None]:
    """The lines of a file, without their ends. Of one that is too long only the beginning, as the last."""
    rest = bytearray()
    async for chunk in chunks:
        rest += chunk
        *whole, last = rest.split(b"\n")
        rest = bytearray(last)
        for line in whole:
            yield bytes(line)
        if len(rest) > max_bytes:
            break
    yield bytes(rest)


class Checker:
    """Checks the lines of one file, one after another.

    endpoint: what the URL of each has to be.
    max_bytes: how long a line may be.
    """

    def __init__(self, endpoint: str, max_bytes: int) -> None:
        self.faults: list[LineFault] = []
        self.lines = 0
        self._endpoint = endpoint
        self._max_bytes = max_bytes
        self._number = 0
        self._numbers: dict[str, int] = {}
        self._model: object = _UNSEEN

    @property
    def model(self) -> str | None:
        """The model that all lines so far name; None if they name several, or what can be no name."""
        name = self._model
        return name if isinstance(name, str) and len(name) <= LONGEST_NAME and name.isprintable() else None

    @property
    def is_over(self) -> bool:
        """Whether further lines need not be checked."""
        return len(self.faults) >= MOST_FAULTS

    def check(self, raw: bytes) -> Line | None:
        """The next line of the file; None if it is blank or wrong."""
        self._number += 1
        if self._number == 1:
            raw = raw.removeprefix(BYTE_ORDER_MARK)
        if not raw.strip():
            return None
        self.lines += 1
        if self.lines > MOST_LINES:
            self._add("too_many_lines", f"a batch may have at most {MOST_LINES:,} lines")
            return None
        if len(raw) > self._max_bytes:
            self._add("line_too_long", f"a line may have at most {self._max_bytes} bytes")
            return None
        try:
            stated = from_json(raw)
        except ValueError:
            self._add("invalid_json_line", "This line is not parseable as valid JSON.")
            return None
        return self._read(stated)

    def finish(self) -> None:
        """Note what is wrong with the file as a whole."""
        if not self.lines:
            self.faults.append(LineFault("empty_file", "the file has no line"))

    def _read(self, stated: Any) -> Line | None:
        known = len(self.faults)
        if not isinstance(stated, dict):
            self._add("invalid_json_line", "a line should be a JSON object")
            return None
        for name in stated.keys() - set(MEMBERS):
            self._add("unknown_parameter", f"there is no such member; there are {', '.join(MEMBERS)}", str(name)[:200])
        for name in MEMBERS:
            if name not in stated:
                self._add("missing_required_parameter", f"Missing required parameter: '{name}'.", name)
        custom_id, body = stated.get("custom_id"), stated.get("body")
        if "custom_id" in stated:
            self._check_id(custom_id)
        if stated.get("method", "POST") != "POST":
            self._add("invalid_method", "must be POST", "method")
        if stated.get("url", self._endpoint) != self._endpoint:
            self._add("invalid_url", f"must be the batch's endpoint, {self._endpoint}", "url")
        if "body" in stated and not isinstance(body, dict):
            self._add("invalid_body", "should be an object", "body")
        if len(self.faults) > known:
            return None
        model = stated["body"].get("model")
        self._model = model if self._model in (_UNSEEN, model) else None
        return Line(self._number, str(custom_id), to_json(body).decode())

    def _check_id(self, custom_id: object) -> None:
        if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= LONGEST_ID or not custom_id.isprintable():
            self._add("invalid_custom_id", f"should be a text of 1 to {LONGEST_ID} printable characters", "custom_id")
        elif custom_id in self._numbers:
            self._add("duplicate_custom_id", f"line {self._numbers[custom_id]} has the same", "custom_id")
        else:
            self._numbers[custom_id] = self._number

    def _add(self, code: str, message: str, param: str | None = None) -> None:
        self.faults.append(LineFault(code, message, self._number, param))
