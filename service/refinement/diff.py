"""What a revision changed, word by word."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

Op = Literal["equal", "insert", "delete"]


@dataclass(frozen=True, slots=True)
class Change:
    op: Op
    text: str


def diff(old: str, new: str) -> Sequence[Change]:
    """The changes that turn ``old`` into ``new``, in reading order.

    The texts of ``equal`` and ``delete`` join to ``old``, those of ``equal`` and ``insert`` to ``new``.
    """
    before, after = _words(old), _words(new)
    changes: list[Change] = []
    for tag, i, j, k, m in SequenceMatcher(None, before, after).get_opcodes():
        if tag == "equal":
            changes.append(Change("equal", "".join(before[i:j])))
            continue
        if i < j:
            changes.append(Change("delete", "".join(before[i:j])))
        if k < m:
            changes.append(Change("insert", "".join(after[k:m])))
    return changes


def _words(text: str) -> list[str]:
    """The text cut before each word and each run of white space."""
    return re.findall(r"\s+|\S+", text)
