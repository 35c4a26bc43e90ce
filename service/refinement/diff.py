"""What a revision changed, word by word."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rapidfuzz.distance import Indel

Op = Literal["equal", "insert", "delete"]


@dataclass(frozen=True, slots=True)
class Change:
    op: Op
    text: str


def diff(old: str, new: str) -> list[Change]:
    """The changes that turn ``old`` into ``new``, in reading order.

    The texts of ``equal`` and ``delete`` join to ``old``, those of ``equal`` and ``insert`` to ``new``. No two of a
    kind stand together, and what replaces a text stands after it.
    """
    before, after = _words(old), _words(new)
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


def _replaced(deleted: str, inserted: str) -> Sequence[Change]:
    ops: Sequence[tuple[Op, str]] = (("delete", deleted), ("insert", inserted))
    return [Change(op, text) for op, text in ops if text]


def _words(text: str) -> list[str]:
    """The text cut before each word and each run of white space."""
    return re.findall(r"\s+|\S+", text)
