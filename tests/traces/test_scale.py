"""Many traces cost a list no reading of rows that it does not show, and an export no more memory than a few."""

import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.programs.ids import make_id
from service.programs.storage import Storage
from service.store.opening import open_database
from service.traces.database import TraceDatabase, _selected, traces
from service.traces.recorder import Recorder
from service.traces.store import EVERYTHING, Selection
from service.traces.traces import Traces
from tests.support.stored_traces import candidate, make_document, make_trace, trace_store, verified

MEGABYTE = 1_000_000


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_an_export_holds_some_traces_and_not_all(tmp_path: Path) -> None:
    padding = ["x" * 500_000]
    document = make_document(
        [candidate("c0", "Salt.", verified(1.0)), candidate("c1", "Foam.", verified(0.0))], lost=padding
    )
    async with trace_store(tmp_path / "store.db") as store:
        for _ in range(200):
            await store.add(make_trace(document, id=make_id("ref")))
        room = Storage({}, sys.maxsize)
        stored = Traces(store, Recorder(store, room, str, lambda _: None), room, 30.0, lambda _: None)
        lines, before, most = 0, 0, 0
        async for piece in stored.preferences("ann", "trl"):
            lines += piece.count(b"\n")
            before = before or resident_bytes()  # what the first page needs
            most = max(most, resident_bytes())
        await stored.recorder.close()

    assert lines == 200
    assert most - before < 30 * MEGABYTE  # of 100


@pytest.mark.parametrize(
    "selection", [EVERYTHING, Selection(task="general"), Selection(model="scripted", since=1.0, until=2.0)]
)
async def test_a_list_reads_only_the_rows_that_it_shows(tmp_path: Path, selection: Selection) -> None:
    database = open_database(str(tmp_path / "store.db"))
    TraceDatabase(database)
    query = _selected(sa.select(traces.c.id), "ann", selection).order_by(traces.c.place.desc()).limit(21)
    explained = sa.text(f"EXPLAIN QUERY PLAN {query.compile(compile_kwargs={'literal_binds': True})}")
    [plan] = [row.detail for row in await database.read(lambda c: c.execute(explained).all())]
    await database.close()

    # In the order of the index, whose columns have all that is asked for: there is no sorting.
    assert "USING INDEX redraft_traces_by_caller (caller=?)" in plan
