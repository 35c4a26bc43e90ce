"""Where files are kept: what the rest of the service asks of a store."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Protocol

from service.files.file import StoredFile

CHUNK_BYTES = 262_144
"""How much of a file is written and read at once."""


class FileStore(Protocol):
    """Keeps files in chunks. Files that are complete survive a power cut.

    Writing the same twice does no harm: what is there stays. Methods raise StoreUnavailable if the database cannot be
    reached.
    """

    async def begin(self, file: StoredFile) -> None:
        """Keep a file that has no content yet. Until it is finished nobody sees it."""

    async def append(self, file_id: str, number: int, chunk: bytes) -> None:
        """Keep a chunk of a file that was begun. ``number``: from 0, without gaps."""

    async def finish(self, file: StoredFile) -> None:
        """Make a file complete, and note its name, its size and when it expires."""

    async def get(self, file_id: str) -> StoredFile | None:
        """A file that is complete; None if there is no such file."""

    async def list(
        self, caller: str, limit: int, *, after: str | None, newest_first: bool, purpose: str | None
    ) -> Sequence[StoredFile]:
        """The caller's files, of one purpose or of all. ``after``: the id of the file before the first."""

    def read(self, file_id: str) -> AsyncIterator[bytes]:
        """The chunks of a file."""

    async def delete(self, file_id: str) -> bool:
        """Drop a file with its content; whether it was there."""

    async def held(self, caller: str | None = None) -> int:
        """Bytes of the caller's files that are complete, or of all."""

    async def purge(self, now: float, begun_before: float) -> int:
        """Drop the files that have expired by ``now``, and those that were begun before a time and never finished; how
        many there were."""


class FileWriter:
    """Writes one file, in chunks of one size. ``file``: what is known of it, which may change until it is finished.

    >>> writer = await FileWriter.begin(store, file)  # doctest: +SKIP
    >>> await writer.write(b"...")  # doctest: +SKIP
    >>> await writer.finish()  # doctest: +SKIP
    """

    def __init__(self, store: FileStore, file: StoredFile) -> None:
        self._store = store
        self.file = file
        self._held = bytearray()
        self._chunks = 0

    @classmethod
    async def begin(cls, store: FileStore, file: StoredFile) -> "FileWriter":
        await store.begin(file)
        return cls(store, file)

    async def write(self, piece: bytes) -> None:
        self._held += piece
        self.file = replace(self.file, size=self.file.size + len(piece))
        while len(self._held) >= CHUNK_BYTES:
            await self._append(bytes(self._held[:CHUNK_BYTES]))
            del self._held[:CHUNK_BYTES]

    async def finish(self) -> StoredFile:
        """The file, complete."""
        if self._held:
            await self._append(bytes(self._held))
            self._held.clear()
        await self._store.finish(self.file)
        return self.file

    async def _append(self, chunk: bytes) -> None:
        await self._store.append(self.file.id, self._chunks, chunk)
        self._chunks += 1
