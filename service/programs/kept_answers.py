"""Answers that are kept for a while, so that a request sent again under its idempotency key gets the same one."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from service.errors import KeyReused

OVERHEAD_BYTES = 1_024
"""What an answer takes in memory in addition to its body."""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A key, which means something to its caller only."""

    caller: str
    value: str


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer as it was sent. ``headers``: names and values, as bytes in Latin-1."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class AnswerStore(Protocol):
    """Keeps finished answers by their keys. A fingerprint stands for everything that makes two requests the same.

    ``begin`` comes first, then ``keep`` or ``release``. Of several services with one store, one at a time has begun. It
    stays that one as long as it calls ``maintain`` every few seconds.

    Methods raise StoreUnavailable if the store cannot be reached.
    """

    @property
    def held_bytes(self) -> int:
        """What all answers take."""

    async def has(self, key: IdempotencyKey) -> bool:
        """Whether there is an answer under the key, or a service works on one."""

    async def begin(self, key: IdempotencyKey, fingerprint: str) -> KeptAnswer | None:
        """The answer under the key; None if there is none, and then the work is the caller's.

        Raises KeyReused if the key was used with another fingerprint, and StillAtWork if another service has begun.
        """

    async def keep(self, key: IdempotencyKey, fingerprint: str, answer: KeptAnswer) -> None:
        """Keep the answer, as far as there is room.

        Raises StillAtWork if another service has begun since: its answer counts, and this one is not to be sent.
        """

    async def release(self, key: IdempotencyKey) -> None:
        """Let others begin: the work has come to nothing that could be kept."""

    async def maintain(self) -> Collection[IdempotencyKey]:
        """Drop what has expired, and go on holding what was begun here. Gives the keys that another service has
        taken."""


@dataclass(frozen=True, slots=True)
class _Entry:
    fingerprint: str
    answer: KeptAnswer
    expires: float

    @property
    def size(self) -> int:
        return len(self.answer.body) + OVERHEAD_BYTES


class MemoryAnswers:
    """An AnswerStore in this process. Its answers end with the process.

    max_bytes: of all answers. Where they need more, the caller who has most loses the oldest.
    seconds: how long an answer is kept.
    clock: gives the time in seconds.
    """

    def __init__(self, max_bytes: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._clock = clock
        self._entries: dict[str, dict[str, _Entry]] = {}  # by caller, the oldest first
        self._bytes: dict[str, int] = {}  # of each caller

    @property
    def held_bytes(self) -> int:
        """What all answers take."""
        return sum(self._bytes.values())

    async def has(self, key: IdempotencyKey) -> bool:
        return self._find(key) is not None

    async def begin(self, key: IdempotencyKey, fingerprint: str) -> KeptAnswer | None:
        found = self._find(key)
        if found is None:
            return None
        if found.fingerprint != fingerprint:
            raise KeyReused("the key was used for a request with another body or at another path")
        return found.answer

    async def keep(self, key: IdempotencyKey, fingerprint: str, answer: KeptAnswer) -> None:
        self._drop_expired()
        entry = _Entry(fingerprint, answer, self._clock() + self._seconds)
        if entry.size > self._max_bytes or self._seconds <= 0:
            return
        self._drop(key.caller, key.value)
        self._entries.setdefault(key.caller, {})[key.value] = entry
        self._bytes[key.caller] = self._bytes.get(key.caller, 0) + entry.size
        while self.held_bytes > self._max_bytes:
            greediest = max(self._bytes, key=self._bytes.__getitem__)
            self._drop(greediest, next(iter(self._entries[greediest])))

    async def release(self, key: IdempotencyKey) -> None:
        """Nothing is held by a key without an answer."""

    async def maintain(self) -> Collection[IdempotencyKey]:
        """No other service can take anything."""
        self._drop_expired()
        return ()

    def _find(self, key: IdempotencyKey) -> _Entry | None:
        entry = self._entries.get(key.caller, {}).get(key.value)
        return None if entry is None or entry.expires <= self._clock() else entry

    def _drop_expired(self) -> None:
        now = self._clock()
        for caller, entries in list(self._entries.items()):
            for value, entry in list(entries.items()):
                if entry.expires > now:
                    break
                self._drop(caller, value)

    def _drop(self, caller: str, value: str) -> None:
        entries = self._entries.get(caller, {})
        entry = entries.pop(value, None)
        if entry is None:
            return
        self._bytes[caller] -= entry.size
        if not entries:
            del self._entries[caller], self._bytes[caller]
