"""Ids that sort by time, so that pages of what they name need no other order."""

import re
import secrets
import time

_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")


def make_id(prefix: str, join: str = "-") -> str:
    """A new id: 48 bits of milliseconds, then 80 random ones, as in UUID version 7. ``join``: what follows the prefix.

    >>> make_id("ref")  # doctest: +SKIP
    'ref-019ac8d1f3a05b0e7c6d1f2a3b4c5d6e'
    """
    return f"{prefix}{join}{int(time.time() * 1000):012x}{secrets.token_hex(10)}"


def is_id(text: str) -> bool:
    r"""Whether a text that somebody sends may be an id. What may not is never looked for: Postgres refuses some texts.

    >>> is_id("job-019ac8d1f3a05b0e7c6d1f2a3b4c5d6e"), is_id("\0")
    (True, False)
    """
    return _ID.fullmatch(text) is not None


def place_of(its_id: str) -> str:
    """The part of an id that sorts by time, whatever the id names.

    >>> place_of("ref-019ac8d1f3a05b0e7c6d1f2a3b4c5d6e")
    '019ac8d1f3a05b0e7c6d1f2a3b4c5d6e'
    """
    return its_id.rpartition("-")[2]
