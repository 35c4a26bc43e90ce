"""Files in a database: kept in chunks, seen once they are complete, and gone without a trace."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.files.database import FileDatabase, chunks, files
from service.files.file import StoredFile
from service.files.store import CHUNK_BYTES, FileWriter
from service.programs.ids import make_id
from service.store.database import Database
from service.store.opening import open_database


@asynccontextmanager
async def opened(place: str) -> AsyncIterator[tuple[Database, FileDatabase]]:
    database = open_database(place)
    try:
        yield database, FileDatabase(database)
    finally:
        await database.close()


@pytest.fixture
async def database(place: str) -> AsyncIterator[Database]:
    async with opened(place) as (database, _):
        yield database


@pytest.fixture
def store(database: Database) -> FileDatabase:
    return FileDatabase(database)


def make_file(caller: str = "me", **known: Any) -> StoredFile:
    now = time.time()
    return replace(StoredFile(make_id("file"), caller, "a.jsonl", "batch", now, now + 3_600), **known)


async def write(store: FileDatabase, content: bytes, **known: Any) -> StoredFile:
    writer = await FileWriter.begin(store, make_file(**known))
    for at in range(0, len(content), 100_000):
        await writer.write(content[at : at + 100_000])
    return await writer.finish()


async def content(store: FileDatabase, file: str) -> list[bytes]:
    return [chunk async for chunk in store.read(file)]


async def rows(database: Database) -> tuple[int, int]:
    """How many files and chunks the tables have."""

    def count(connection: sa.Connection) -> tuple[int, int]:
        found = [
            connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() for table in (files, chunks)
        ]
        return found[0], found[1]

    return await database.read(count)


@pytest.mark.parametrize("size", [1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
async def test_a_file_is_read_as_it_was_written(store: FileDatabase, size: int) -> None:
    written = bytes(index % 251 for index in range(size))
    file = await write(store, written)
    found = await content(store, file.id)

    assert await store.get(file.id) == file
    assert file.size == size
    assert b"".join(found) == written
    assert max(map(len, found)) <= CHUNK_BYTES


async def test_a_file_is_seen_once_it_is_complete(store: FileDatabase) -> None:
    writer = await FileWriter.begin(store, make_file())
    await writer.write(b"a" * CHUNK_BYTES)
    early = await store.get(writer.file.id)
    listed = await store.list("me", 10, after=None, newest_first=True, purpose=None)

    assert (early, listed, await store.held()) == (None, [], 0)
    await writer.finish()
    assert await store.get(writer.file.id) == writer.file
    assert await store.held() == CHUNK_BYTES


async def test_writing_again_changes_nothing(store: FileDatabase) -> None:
    file = await write(store, b"first")
    again = await FileWriter.begin(store, file)
    await again.write(b"other")

    assert await content(store, file.id) == [b"first"]


async def test_nothing_is_left_of_a_file_that_was_deleted(database: Database, store: FileDatabase) -> None:
    file, other = await write(store, b"a" * CHUNK_BYTES * 2), await write(store, b"b")

    assert await store.delete(file.id)
    assert not await store.delete(file.id)
    assert await rows(database) == (1, 1)
    assert await content(store, other.id) == [b"b"]


async def test_old_and_abandoned_files_are_dropped(database: Database, store: FileDatabase) -> None:
    now = time.time()
    kept = await write(store, b"a")
    await write(store, b"b", expires=now - 1)
    for created in (now - 100, now):
        writer = await FileWriter.begin(store, make_file(created=created))
        await writer.write(b"c" * CHUNK_BYTES)

    assert await store.purge(now, begun_before=now - 50) == 2
    assert await rows(database) == (2, 2)
    assert await store.get(kept.id) == kept


async def test_lists_have_the_caller_s_files_in_either_order(store: FileDatabase) -> None:
    made = []
    for number in range(4):
        made.append(await write(store, b"a", purpose=("batch", "batch_output")[number % 2]))
        await asyncio.sleep(0.002)  # ids sort by milliseconds
    await write(store, b"b", caller="other")
    newest = await store.list("me", 2, after=None, newest_first=True, purpose=None)
    older = await store.list("me", 9, after=newest[-1].id, newest_first=True, purpose=None)
    outputs = await store.list("me", 9, after=made[0].id, newest_first=False, purpose="batch_output")

    assert [*newest, *older] == made[::-1]
    assert outputs == [made[1], made[3]]


async def test_the_event_loop_goes_on_while_a_file_is_overwritten(tmp_path: Path) -> None:
    """SQLite overwrites what it deletes, which takes long for many chunks."""
    database = open_database(str(tmp_path / "store.db"))
    store = FileDatabase(database)
    file, old = await write(store, b"a" * CHUNK_BYTES), await write(store, b"b" * CHUNK_BYTES)
    threads: set[threading.Thread] = set()

    def note(connection: object, cursor: object, statement: str, *others: object) -> None:
        if statement.startswith("DELETE"):
            threads.add(threading.current_thread())

    sa.event.listen(database._transactions._engine, "before_cursor_execute", note)
    await store.delete(file.id)
    assert await store.purge(old.expires + 1, 0.0) == 1
    await database.close()

    assert threads
    assert threading.main_thread() not in threads
