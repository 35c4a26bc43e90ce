"""Which stored traces lessons and adapters come from, and what becomes of both when a trace is not there any more.

    traces.txt              the ids of the traces in stored.jsonl; each folder of lessons has such a file too
    withdrawn.txt           the ids of traces that the operator has withdrawn

A trace that has expired, or that its caller has deleted, leaves no text in the folder: its texts are removed from what
was collected and from all lessons, and what the trainer wrote for the exam is emptied. An adapter keeps the ids of its
traces in its manifest. If one of them was deleted by its caller or withdrawn, the manifest says so, and the adapter is
not promoted any more: its weights may repeat what is gone. Expiry withdraws nothing.
"""

import asyncio
import fcntl
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from service.learning.collected import Collected, DamagedFile, read_lines, write_lines
from service.learning.lessons import BestText, LessonPair
from service.learning.registry import Registry
from service.learning.trainer import GREEDY, PAIRS, TEXTS
from service.programs.ids import place_of
from service.whole_files import aside_of, write_whole

if TYPE_CHECKING:  # nothing of it is imported where traces are off
    from service.traces.store import TraceStore

STORED = "stored.jsonl"
IDS, WITHDRAWN = "traces.txt", "withdrawn.txt"
SECONDS_A_DAY = 86_400.0


async def follow_deletions(folder: Path, store: "TraceStore", keep_days: float) -> int:
    """Forget what was deleted in the store or has expired; how many adapters were marked.

    keep_days: how long traces are kept. A younger one that is missing was never in this store, and stays.
    Raises StoreUnavailable, DamagedFile and OSError.
    """
    named = await asyncio.to_thread(named_traces, folder)
    absent = await store.absent(named) if named else {}
    deleted = frozenset(its_id for its_id, reason in absent.items() if reason == "deleted")
    expired = frozenset(its_id for its_id in absent if time.time() - _began(its_id) > keep_days * SECONDS_A_DAY)
    return await asyncio.to_thread(forget, folder, deleted | expired, deleted)


def withdraw(folder: Path, traces: Collection[str]) -> int:
    """Forget traces whose consent was withdrawn in another way, for ever; how many adapters were marked. Raises
    DamagedFile and OSError."""
    write_ids(folder / WITHDRAWN, withdrawn_traces(folder) | set(traces))
    return forget(folder)


def forget(folder: Path, gone: frozenset[str] = frozenset(), deleted: frozenset[str] = frozenset()) -> int:
    """Remove the texts of traces that are gone, and mark the adapters that learned from those that were deleted; how
    many were marked now. Traces that the operator has withdrawn are gone and deleted.

    Raises DamagedFile and OSError.
    """
    withdrawn = withdrawn_traces(folder)
    gone, deleted = gone | withdrawn, deleted | withdrawn
    if not gone:
        return 0
    with changing_texts(folder):
        _drop_lines(folder, {STORED: Collected}, gone)
        for ids in (folder / "lessons").glob(f"*/{IDS}"):
            _drop_lines(ids.parent, {TEXTS: BestText, PAIRS: LessonPair}, gone)
        return _mark(Registry(folder), gone, deleted)


def named_traces(folder: Path) -> frozenset[str]:
    """The ids of all traces that something in the folder is from."""
    found = set[str]()
    for path in (folder / IDS, *(folder / "lessons").glob(f"*/{IDS}")):
        found |= _read_ids(path)
    for manifest in Registry(folder).list():
        found |= set(manifest.traces)
    return frozenset(found)


def withdrawn_traces(folder: Path) -> frozenset[str]:
    """The ids of the traces that the operator has withdrawn."""
    return _read_ids(folder / WITHDRAWN)


def write_stored(folder: Path, collected: Sequence[Collected]) -> None:
    """Write what was collected from traces, in place of what was before. OSError if it cannot be written."""
    ids = {each.trace for each in collected}
    with changing_texts(folder):
        write_ids(folder / IDS, _read_ids(folder / IDS) | ids)  # in case this process is killed before the end
        write_lines(folder / STORED, collected)
        write_ids(folder / IDS, ids)


@contextmanager
def changing_texts(folder: Path) -> Iterator[None]:
    """The right to change files that have texts of traces. Other processes wait for it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".texts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_ids(path: Path, traces: Iterable[str]) -> None:
    """OSError if the file cannot be written."""
    write_whole(path, "".join(f"{its_id}\n" for its_id in sorted(traces)))


def _read_ids(path: Path) -> frozenset[str]:
    try:
        return frozenset(path.read_text(encoding="utf-8").split())
    except FileNotFoundError:
        return frozenset()


def _began(its_id: str) -> float:
    """When a trace's program began, in seconds since the epoch, as its id says."""
    try:
        return int(place_of(its_id)[:12], 16) / 1000
    except ValueError:
        return time.time()


def _drop_lines(folder: Path, files: Mapping[str, type[BaseModel]], gone: frozenset[str]) -> None:
    there = _read_ids(folder / IDS)
    if there & gone:
        for name, kind in files.items():
            for unfinished in folder.glob(f"{aside_of(name)}*"):  # of a process that was killed
                unfinished.unlink()
            if (folder / name).exists():  # else it was killed before it had written the file
                lines: Any = read_lines(folder / name, kind)
                write_lines(folder / name, [line for line in lines if line.trace not in gone])
        write_ids(folder / IDS, there - gone)


def _mark(registry: Registry, gone: frozenset[str], deleted: frozenset[str]) -> int:
    marked = 0
    for manifest in registry.list():
        greedy = registry.folder / "adapters" / manifest.adapter / GREEDY
        if gone & set(manifest.traces) and greedy.exists() and greedy.read_bytes() != b"[]":
            write_whole(greedy, "[]")
        if new := deleted & set(manifest.traces) - set(manifest.withdrawn):
            with suppress(DamagedFile):  # such an adapter does not serve
                registry.amend(manifest.adapter, methodcaller("without", new))
                marked += 1
    return marked
