"""Batches in the service's database."""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import sqlalchemy as sa

from service.batches.batch import ENDED, Batch, BatchClaim, Counts, Line, LineFault, Result, make_notice
from service.batches.line_database import LineDatabase
from service.batches.tables import FORMAT, USAGE, batches, lines, metadata
from service.deliveries.database import DeliveryDatabase
from service.deliveries.delivery import Destination
from service.engines.base import Usage
from service.jobs.job import JobTaken
from service.store.database import Database

OPEN = ("held", "queued", "running")
"""The states of lines that have not ended. Those of a batch that is still checked are held."""
TIMES = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


class BatchDatabase:
    """A BatchStore in a database.

    deliveries: the notices of batches' ends, which are written in the same transactions.
    lease: seconds for which a line stays with the process that writes for it.

    Makes its tables, which blocks. Raises StoreMisconfigured.
    """

    def __init__(self, database: Database, deliveries: DeliveryDatabase, lease: float) -> None:
        self.lines = LineDatabase(database, lease)
        self._database = database
        self._deliveries = deliveries
        self._lease = lease
        database.prepare("batches", metadata, FORMAT)
        if not database.is_shared:  # the process that worked on them has ended
            database.run_now(lambda c: c.execute(batches.update().where(_is_live()).values(free_at=0.0)))
            database.run_now(lambda c: c.execute(lines.update().where(lines.c.state == "running").values(free_at=0.0)))

    async def add(self, batch: Batch, notify: Destination | None = None) -> None:
        stated = ("id", "caller", "endpoint", "input_file", "window", "keep", "request_id", "created", "size")
        row = {
            **{name: getattr(batch, name) for name in (*stated, "state", "end")},
            "metadata": None if batch.metadata is None else json.dumps(dict(batch.metadata)),
        }

        def write(connection: sa.Connection) -> None:
            connection.execute(self._database.insert_once(batches), row)
            if notify is not None:
                self._deliveries.plan(connection, batch.id, notify)

        await self._database.write(write, lasting=True)

    async def get(self, batch_id: str) -> Batch | None:
        found = await self._read(sa.select(batches).where(batches.c.id == batch_id))
        return found[0] if found else None

    async def list(self, caller: str, limit: int, after: str | None) -> Sequence[Batch]:
        query = sa.select(batches).where(batches.c.caller == caller).order_by(batches.c.id.desc()).limit(limit)
        return await self._read(query if after is None else query.where(batches.c.id < after))

    async def _read(self, query: sa.Select[Any]) -> Sequence[Batch]:
        def read(connection: sa.Connection) -> Sequence[Batch]:
            rows = connection.execute(query).all()
            counts = _count_lines(connection, [row.id for row in rows if row.state not in ENDED])
            return [_batch(row, counts.get(row.id)) for row in rows]

        return await self._database.read(read)

    async def held(self, caller: str | None = None) -> int:
        query = sa.select(sa.func.coalesce(sa.func.sum(batches.c.size), 0)).where(_is_live())
        if caller is not None:
            query = query.where(batches.c.caller == caller)
        return await self._database.read(lambda c: int(c.execute(query).scalar_one()))

    async def count_open(self) -> int:
        query = sa.select(sa.func.count()).select_from(batches).where(_is_live())
        return await self._database.read(lambda c: int(c.execute(query).scalar_one()))

    async def cancel(self, batch_id: str) -> None:
        live = (batches.c.id == batch_id) & batches.c.state.in_(("validating", "in_progress"))
        values = {"state": "cancelling", "end": "cancelled", "cancelling_at": time.time()}
        await self._database.write(lambda c: _end_lines(c, live, "cancelled", values), lasting=True, bulk=True)

    async def end_overdue(self) -> None:
        overdue = (
            (batches.c.state == "in_progress")
            & (batches.c.end == "completed")
            & (batches.c.created + batches.c.window <= time.time())
        )
        query = sa.select(sa.exists().where(overdue))
        if await self._database.read(lambda c: c.execute(query).scalar_one()):
            await self._database.write(
                lambda c: _end_lines(c, overdue, "expired", {"end": "expired"}), lasting=True, bulk=True
            )

    async def claim(self, owner: str, lease: float) -> BatchClaim | None:
        is_at_work = sa.exists().where(lines.c.batch == batches.c.id, lines.c.state.in_(OPEN))
        is_ready = (batches.c.state == "validating") | (_is_live() & ~is_at_work)
        oldest = (
            sa.select(batches.c.id)
            .where(is_ready, batches.c.free_at <= self._database.now())
            .order_by(batches.c.id)
            .limit(1)
        )

        def take(connection: sa.Connection) -> BatchClaim | None:
            batch_id = connection.execute(oldest.with_for_update(skip_locked=True)).scalar_one_or_none()
            if batch_id is None:
                return None
            values = {"owner": owner, "attempt": batches.c.attempt + 1, "free_at": self._database.now() + lease}
            claimed = batches.update().where(batches.c.id == batch_id).values(**values).returning(*batches.c)
            row = connection.execute(claimed).one()
            return BatchClaim(_batch(row), owner, row.attempt)

        if await self._database.read(lambda c: c.execute(oldest).first()) is None:
            return None
        return await self._database.write(take, alone=True)

    async def add_lines(self, claim: BatchClaim, stated: Sequence[Line]) -> None:
        rows = [
            {
                "batch": claim.batch.id,
                "state": "held",
                **asdict(line),
                "fence": f"[{secrets.token_hex(6)}]",
                "seed": secrets.randbits(31),
            }
            for line in stated
        ]

        def write(connection: sa.Connection) -> None:
            self._hold(connection, claim)
            if rows:
                connection.execute(self._database.insert_once(lines), rows)

        await self._database.write(write)

    async def begin(self, claim: BatchClaim, model: str | None) -> None:
        mine = lines.c.batch == claim.batch.id
        begun = {"state": "in_progress", "in_progress_at": time.time(), "model": model, "owner": None, "free_at": 0.0}

        def write(connection: sa.Connection) -> None:
            self._hold(connection, claim, **begun)
            connection.execute(lines.update().where(mine, lines.c.state == "held").values(state="queued"))

        await self._database.write(write, lasting=True, bulk=True)

    async def fail(self, claim: BatchClaim, faults: Sequence[LineFault]) -> None:
        ended = {"state": "failed", "failed_at": time.time(), "faults": json.dumps([asdict(fault) for fault in faults])}

        def write(connection: sa.Connection) -> None:
            self._hold(connection, claim, owner=None, **ended)
            self.lines.drop(connection, claim.batch.id)
            self._deliveries.announce(connection, claim.batch.id, make_notice(claim.batch.id, "failed"))

        await self._database.write(write, lasting=True, bulk=True)

    async def begin_finalizing(self, claim: BatchClaim) -> None:
        values = {"state": "finalizing", "finalizing_at": time.time()} if claim.batch.state == "in_progress" else {}
        await self._database.write(lambda c: self._hold(c, claim, **values))

    async def results(self, claim: BatchClaim, after: int, limit: int) -> Sequence[Result]:
        await self._database.write(lambda c: self._hold(c, claim))
        query = (
            sa.select(lines.c.number, lines.c.custom_id, lines.c.state, lines.c.answer)
            .where(lines.c.batch == claim.batch.id, lines.c.number > after)
            .order_by(lines.c.number)
            .limit(limit)
        )
        return [Result(*row) for row in await self._database.read(lambda c: c.execute(query).all())]

    async def finish(self, claim: BatchClaim, files: Mapping[str, str]) -> None:
        end = claim.batch.end

        def write(connection: sa.Connection) -> None:
            counts = _count_lines(connection, [claim.batch.id]).get(claim.batch.id, Counts())
            usage = {name: getattr(counts.usage, name) for name in USAGE}
            lines_ended = {"total": counts.total, "completed": counts.completed, "failed": counts.failed, **usage}
            ended = {"state": end, f"{end}_at": time.time(), "owner": None, **lines_ended, **files}
            self._hold(connection, claim, **ended)
            self.lines.drop(connection, claim.batch.id)
            self._deliveries.announce(connection, claim.batch.id, make_notice(claim.batch.id, end))

        await self._database.write(write, lasting=True, bulk=True)

    async def release(self, claim: BatchClaim, delay: float) -> None:
        freed = {"owner": None, "free_at": self._database.now() + delay}
        await self._database.write(lambda c: self._hold(c, claim, **freed))

    async def purge(self, ended_before: float) -> int:
        last = sa.func.coalesce(*(batches.c[f"{state}_at"] for state in ENDED))
        old = batches.c.state.in_(ENDED) & (last < ended_before)

        def drop(connection: sa.Connection) -> int:
            self._deliveries.drop(connection, sa.select(batches.c.id).where(old))
            return connection.execute(batches.delete().where(old)).rowcount

        return await self._database.write(drop, alone=True)

    def _hold(self, connection: sa.Connection, claim: BatchClaim, **values: Any) -> None:
        """Write ``values`` to the claimed batch and renew the lease. Raises JobTaken."""
        mine = (
            (batches.c.id == claim.batch.id)
            & (batches.c.owner == claim.owner)
            & (batches.c.attempt == claim.attempt)
            & _is_live()
        )
        values = {"free_at": self._database.now() + self._lease, **values}
        if connection.execute(batches.update().where(mine).values(**values)).rowcount != 1:
            raise JobTaken(claim.batch.id)


