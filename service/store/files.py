"""Transactions in a file: short ones in the event loop, and the disk waited for apart."""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from service.errors import StoreUnavailable
from service.store.transactions import Transactions

T = TypeVar("T")

CHECKPOINT_WRITES = 250
"""So many commits may be in the log, in a few megabytes, before it is moved into the database."""


class FileTransactions(Transactions):
    """Transactions in a SQLite file in WAL mode, of which this process is the only user.

    A short one takes a fraction of a millisecond and is done at once, in the event loop, unless the writer's thread is
    writing: on a busy machine each change of threads takes some milliseconds. Commits do not wait for the disk. For a
    write that is to last, the log is then flushed in a thread; nobody waits for it who need not, and those who wait at
    the same time wait for the same flush.
    """

    def __init__(self, engine: sa.Engine, file: Path) -> None:
        super().__init__(engine)
        self._log = file.with_name(f"{file.name}-wal")
        self._in_thread = 0  # writes that were given to the thread and have not ended
        self._committed = 0
        self._on_disk = 0  # of those committed
        self._in_database = 0
        self._flushing = asyncio.Lock()

    async def write(
        self, function: Callable[[sa.Connection], T], *, lasting: bool = False, alone: bool = False, bulk: bool = False
    ) -> T:
        result = await self._commit(function, bulk=bulk)
        self._committed += 1
        if lasting:
            await self._flush()
        return result

    async def _commit(self, function: Callable[[sa.Connection], T], *, bulk: bool) -> T:
        if not bulk and not self._in_thread:
            with suppress(DBAPIError), self._engine.begin() as connection:
                return function(connection)
        self._in_thread += 1
        try:
            return await super().write(function, bulk=bulk)
        finally:
            self._in_thread -= 1

    async def _in_writer(self, work: Callable[[], T]) -> T:
        self._in_thread += 1
        try:
            return await super()._in_writer(work)
        finally:
            self._in_thread -= 1

    async def read(self, function: Callable[[sa.Connection], T], *, brief: bool = False) -> T:
        if brief:
            with suppress(DBAPIError), self._reading.begin() as connection:
                return function(connection)
        return await super().read(function)

    async def _flush(self) -> None:
        """Return once everything that is committed now is on the disk."""
        mine = self._committed
        async with self._flushing:
            if self._on_disk < mine:
                covered = self._committed
                await self._in_reader(self._flush_log)
                self._on_disk = covered

    def _flush_log(self) -> None:
        try:
            with suppress(FileNotFoundError):  # all of it is in the database
                log = os.open(self._log, os.O_RDONLY)
                try:
                    os.fsync(log)
                finally:
                    os.close(log)
            if self._committed - self._in_database > CHECKPOINT_WRITES:
                self._in_database = self._committed
                self._move_log()
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailable("the disk of the service's database fails") from error

    def _move_log(self) -> None:
        """Move the log into the database, as far as nobody reads it; nobody who writes has to wait."""
        connection = self._engine.raw_connection()  # outside of a transaction
        try:
            connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            connection.close()
