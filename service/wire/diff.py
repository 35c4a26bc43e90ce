"""What a revision changed, word by word."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rapidfuzz.distance import Indel, Postfix, Prefix

MOST_CHARACTERS = 400_000
"""Of both texts. To cut more of them into words would hold the event loop up."""
MOST_CELLS = 67_108_864
"""Words of one text times those of the other. The comparison needs a bit of memory for each: 8 MiB."""

Op = Literal["equal", "insert", "delete"]


@dataclass(frozen=True, slots=True)
class Change:
    op: Op
    text: str


def diff(old: str, new: str) -> list[Change]:
    """The changes that turn ``old`` into ``new``, in reading order.

    The texts of ``equal`` and ``delete`` join to ``old``, those of ``equal`` and ``insert`` to ``new``. No two of a
    kind stand together, and what replaces a text stands after it. Very long texts are not compared word by word: all
    between the first and the last difference is one replacement.
    """
    if len(old) + len(new) > MOST_CHARACTERS:
        return _coarse(old, new)
    before, after = _words(old), _words(new)
    if len(before) * len(after) > MOST_CELLS:
        return _coarse(old, new)
    changes: list[Change] = []
    deleted = inserted = ""
    for step in Indel.opcodes(before, after):
        gone, come = before[step.src_start : step.src_end], after[step.dest_start : step.dest_end]
        if step.tag != "equal":
            deleted += "".join(gone)
            inserted += "".join(come)
            continue
        changes += _replaced(deleted, inserted)
        changes.append(Change("equal", "".join(gone)))
        deleted = inserted = ""
    return [*changes, *_replaced(deleted, inserted)]


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
    ops: Sequence[tuple[Op, str]] = (("delete", deleted), ("insert", inserted))
    return [Change(op, text) for op, text in ops if text]


def _words(text: str) -> list[str]:
    """The text cut before each word and each run of white space."""
    return re.findall(r"\s+|\S+", text)
