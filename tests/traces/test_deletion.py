"""What was deleted or has expired is in no file of an SQLite database any more."""

import random
import time
from pathlib import Path

import pytest

from service.traces.database import TraceDatabase
from tests.support.stored_traces import candidate, feedback, make_document, make_trace, trace_store

SIZES = (1, 3, 10, 40, 100, 400, 2_000)
"""How often a text has its mark: so that rows share pages, fill some, and spill over many."""


def files(folder: Path) -> bytes:
    """All bytes of the database, of its log and of whatever else is next to it."""
    found = [path for path in folder.iterdir() if path.is_file()]
    assert {"store.db", "store.db-wal"} <= {path.name for path in found}
    return b"".join(path.read_bytes() for path in found)


def mark(number: int) -> str:
    return f"Ge\u00e4nderter Text {number:05d}."


async def add(store: TraceDatabase, number: int, draw: random.Random, caller: str = "ann") -> str:
    """A trace with feedback, every text of which has the mark."""
    trace = make_trace(
        make_document([candidate("c0", mark(number) * draw.choice(SIZES))]), id=f"ref-{number:032x}", caller=caller
    )
    await store.add(trace)
    for size in (draw.choice(SIZES), draw.choice(SIZES)):  # the second replaces the first
        await store.add_feedback(caller, feedback(trace, "edit", "c0", mark(number) * size))
    return trace.summary.id


@pytest.mark.parametrize("seed", range(2))
async def test_no_byte_of_a_deleted_text_is_left(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    kept: dict[int, str] = {}
    async with trace_store(tmp_path / "store.db") as store:
        for number in range(40):
            kept[number] = await add(store, number, draw)
            if draw.random() < 0.5:
                assert await store.delete("ann", kept.pop(draw.choice(list(kept))))
        assert await store.delete("ann", kept.pop(next(iter(kept))))
        found = files(tmp_path)

    assert [number for number in range(40) if mark(number).encode() in found] == sorted(kept)


async def test_nothing_is_left_of_a_caller_who_deletes_everything(tmp_path: Path) -> None:
    async with trace_store(tmp_path / "store.db") as store:
        for number in range(30):
            await add(store, number, random.Random(number), caller="ann" if number % 2 else "bob")
        await store.delete_all("ann")
        found = files(tmp_path)

    assert [mark(number).encode() in found for number in range(30)] == [number % 2 == 0 for number in range(30)]


async def test_nothing_is_left_of_what_has_expired(tmp_path: Path) -> None:
    async with trace_store(tmp_path / "store.db") as store:
        for number in range(20):
            await add(store, number, random.Random(number))
        await store.purge(time.time() + 1)
        found = files(tmp_path)

    assert [number for number in range(20) if mark(number).encode() in found] == []


async def test_what_a_process_that_has_died_left_in_the_log_goes_with_the_next_purge(tmp_path: Path) -> None:
    async with trace_store(tmp_path / "store.db") as store:
        await add(store, 1, random.Random(1))
        log = (tmp_path / "store.db-wal").read_bytes()
    assert mark(1).encode() in log
    async with trace_store(tmp_path / "store.db") as store:
        await store.purge(0.0)
        assert (tmp_path / "store.db-wal").read_bytes() == b""
