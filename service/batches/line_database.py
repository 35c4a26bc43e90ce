"""The lines of batches in the service's database, as jobs."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from service.batches.batch import ENDPOINTS, line_job_id, parse_line_job_id
from service.batches.tables import USAGE, batches, lines, steps
from service.jobs.job import Claim, Job, JobEvent, JobState, JobTaken, Order, Progress, to_json
from service.jobs.store import Step
from service.jobs.turns import Turns
from service.store.database import Database

OK = 200


class LineDatabase:
    """A WorkStore whose jobs are the lines of the batches at work. Lines have no events.

    Callers take turns, and so do the batches of each caller. The lines of a batch are begun in the order of its file.

    lease: seconds for which a line stays with the process that writes for it.

    Makes the table of turns, which blocks. Raises StoreMisconfigured.
    """

    def __init__(self, database: Database, lease: float) -> None:
        self._callers, self._batches = Turns(database, "lines"), Turns(database, "batches")
        self._database = database
        self._lease = lease
        self._on_ended: Callable[[], None] = lambda: None

    def watch(self, on_ended: Callable[[], None]) -> None:
        """Have ``on_ended`` called whenever a line has ended here."""
        self._on_ended = on_ended

    async def claim(self, owner: str, lease: float) -> Claim | None:
        def take(connection: sa.Connection) -> Claim | None:
            found = self._find_free(connection)
            if found is None:
                return None
            claimed = (
                lines.update()
                .where(lines.c.batch == found.batch, lines.c.number == found.number)
                .values(
                    state="running",
                    owner=owner,
                    attempt=lines.c.attempt + 1,
                    idle_attempts=lines.c.idle_attempts + 1,
                    started=sa.func.coalesce(lines.c.started, time.time()),
                    free_at=self._database.now() + lease,
                )
                .returning(*lines.c)
            )
            line = connection.execute(claimed).one()
            batch = connection.execute(sa.select(batches).where(batches.c.id == line.batch)).one()
            self._callers.note(connection, batch.caller)
            self._batches.note(connection, batch.id)
            return _claim(line, batch, owner)

        return await self._database.write(take, alone=True)

    def _find_free(self, connection: sa.Connection) -> Any:
        """The next line; first those whose process is gone."""
        is_free = lines.c.free_at <= self._database.now()
        named = sa.select(lines.c.batch, lines.c.number).limit(1).with_for_update(skip_locked=True)
        left = named.where(lines.c.state == "running", is_free)
        if (found := connection.execute(left).one_or_none()) is not None:
            return found
        waits = (lines.c.state == "queued") & is_free
        in_order = named.where(waits).order_by(lines.c.number)
        for batch in connection.execute(self._take_turns(waits)).scalars().all():
            if (found := connection.execute(in_order.where(lines.c.batch == batch)).one_or_none()) is not None:
                return found
        return None

    def _take_turns(self, waits: sa.ColumnElement[bool]) -> sa.Select[tuple[str]]:
        """The statement that gives the batches with lines that wait, in the order of their turns."""
        with_turns = self._batches.join(self._callers.join(batches, batches.c.caller), batches.c.id)
        return (
            sa.select(batches.c.id)
            .select_from(with_turns)
            .where(batches.c.state == "in_progress", sa.exists().where(lines.c.batch == batches.c.id, waits))
            .order_by(self._callers.served, self._batches.served, batches.c.id)
        )

    def drop(self, connection: sa.Connection, batch_id: str) -> None:
        """Drop the lines of a batch that has ended, with everything of theirs."""
        for table in (lines, steps):
            connection.execute(table.delete().where(table.c.batch == batch_id))
        self._batches.drop(connection, batch_id)

    async def renew(self, owner: str, lease: float, job_ids: Collection[str] | None = None) -> Mapping[str, bool]:
        mine = (lines.c.owner == owner) & (lines.c.state == "running")
        if job_ids is not None:
            mine &= sa.tuple_(lines.c.batch, lines.c.number).in_([parse_line_job_id(job_id) for job_id in job_ids])
        renewed = (
            lines.update()
            .where(mine)
            .values(free_at=self._database.now() + lease)
            .returning(lines.c.batch, lines.c.number, lines.c.cancelling)
        )
        rows = await self._database.write(lambda c: c.execute(renewed).all())
        return {line_job_id(row.batch, row.number): row.cancelling for row in rows}

    async def steps(self, job_id: str) -> Sequence[Step]:
        batch, number = parse_line_job_id(job_id)
        query = sa.select(steps.c.key, steps.c.occurrence, steps.c.result, steps.c.seconds).where(
            steps.c.batch == batch, steps.c.number == number
        )
        return [Step(*row) for row in await self._database.read(lambda c: c.execute(query).all())]

    async def record(self, claim: Claim, step: Step, worked: float) -> None:
        batch, number = parse_line_job_id(claim.job.id)

        def write(connection: sa.Connection) -> None:
            self._hold(connection, claim, worked=worked, idle_attempts=0)
            connection.execute(self._database.insert_once(steps), {"batch": batch, "number": number, **asdict(step)})

        await self._database.write(write)

    async def append(self, claim: Claim, event: JobEvent, progress: Progress) -> None:
        pass

    async def finish(self, claim: Claim, state: JobState, event: JobEvent, progress: Progress) -> None:
        batch, number = parse_line_job_id(claim.job.id)
        ended = {"body": "", "owner": None, **_outcome(state, event)}

        def write(connection: sa.Connection) -> None:
            self._hold(connection, claim, **ended)
            connection.execute(steps.delete().where(steps.c.batch == batch, steps.c.number == number))

        await self._database.write(write, lasting=True)
        self._on_ended()

    async def release(self, claim: Claim, worked: float, delay: float) -> None:
        freed = {"free_at": self._database.now() + delay, "idle_attempts": 0}
        await self._database.write(lambda c: self._hold(c, claim, state="queued", owner=None, worked=worked, **freed))

    async def purge(self, ended_before: float) -> int:
        return 0  # lines are dropped with their batches

    def _hold(self, connection: sa.Connection, claim: Claim, **values: Any) -> None:
        """Write ``values`` to the claimed line and renew the lease. Raises JobTaken."""
        batch, number = parse_line_job_id(claim.job.id)
        mine = (
            (lines.c.batch == batch)
            & (lines.c.number == number)
            & (lines.c.owner == claim.owner)
            & (lines.c.attempt == claim.attempt)
            & (lines.c.state == "running")
        )
        values = {"free_at": self._database.now() + self._lease, **values}
        if connection.execute(lines.update().where(mine).values(**values)).rowcount != 1:
            raise JobTaken(claim.job.id)


def _outcome(state: JobState, event: JobEvent) -> Mapping[str, Any]:
    if state == "cancelled" and event.name == "error":
        return {"state": "cancelled"}
    answer = dict(event.data)
    usage = answer.pop("usage", None) or {}
    answered = "completed" if answer["status_code"] == OK else "failed"
    return {"state": answered, "answer": to_json(answer), **{name: usage[name] for name in USAGE if name in usage}}


def _claim(line: sa.Row[Any], batch: sa.Row[Any], owner: str) -> Claim:
    kind = ENDPOINTS[batch.endpoint]
    return Claim(
        job=Job(
            id=line_job_id(line.batch, line.number),
            caller=batch.caller,
            kind=kind,
            state="running",
            created=batch.in_progress_at,
            started=line.started,
            cancelling=line.cancelling,
        ),
        order=Order(kind, line.body, batch.caller, batch.request_id, line.fence, line.seed),
        owner=owner,
        attempt=line.attempt,
        idle_attempts=line.idle_attempts,
        worked=line.worked,
        events=0,
        keys=frozenset(),
    )
