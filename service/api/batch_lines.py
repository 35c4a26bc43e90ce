"""A batch's body cut into lines without parsing it.

A batch may be sixteen times as large as a request, and a parser holds the interpreter's lock for a whole call. So the
body is cut first, and each line is then decoded by itself.
"""

import re
from collections.abc import Iterator

from service.api.structure import COMMA, OPEN_LIST, OPEN_OBJECT, WINDOW, Count, marks
from service.errors import InvalidRequest, wrong_field

MOST_LINES = 1_000
MOST_BATCH_VALUES = 524_288

MOST_LISTS = 16
"""Lists of an object that are cut. It should have one."""

_NOT_BLANK = re.compile(rb"[^ \t\r\n]")


def make_too_many_lines() -> InvalidRequest:
    return wrong_field("requests", f"a batch may have at most {MOST_LINES} lines")


def cut_lists(body: bytes) -> tuple[bytes, list[bytes]]:
    """Cut the members out of the lists that the object ``body`` has: the rest, and the last list's members.

    Nothing is parsed, so a member may be anything, or nothing. Raises InvalidRequest past MOST_LINES members and
    BodyTooLarge past MOST_BATCH_VALUES values.
    """
    count = Count(MOST_BATCH_VALUES)
    rest, found = list[bytes](), list[bytes]()
    kept = begun = depth = 0
    in_list = False
    for mark, at in marks(body):
        if mark in (OPEN_LIST, OPEN_OBJECT):
            count.add()
            depth += 1
            if depth == 2 and mark == OPEN_LIST and len(rest) < MOST_LISTS:
                rest.append(body[kept : at + 1])
                found, in_list, begun = [], True, at + 1
                kept = begun
        elif mark == COMMA:
            count.add()
            if in_list and depth == 2:
                found.append(body[begun:at])
                begun = at + 1
                if len(found) >= MOST_LINES:
                    raise make_too_many_lines()
        else:
            if in_list and depth == 2:
                if found or _first_not_blank(body, begun, at) < at:
                    found.append(body[begun:at])
                in_list, kept = False, at
            depth -= 1
    return b"".join([*rest, body[kept:]]), found


def lines(body: bytes) -> Iterator[bytes]:
    """The lines that are not blank, from their first character on. BodyTooLarge past MOST_BATCH_VALUES values."""
    count = Count(MOST_BATCH_VALUES)
    at = 0
    while (begun := _first_not_blank(body, at, len(body))) < len(body):
        at = body.find(b"\n", begun)
        at = len(body) if at < 0 else at
        found = body[begun:at]
        for mark, _ in marks(found):
            if mark in (OPEN_LIST, OPEN_OBJECT, COMMA):
                count.add()
        yield found


def _first_not_blank(body: bytes, at: int, end: int) -> int:
    """Its place, or ``end``."""
    while at < end:
        window = min(at + WINDOW, end)
        if found := _NOT_BLANK.search(body, at, window):
            return found.start()
        at = window
    return end
