"""What a revision changed, word by word."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from rapidfuzz.distance import Indel, Postfix, Prefix

MOST_CHARACTERS = 400_000
"""Of both texts. To cut more of them into words would hold the event loop up."""
MOST_CELLS = 67_108_864
"""Words of one text times those of the other. The comparison needs a bit of memory for each: 8 MiB."""

_WORD = re.compile(r"\s+|\S+")

Op = Literal["equal", "insert", "delete"]
_Step = tuple[str, int, int, int, int]
"""What is done to which words of the old text, by which words of the new one."""


@dataclass(frozen=True, slots=True)
class Change:
    op: Op
    text: str


def diff(old: str, new: str) -> list[Change]:
    """The changes that turn ``old`` into ``new``, in reading order.

    The texts of ``equal`` and ``delete`` join to ``old``, those of ``equal`` and ``insert`` to ``new``. No two of a
    kind are adjacent, and what replaces a text comes after it. Very long texts are not compared word by word:
    everything between the first and the last difference is one replacement.
    """
    if len(old) + len(new) > MOST_CHARACTERS:
        return _coarse(old, new)
    before, after = _words(old), _words(new)
    if len(before) * len(after) > MOST_CELLS:
        return _coarse(old, new)
    changes: list[Change] = []
    deleted = inserted = ""
    for op, start, end, new_start, new_end in cast("list[_Step]", Indel.opcodes(before, after).as_list()):
        if op == "equal":
            changes += _replaced(deleted, inserted)
            changes.append(Change("equal", "".join(before[start:end])))
            deleted = inserted = ""
        else:
            deleted += "".join(before[start:end])
            inserted += "".join(after[new_start:new_end])
    changes += _replaced(deleted, inserted)
    return changes


def _coarse(old: str, new: str) -> list[Change]:
    """The texts as one replacement between what they begin and end with alike."""
    prefix = int(Prefix.similarity(old, new))
    suffix = int(Postfix.similarity(old[prefix:], new[prefix:]))
    start, middle, end = old[:prefix], old[prefix : len(old) - suffix], old[len(old) - suffix :]
    inserted = new[prefix : len(new) - suffix]
    return [
        *([Change("equal", start)] if start else []),
        *_replaced(middle, inserted),
        *([Change("equal", end)] if end else []),
    ]


def _replaced(deleted: str, inserted: str) -> Sequence[Change]:
    changes = [Change("delete", deleted)] if deleted else []
    if inserted:
        changes.append(Change("insert", inserted))
    return changes


def _words(text: str) -> list[str]:
    """The text cut before each word and each run of white space."""
    return _WORD.findall(text)
