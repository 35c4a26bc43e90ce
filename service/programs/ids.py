"""Ids that sort by time, so that pages of what they name need no other order."""

import secrets
import time


def make_id(prefix: str, join: str = "-") -> str:
    """A new id: 48 bits of milliseconds, then 80 random ones, as in UUID version 7. ``join``: what follows the prefix.

    >>> make_id("ref")  # doctest: +SKIP
    'ref-019ac8d1f3a05b0e7c6d1f2a3b4c5d6e'
    """
    return f"{prefix}{join}{int(time.time() * 1000):012x}{secrets.token_hex(10)}"


def place_of(its_id: str) -> str:
    """The part of an id that sorts by time, whatever the id names.

    >>> place_of("ref-019ac8d1f3a05b0e7c6d1f2a3b4c5d6e")
    '019ac8d1f3a05b0e7c6d1f2a3b4c5d6e'
    """
    return its_id.rpartition("-")[2]
