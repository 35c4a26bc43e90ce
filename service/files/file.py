"""A file that a caller has uploaded, or that was made for one."""

import secrets
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What is known of a file. Times are seconds since the epoch.

    caller: the name of the caller's key. Nobody else sees the file.
    purpose: what it is for, in OpenAI's words.
    expires: when it is dropped.
    size: in bytes.
    """

    id: str
    caller: str
    name: str
    purpose: str
    created: float
    expires: float
    size: int = 0

    @property
    def has_expired(self) -> bool:
        return self.expires <= time.time()


def make_file_id() -> str:
    """An id that sorts by time: 48 bits of milliseconds, then 80 random ones."""
    return f"file-{int(time.time() * 1000):012x}{secrets.token_hex(10)}"
