"""Transactions in a file: what is to last reaches the disk, and the log does not grow for ever."""

import asyncio
import errno
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.errors import StoreUnavailable
from service.store.database import Database
from service.store.files import CHECKPOINT_WRITES
from service.store.opening import open_database

metadata = sa.MetaData()
notes = sa.Table("notes", metadata, sa.Column("number", sa.Integer, primary_key=True))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = open_database(str(tmp_path / "store.db"))
    opened.prepare("notes", metadata, 1)
    yield opened
    await opened.close()


async def add(database: Database, number: int, *, lasting: bool = False, bulk: bool = False) -> None:
    await database.write(lambda c: c.execute(notes.insert(), {"number": number}), lasting=lasting, bulk=bulk)


async def count(database: Database, *, brief: bool = False) -> int:
    query = sa.select(sa.func.count()).select_from(notes)
    return await database.read(lambda c: int(c.execute(query).scalar_one()), brief=brief)


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were flushed."""
    found: list[str] = []
    flush = os.fsync

    def note(file: int) -> None:
        found.append(Path(os.readlink(f"/proc/self/fd/{file}")).name)
        flush(file)

    monkeypatch.setattr(os, "fsync", note)
    return found


async def test_only_a_write_that_is_to_last_waits_for_the_disk(database: Database, flushed: list[str]) -> None:
    await add(database, 1)
    assert flushed == []
    await add(database, 2, lasting=True)
    assert flushed == ["store.db-wal"]


async def test_writes_that_wait_at_the_same_time_wait_for_the_same_flush(
    database: Database, flushed: list[str]
) -> None:
    await asyncio.gather(*(add(database, number, lasting=True) for number in range(20)))

    assert 1 <= len(flushed) <= 2
    assert await count(database) == 20


async def test_a_disk_that_fails_is_reported(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreUnavailable, match="disk"):
        await add(database, 1, lasting=True)


async def test_the_log_is_moved_into_the_database(database: Database, tmp_path: Path) -> None:
    for number in range(CHECKPOINT_WRITES):
        await add(database, number)
    await add(database, CHECKPOINT_WRITES, lasting=True)

    shutil.copy(tmp_path / "store.db", tmp_path / "alone.db")  # without its log
    with closing(sqlite3.connect(tmp_path / "alone.db")) as alone:
        assert alone.execute("SELECT count(*) FROM notes").fetchone() == (CHECKPOINT_WRITES + 1,)


async def test_what_is_written_in_the_thread_and_in_the_event_loop_meanwhile_is_all_there(database: Database) -> None:
    await asyncio.gather(*(add(database, number, bulk=number % 3 == 0) for number in range(60)))

    assert await count(database) == await count(database, brief=True) == 60


async def test_a_write_that_the_database_refuses_changes_nothing(database: Database) -> None:
    await add(database, 1)
    with pytest.raises(StoreUnavailable):
        await add(database, 1)

    assert await count(database) == 1
