"""How long the texts of a program become."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

NEVER = -100.0
"""The bias on a token's logit that keeps it from being sampled."""


@dataclass(frozen=True)
class Lengths:
    """The most tokens of a text and of a critique; ``fixed``: always as many, since no reply may end before that."""

    text: int
    critique: int
    fixed: bool


FIXED = Lengths(text=120, critique=60, fixed=True)
NATURAL = Lengths(text=256, critique=160, fixed=False)
LENGTHS: Mapping[str, Lengths] = MappingProxyType({"fixed": FIXED, "natural": NATURAL})
