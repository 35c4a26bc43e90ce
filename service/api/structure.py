"""How much structure a body has, found out before it is parsed.

A JSON value takes memory by what it is, not by its bytes: ``{}`` is two bytes of a body and a hundred in the process,
and each wrong member of a list is an error of several hundred. So the values are counted first, in the raw bytes, and
what has too many is refused. The count looks at one window of bytes at a time, since a search holds the interpreter's
lock.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from service.errors import BodyTooLarge, MalformedBody

MOST_VALUES = 65_536
"""JSON values in one request, or in one line of a batch; fewer in a short one."""
FREE_VALUES = 8_192
BYTES_PER_VALUE = 32
MOST_MEMBERS = 1_000
"""Members of one object."""
DEEPEST = 200
"""Values inside each other; the parser's own bound."""
WINDOW = 65_536  # bytes

_MARK_OR_STRING = re.compile(rb'[\[\]{},]|"(?:[^"\\]++|\\.)*+"|"', re.DOTALL)
_REST_OF_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
COMMA, OPEN_LIST, OPEN_OBJECT, _QUOTE = b',[{"'


@dataclass(slots=True)
class Count:
    """Values seen so far. ``add`` raises BodyTooLarge past ``most``."""

    most: int
    values: int = 0

    def add(self) -> None:
        self.values += 1
        if self.values > self.most:
            raise BodyTooLarge(f"a body of this length may have at most {self.most} JSON values")


def check(body: bytes) -> None:
    """Raise BodyTooLarge where a body has too many values, or an object more than MOST_MEMBERS members, and
    MalformedBody where it is nested too deeply.

    FREE_VALUES are never too many, nor is one for each BYTES_PER_VALUE, up to MOST_VALUES; an empty list or object
    counts as two. What is not JSON may pass: the parser refuses it.
    """
    most = min(max(FREE_VALUES, len(body) // BYTES_PER_VALUE), MOST_VALUES)
    if _is_plainly_small(body, most):
        return
    count = Count(most)
    count.add()
    members: list[int | None] = []  # of each open object; None for a list
    for mark, _ in marks(body):
        if mark in (OPEN_LIST, OPEN_OBJECT):
            count.add()
            members.append(1 if mark == OPEN_OBJECT else None)
            if len(members) > DEEPEST:
                raise MalformedBody("the body is nested too deeply")
        elif mark == COMMA:
            count.add()
            if members and members[-1] is not None:
                members[-1] += 1
                if members[-1] > MOST_MEMBERS:
                    raise BodyTooLarge(f"a JSON object may have at most {MOST_MEMBERS} members")
        elif members:
            members.pop()


def _is_plainly_small(body: bytes, most: int) -> bool:
    """Whether even the marks inside strings would be few enough."""
    marks_at_most = sum(body.count(mark) for mark in (b",", b"[", b"{"))
    return marks_at_most < most and body.count(b":") <= MOST_MEMBERS


def marks(body: bytes) -> Iterator[tuple[int, int]]:
    """Each ``[ ] { }`` and comma outside strings, with its place."""
    at, in_string = 0, False
    while at < len(body):
        end = min(at + WINDOW, len(body))
        if in_string:
            at, in_string = _after_string(body, at, end)
            continue
        for found in _MARK_OR_STRING.finditer(body, at, end):
            mark = body[found.start()]
            if mark != _QUOTE:
                yield mark, found.start()
            elif found.end() == found.start() + 1:  # a string that ends beyond the window
                at, in_string = found.end(), True
                break
        else:
            at = end


def _after_string(body: bytes, at: int, end: int) -> tuple[int, bool]:
    """Where a string ends within the window, or where to look on, and whether that is still inside it."""
    rest = _REST_OF_STRING.match(body, at, end)
    assert rest is not None  # noqa: S101 - it matches nothing too
    if rest.end() == len(body) - 1 and body[rest.end()] != _QUOTE:
        return len(body), True  # a backslash is all that is left
    if rest.end() < end and body[rest.end()] == _QUOTE:
        return rest.end() + 1, False
    return rest.end(), True