def _is_live() -> sa.ColumnElement[bool]:
    return batches.c.state.not_in(ENDED)


def _end_lines(connection: sa.Connection, which: sa.ColumnElement[bool], state: str, values: Mapping[str, Any]) -> None:
    """End the lines of the batches ``which``, and write ``values`` to these batches, which nobody holds any more."""
    ended = batches.update().where(which).values(**values, owner=None, free_at=0.0).returning(batches.c.id)
    theirs = lines.c.batch.in_(connection.execute(ended).scalars().all())
    connection.execute(lines.update().where(theirs, lines.c.state.in_(("held", "queued"))).values(state=state, body=""))
    connection.execute(lines.update().where(theirs, lines.c.state == "running").values(cancelling=True))


def _count_lines(connection: sa.Connection, ids: Sequence[str]) -> Mapping[str, Counts]:
    if not ids:
        return {}
    query = (
        sa.select(lines.c.batch, lines.c.state, sa.func.count(), *(sa.func.sum(lines.c[name]) for name in USAGE))
        .where(lines.c.batch.in_(ids))
        .group_by(lines.c.batch, lines.c.state)
    )
    found: dict[str, Counts] = {}
    for batch, state, count, *used in connection.execute(query):
        counts = found.get(batch, Counts())
        ended = {state: getattr(counts, state) + count} if state in ("completed", "failed") else {}
        usage = counts.usage + _usage(dict(zip(USAGE, used, strict=True)))
        found[batch] = replace(counts, total=counts.total + count, usage=usage, **ended)
    return found


def _usage(tokens: Mapping[str, int]) -> Usage:
    return Usage(**{name: int(count) for name, count in tokens.items()})


def _batch(row: sa.Row[Any], counts: Counts | None = None) -> Batch:
    values = row._asdict()
    times = {name: values.pop(f"{name}_at") for name in TIMES}
    faults = tuple(LineFault(**fault) for fault in json.loads(values.pop("faults") or "[]"))
    usage = _usage({name: values.pop(name) for name in USAGE})
    stored = Counts(values.pop("total"), values.pop("completed"), values.pop("failed"), usage)
    stated = values.pop("metadata")
    for name in ("owner", "attempt", "free_at"):
        del values[name]
    return Batch(
        **values,
        metadata=None if stated is None else json.loads(stated),
        times={name: time for name, time in times.items() if time is not None},
        faults=faults,
        counts=stored if counts is None else counts,
    )
