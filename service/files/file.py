"""A file that a caller has uploaded, or that was made for one."""

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
