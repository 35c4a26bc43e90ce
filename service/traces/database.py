"""Traces in the service's database."""

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from service.programs.ids import place_of
from service.store.database import Database
from service.traces.store import Absence, Feedback, Selection, WholeTrace
from service.traces.trace import Trace, TraceSummary

FORMAT = 2
"""The version of the tables and of what is in them."""
DELETED_AT_ONCE = 100
"""Traces that one transaction deletes, so that no other write waits long."""
SOUGHT_AT_ONCE = 500
"""Ids in one query."""

metadata = sa.MetaData()
traces = sa.Table(
    "redraft_traces",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("caller", sa.String, nullable=False),
    sa.Column("place", sa.String, nullable=False),  # what the id sorts by
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("task", sa.String, nullable=False),
    sa.Column("model", sa.String, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("score", sa.Double),
    sa.Column("passed", sa.Boolean),
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("document", sa.Text, nullable=False),  # last, so that the others are read without it
    # Has all that lists are filtered by, so that rows that are not wanted are not read.
    sa.Index("redraft_traces_by_caller", "caller", "place", "task", "model", "created"),
    sa.Index("redraft_traces_by_age", "created"),
)
feedback = sa.Table(
    "redraft_feedback",
    metadata,
    sa.Column("trace", sa.String, primary_key=True),
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("candidate", sa.String, primary_key=True),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
)
deleted_traces = sa.Table(  # by their callers; adapters that learned from them are marked
    "redraft_deleted_traces",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
)
SHOWN = [traces.c[name] for name in TraceSummary.__dataclass_fields__]


class TraceDatabase:
    """A TraceStore in a database. Makes its tables, which blocks. Raises StoreMisconfigured."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._is_scrubbed = False  # an earlier process may have ended after a deletion
        database.prepare("traces", metadata, FORMAT)

    async def add(self, trace: Trace) -> bool:
        document = await asyncio.to_thread(trace.encode)
        row = {**asdict(trace.summary), "document": document, "bytes": len(document.encode())}
        row["place"] = place_of(trace.summary.id)
        statement = self._database.insert_once(traces).returning(traces.c.id)
        return await self._database.write(lambda c: c.execute(statement, row).first() is not None, lasting=True)

    async def list(
        self, caller: str, selection: Selection, limit: int, before: str | None = None
    ) -> Sequence[TraceSummary]:
        query = _selected(sa.select(*SHOWN), caller, selection).order_by(traces.c.place.desc()).limit(limit)
        if before is not None:
            query = query.where(traces.c.place < place_of(before))
        return [_summary(row) for row in await self._database.read(lambda c: c.execute(query).all())]

    async def get(self, caller: str, trace_id: str) -> WholeTrace | None:
        query = sa.select(*SHOWN, traces.c.document).where(traces.c.caller == caller, traces.c.id == trace_id)

        def read(connection: sa.Connection) -> WholeTrace | None:
            row = connection.execute(query).one_or_none()
            return None if row is None else _whole(connection, [row])[0]

        return await self._database.read(read)

    async def page(self, caller: str, selection: Selection, after: str | None, max_bytes: int) -> Sequence[WholeTrace]:
        sizes = _selected(sa.select(traces.c.id, traces.c.bytes), caller, selection).order_by(traces.c.place).limit(200)
        if after is not None:
            sizes = sizes.where(traces.c.place > place_of(after))

        def read(connection: sa.Connection) -> Sequence[WholeTrace]:
            ids, held = list[str](), 0
            for its_id, size in connection.execute(sizes):
                held += size
                if ids and held > max_bytes:
                    break
                ids.append(its_id)
            query = sa.select(*SHOWN, traces.c.document).where(traces.c.id.in_(ids)).order_by(traces.c.place)
            return _whole(connection, connection.execute(query).all())

        return await self._database.read(read)

    async def callers(self) -> Sequence[str]:
        query = sa.select(traces.c.caller).distinct().order_by(traces.c.caller)
        return await self._database.read(lambda c: c.execute(query).scalars().all())

    async def absent(self, trace_ids: Collection[str]) -> Mapping[str, Absence]:
        sought, found = sorted(trace_ids), dict[str, Absence]()
        for start in range(0, len(sought), SOUGHT_AT_ONCE):
            some = sought[start : start + SOUGHT_AT_ONCE]
            there, deleted = [await self._known(column, some) for column in (traces.c.id, deleted_traces.c.id)]
            found |= {its_id: "deleted" if its_id in deleted else "missing" for its_id in some if its_id not in there}
        return found

    async def _known(self, column: sa.Column[str], some: Sequence[str]) -> set[str]:
        query = sa.select(column).where(column.in_(some))
        return await self._database.read(lambda c: set(c.execute(query).scalars()))

    async def add_feedback(self, caller: str, given: Feedback) -> bool | None:
        value = json.dumps(given.value, ensure_ascii=False)
        row = {**asdict(given), "value": value, "bytes": len(value.encode())}
        mine = sa.select(traces.c.id).where(traces.c.caller == caller, traces.c.id == given.trace)
        same = (
            (feedback.c.trace == given.trace)
            & (feedback.c.kind == given.kind)
            & (feedback.c.candidate == given.candidate)
        )

        def write(connection: sa.Connection) -> bool | None:
            if connection.execute(mine.with_for_update()).one_or_none() is None:
                return None
            replaced = connection.execute(feedback.delete().where(same)).rowcount
            connection.execute(feedback.insert(), row)
            return bool(replaced)

        return await self._database.write(write, lasting=True, alone=True)

    async def held(self, caller: str | None) -> int:
        total = sa.func.coalesce(sa.func.sum(traces.c.bytes), 0)
        given = sa.func.coalesce(sa.func.sum(feedback.c.bytes), 0)
        of_traces = sa.select(total)
        of_feedback = sa.select(given)
        if caller is not None:
            of_traces = of_traces.where(traces.c.caller == caller)
            of_feedback = of_feedback.join_from(feedback, traces, feedback.c.trace == traces.c.id).where(
                traces.c.caller == caller
            )
        return await self._database.read(
            lambda c: sum(int(c.execute(q).scalar_one()) for q in (of_traces, of_feedback))
        )

    async def delete(self, caller: str, trace_id: str) -> bool:
        return bool(await self._delete((traces.c.caller == caller) & (traces.c.id == trace_id)))

    async def delete_all(self, caller: str) -> int:
        return await self._delete(traces.c.caller == caller)

    async def purge(self, created_before: float) -> int:
        return await self._delete(traces.c.created < created_before, note=False)

    async def _delete(self, which: sa.ColumnElement[bool], *, note: bool = True) -> int:
        """Delete traces. ``note``: keep their ids, so that what was learned from them can be marked."""
        some = sa.select(traces.c.id).where(which).limit(DELETED_AT_ONCE).with_for_update()

        def drop(connection: sa.Connection) -> int:
            ids = connection.execute(some).scalars().all()
            connection.execute(feedback.delete().where(feedback.c.trace.in_(ids)))
            connection.execute(traces.delete().where(traces.c.id.in_(ids)))
            if note and ids:
                connection.execute(self._database.insert_once(deleted_traces), [{"id": its_id} for its_id in ids])
            return len(ids)

        deleted, dropped = 0, DELETED_AT_ONCE
        while dropped == DELETED_AT_ONCE:
            dropped = await self._database.write(drop, lasting=True, bulk=True)
            deleted += dropped
        if deleted or not self._is_scrubbed:
            self._is_scrubbed = await self._database.scrub()
        return deleted


def _selected(query: Any, caller: str, selection: Selection) -> Any:
    query = query.where(traces.c.caller == caller)
    if selection.task is not None:
        query = query.where(traces.c.task == selection.task)
    if selection.model is not None:
        query = query.where(traces.c.model == selection.model)
    if selection.since is not None:
        query = query.where(traces.c.created >= selection.since)
    if selection.until is not None:
        query = query.where(traces.c.created < selection.until)
    return query


def _whole(connection: sa.Connection, rows: Sequence[Any]) -> Sequence[WholeTrace]:
    """The traces of rows with their feedback."""
    query = sa.select(feedback).where(feedback.c.trace.in_([row.id for row in rows]))
    given: dict[str, list[Feedback]] = {}
    for found in connection.execute(query.order_by(feedback.c.created)):
        one = Feedback(found.trace, found.kind, found.candidate, json.loads(found.value), found.created)
        given.setdefault(found.trace, []).append(one)
    return [WholeTrace(Trace(_summary(row), json.loads(row.document)), given.get(row.id, [])) for row in rows]


def _summary(row: Any) -> TraceSummary:
    return TraceSummary(**{column.name: getattr(row, column.name) for column in SHOWN})
