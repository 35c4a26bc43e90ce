"""Many stored traces: how long lists take, what memory an export needs, and what a deletion leaves.

``python -m bench.scenarios.stored_traces [COUNT]`` makes a database with COUNT traces (10,000 by default) of eight
candidates each in a temporary folder.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench.harness.scenario import say
from service.programs.storage import Storage
from service.store.database import Database
from service.store.opening import open_database
from service.traces.database import TraceDatabase, traces
from service.traces.recorder import Recorder
from service.traces.store import EVERYTHING, Selection
from service.traces.traces import Traces
from tests.support.stored_traces import candidate, make_document, make_trace, verified

SENTENCE = "Ein Satz über das Meer. "
LISTS = {
    "the newest": (EVERYTHING, None),
    "from the middle": (EVERYTHING, 0.5),
    "of a rare task": (Selection(task="summarize"), None),
    "of a task that there is not": (Selection(task="none"), None),
    "of a model, from another time": (Selection(model="scripted", until=1.0), None),
}
REPEATS = 9


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), count))


async def measure(folder: Path, count: int) -> None:
    database = open_database(str(folder / "store.db"))
    store = TraceDatabase(database)
    fill(database, count)
    room = Storage({}, sys.maxsize)
    stored = Traces(store, Recorder(store, room, str, lambda _: None), room, 30.0, lambda _: None)
    for name, (selection, share) in LISTS.items():
        before = None if share is None else f"ref-{int(count * share):032x}"
        times = []
        for _ in range(REPEATS):
            begun = time.perf_counter()
            found = await stored.list("ann", selection, 100, before)
            times.append(1000 * (time.perf_counter() - begun))
        say(f"list {name}: {len(found)} in {statistics.median(times):.1f} ms, at most {max(times):.1f} ms")

    held = peak = resident_megabytes()
    pairs = size = 0
    begun = time.perf_counter()
    async for lines in stored.preferences("ann", "trl"):
        pairs += lines.count(b"\n")
        size += len(lines)
        peak = max(peak, resident_megabytes())
    seconds = time.perf_counter() - begun
    say(f"export: {pairs} pairs, {size / 1e6:.0f} MB in {seconds:.1f} s; from {held:.0f} to {peak:.0f} MB of memory")

    begun = time.perf_counter()
    deleted = await stored.delete_all("ann")
    seconds = time.perf_counter() - begun
    left = count_in_files(folder, SENTENCE)
    say(f"deletion: {deleted} in {seconds:.1f} s; {left} sentences left in the files")
    await stored.recorder.close()
    await database.close()


def fill(database: Database, count: int) -> None:
    """Write the rows themselves, since this is not what is measured."""
    texts = [f"{'Salt' if number == 7 else 'Wave'} {number}. {SENTENCE * 60}" for number in range(8)]
    candidates = [candidate(f"c{number}", text, verified(float(number == 7))) for number, text in enumerate(texts)]
    document = make_document(candidates)
    text = json.dumps(document, ensure_ascii=False)
    rows = []
    for number in range(count):
        place = f"{number:032x}"
        trace = make_trace(document, id=f"ref-{place}", task="summarize" if number % 50 == 0 else "general")
        summary = {name: getattr(trace.summary, name) for name in trace.summary.__dataclass_fields__}
        rows.append({**summary, "place": place, "bytes": len(text), "document": text})
    for start in range(0, count, 500):
        some = rows[start : start + 500]
        database.run_now(partial(insert, some))


def insert(rows: Sequence[Mapping[str, Any]], connection: sa.Connection) -> None:
    connection.execute(traces.insert(), rows)


def count_in_files(folder: Path, text: str) -> int:
    return sum(path.read_bytes().count(text.encode()) for path in folder.iterdir())


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


if __name__ == "__main__":
    main()
