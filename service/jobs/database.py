"""Jobs in the service's database."""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

import sqlalchemy as sa

from service.deliveries.database import DeliveryDatabase
from service.deliveries.delivery import Destination
from service.jobs.job import Claim, Job, JobEvent, JobState, JobTaken, Once, Order, Progress, make_notice, to_json
from service.jobs.store import LiveJobs, Step
from service.jobs.turns import Turns
from service.store.database import Database

FORMAT = 3
"""The version of the tables and of what is in them."""

metadata = sa.MetaData()
jobs = sa.Table(
    "redraft_jobs",
    metadata,
    # What the caller sees.
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("caller", sa.String, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("cancelling", sa.Boolean, nullable=False, default=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("started", sa.Double),
    sa.Column("finished", sa.Double),
    sa.Column("bytes", sa.BigInteger, nullable=False),  # before what is long, so that it is read without that
    sa.Column("progress", sa.Text, nullable=False),
    sa.Column("stated", sa.Text),
    sa.Column("outcome", sa.Text),
    # What an attempt needs.
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("request_id", sa.String, nullable=False),
    sa.Column("fence", sa.String, nullable=False),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("worked", sa.Double, nullable=False, default=0.0),
    # Who works on it.
    sa.Column("owner", sa.String),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("idle_attempts", sa.Integer, nullable=False, default=0),
    sa.Column("free_at", sa.Double, nullable=False, default=0.0),  # when the lease or the delay is over
    sa.Index("redraft_jobs_by_caller", "caller", "id"),
    sa.Index("redraft_jobs_by_turn", "state", "free_at", "cancelling", "caller", "id"),  # all that a claim looks at
    sa.Index("redraft_jobs_by_end", "finished"),
)
steps = sa.Table(
    "redraft_job_steps",
    metadata,
    sa.Column("job", sa.String, primary_key=True),
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("occurrence", sa.Integer, primary_key=True),
    sa.Column("result", sa.Text, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
)
events = sa.Table(
    "redraft_job_events",
    metadata,
    sa.Column("job", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("data", sa.Text, nullable=False),
)
keys = sa.Table(
    "redraft_job_keys",
    metadata,
    sa.Column("caller", sa.String, primary_key=True),
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("fingerprint", sa.String, nullable=False),
    sa.Column("job", sa.String, nullable=False, index=True),
)

SHOWN = [
    jobs.c[name]
    for name in ("id", "caller", "kind", "state", "cancelling", "created", "started", "finished", "progress")
]


class JobDatabase:
    """A JobStore in a database.

    deliveries: the notices of jobs' ends, which are written in the same transactions.
    lease: seconds for which a job stays with the process that writes for it.

    Makes its tables, which blocks. Raises StoreMisconfigured.
    """

    def __init__(self, database: Database, deliveries: DeliveryDatabase, lease: float) -> None:
        self._database = database
        self._deliveries = deliveries
        self._lease = lease
        self._turns = Turns(database, "jobs")
        database.prepare("jobs", metadata, FORMAT)
        if not database.is_shared:  # the process that worked on them has ended
            database.run_now(lambda c: c.execute(jobs.update().where(jobs.c.state == "running").values(free_at=0.0)))

    async def add(self, job: Job, order: Order, once: Once | None = None, notify: Destination | None = None) -> str:
        row = {
            **{name: getattr(job, name) for name in ("id", "caller", "kind", "state", "created")},
            **{name: getattr(order, name) for name in ("body", "request_id", "fence", "seed")},
            "progress": to_json(asdict(job.progress)),
            "stated": None if job.stated is None else to_json(job.stated),
        }
        row["bytes"] = _size(order.body) + _size(row["stated"] or "")

        def write(connection: sa.Connection) -> str:
            kept = job.id if once is None else self._take_key(connection, job, once)
            if kept == job.id:
                connection.execute(self._database.insert_once(jobs), row)
                if notify is not None:
                    self._deliveries.plan(connection, job.id, notify)
            return kept

        return await self._database.write(write, lasting=True, alone=once is not None)

    def _take_key(self, connection: sa.Connection, job: Job, once: Once) -> str:
        """Put the job under its key, unless there is one already: the id of the one that is there then."""
        here = (keys.c.caller == job.caller) & (keys.c.key == once.key)
        connection.execute(keys.delete().where(here, keys.c.fingerprint != once.fingerprint))
        row = {"caller": job.caller, "key": once.key, "fingerprint": once.fingerprint, "job": job.id}
        connection.execute(self._database.insert_once(keys), row)
        return str(connection.execute(sa.select(keys.c.job).where(here)).scalar_one())

    async def get(self, job_id: str) -> Job | None:
        query = sa.select(*SHOWN, jobs.c.stated, jobs.c.outcome).where(jobs.c.id == job_id)
        row = await self._database.read(lambda c: c.execute(query).one_or_none(), brief=True)
        return None if row is None else _job(row._asdict())

    async def list(self, caller: str, limit: int, before: str | None = None) -> Sequence[Job]:
        query = sa.select(*SHOWN).where(jobs.c.caller == caller).order_by(jobs.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(jobs.c.id < before)
        return [_job(row._asdict()) for row in await self._database.read(lambda c: c.execute(query).all())]

    async def events(self, job_id: str, after: int) -> Sequence[JobEvent]:
        query = (
            sa.select(events.c.number, events.c.name, events.c.data)
            .where(events.c.job == job_id, events.c.number > after)
            .order_by(events.c.number)
        )
        rows = await self._database.read(lambda c: c.execute(query).all(), brief=True)
        return [_event(row._asdict()) for row in rows]

    async def count_queued(self) -> int:
        query = sa.select(sa.func.count()).select_from(jobs).where(jobs.c.state == "queued")
        return await self._database.read(lambda c: int(c.execute(query).scalar_one()), brief=True)

    async def measure(self) -> LiveJobs:
        live = sa.select(jobs.c.state, sa.func.count(), sa.func.min(jobs.c.created))
        query = live.where(jobs.c.state.in_(("queued", "running"))).group_by(jobs.c.state)
        rows = await self._database.read(lambda c: c.execute(query).all())
        found = {state: (count, oldest) for state, count, oldest in rows}
        queued, oldest = found.get("queued", (0, None))
        return LiveJobs(queued, found.get("running", (0, None))[0], oldest)

    async def held(self, caller: str | None) -> int:
        query = sa.select(sa.func.coalesce(sa.func.sum(jobs.c.bytes), 0))
        if caller is not None:
            query = query.where(jobs.c.caller == caller)
        return await self._database.read(lambda c: int(c.execute(query).scalar_one()))

    async def cancel(self, job_id: str, event: JobEvent) -> bool:
        def note(connection: sa.Connection) -> bool:
            live = (jobs.c.id == job_id) & jobs.c.state.in_(("queued", "running"))
            untouched = live & (jobs.c.attempt == 0)
            outcome = to_json(event.data)
            ended = {"state": "cancelled", "finished": time.time(), "outcome": outcome, "body": ""}
            body = connection.execute(sa.select(jobs.c.body).where(untouched)).scalar_one_or_none() or ""
            ended["bytes"] = jobs.c.bytes - _size(body) + 2 * _size(outcome)
            end = jobs.update().where(untouched).values(cancelling=True, **ended).returning(jobs.c.kind)
            if (kind := connection.execute(end).scalar_one_or_none()) is not None:
                connection.execute(self._database.insert_once(events), _event_row(job_id, event))
                self._deliveries.announce(connection, job_id, make_notice(job_id, kind, "cancelled"))
                return True
            connection.execute(jobs.update().where(live).values(cancelling=True))
            # One that waits need not wait any longer.
            connection.execute(jobs.update().where(live, jobs.c.state == "queued").values(free_at=0.0))
            return False

        return await self._database.write(note, lasting=True, alone=True)

    async def delete(self, job_id: str) -> None:
        def drop(connection: sa.Connection) -> None:
            self._deliveries.drop(connection, sa.select(jobs.c.id).where(jobs.c.id == job_id))
            for column in (steps.c.job, events.c.job, keys.c.job, jobs.c.id):
                connection.execute(column.table.delete().where(column == job_id))

        await self._database.write(drop, lasting=True, alone=True)

    async def claim(self, owner: str, lease: float) -> Claim | None:
        def take(connection: sa.Connection) -> Claim | None:
            found = connection.execute(self._find_next()).one_or_none()
            if found is None:
                return None
            job_id = found.id
            self._turns.note(connection, found.caller)
            claimed = (
                jobs.update()
                .where(jobs.c.id == job_id)
                .values(
                    state="running",
                    owner=owner,
                    attempt=jobs.c.attempt + 1,
                    idle_attempts=jobs.c.idle_attempts + 1,
                    started=sa.func.coalesce(jobs.c.started, time.time()),
                    free_at=self._database.now() + lease,
                )
                .returning(*jobs.c)
            )
            row = connection.execute(claimed).one()._asdict()
            query = sa.select(events.c.number, events.c.name, events.c.data).where(events.c.job == job_id)
            known = [_event(found._asdict()) for found in connection.execute(query)]
            return Claim(
                job=_job(row),
                order=Order(row["kind"], *(row[name] for name in ("body", "caller", "request_id", "fence", "seed"))),
                owner=owner,
                attempt=row["attempt"],
                idle_attempts=row["idle_attempts"],
                worked=row["worked"],
                events=len(known),
                keys=frozenset(event.key for event in known),
            )

        return await self._database.write(take, alone=True)

    def _find_next(self) -> sa.Select[tuple[str, str]]:
        """The statement that finds the job to work on next, and keeps it from other processes."""
        is_free = jobs.c.state.in_(("queued", "running")) & (jobs.c.free_at <= self._database.now())
        first = (jobs.c.cancelling.desc(), (jobs.c.state == "running").desc())
        return (
            sa.select(jobs.c.id, jobs.c.caller)
            .select_from(self._turns.join(jobs, jobs.c.caller))
            .where(is_free)
            .order_by(*first, self._turns.served, jobs.c.id)
            .limit(1)
            .with_for_update(of=jobs, skip_locked=True)
        )

    async def renew(self, owner: str, lease: float, job_ids: Collection[str] | None = None) -> Mapping[str, bool]:
        mine = (jobs.c.owner == owner) & (jobs.c.state == "running")
        renewed = (
            jobs.update()
            .where(mine if job_ids is None else mine & jobs.c.id.in_(job_ids))
            .values(free_at=self._database.now() + lease)
            .returning(jobs.c.id, jobs.c.cancelling)
        )
        rows = await self._database.write(lambda c: c.execute(renewed).all())
        return {row.id: row.cancelling for row in rows}

    async def steps(self, job_id: str) -> Sequence[Step]:
        query = sa.select(steps.c.key, steps.c.occurrence, steps.c.result, steps.c.seconds).where(steps.c.job == job_id)
        return [Step(*row) for row in await self._database.read(lambda c: c.execute(query).all(), brief=True)]

    async def record(self, claim: Claim, step: Step, worked: float) -> None:
        def write(connection: sa.Connection) -> None:
            self._hold(connection, claim, worked=worked, idle_attempts=0)
            connection.execute(self._database.insert_once(steps), {"job": claim.job.id, **asdict(step)})

        await self._database.write(write)

    async def append(self, claim: Claim, event: JobEvent, progress: Progress) -> None:
        def write(connection: sa.Connection) -> None:
            row = _event_row(claim.job.id, event)
            self._hold(connection, claim, progress=to_json(asdict(progress)), more=_size(row["data"]))
            connection.execute(self._database.insert_once(events), row)

        await self._database.write(write)

    async def finish(self, claim: Claim, state: JobState, event: JobEvent, progress: Progress) -> None:
        outcome = to_json(event.data)
        ended = {"state": state, "finished": time.time(), "outcome": outcome, "body": "", "owner": None}
        more = 2 * _size(outcome) - _size(claim.order.body)  # the outcome is that of the last event too

        def write(connection: sa.Connection) -> None:
            self._hold(connection, claim, progress=to_json(asdict(progress)), more=more, **ended)
            connection.execute(self._database.insert_once(events), _event_row(claim.job.id, event))
            connection.execute(steps.delete().where(steps.c.job == claim.job.id))
            notice = make_notice(claim.job.id, claim.job.kind, state)
            self._deliveries.announce(connection, claim.job.id, notice)

        await self._database.write(write, lasting=True)

    async def release(self, claim: Claim, worked: float, delay: float) -> None:
        def write(connection: sa.Connection) -> None:
            self._hold(connection, claim, state="queued", owner=None, worked=worked)
            freed = {"free_at": self._database.now() + delay, "idle_attempts": 0}
            connection.execute(jobs.update().where(jobs.c.id == claim.job.id).values(**freed))

        await self._database.write(write)

    async def purge(self, ended_before: float) -> int:
        def drop(connection: sa.Connection) -> int:
            old = sa.select(jobs.c.id).where(jobs.c.finished < ended_before)
            connection.execute(events.delete().where(events.c.job.in_(old)))
            connection.execute(keys.delete().where(keys.c.job.in_(old)))
            self._deliveries.drop(connection, old)
            return connection.execute(jobs.delete().where(jobs.c.finished < ended_before)).rowcount

        return await self._database.write(drop, bulk=True)

    def _hold(self, connection: sa.Connection, claim: Claim, **values: Any) -> None:
        """Write ``values`` to the claimed job and renew the lease. The row stays locked until the transaction ends, so
        nobody else can claim the job before all of the write is there. Raises JobTaken.

        more: bytes by which the job grows.
        """
        mine = {"its_id": claim.job.id, "its_owner": claim.owner, "its_attempt": claim.attempt}
        statement = self._holding(tuple(values))
        until = {} if self._database.is_shared else {"until": time.time() + self._lease}
        if connection.execute(statement, {**mine, **values, **until}).rowcount != 1:
            raise JobTaken(claim.job.id)

    @cache  # noqa: B019 - to build a statement takes longer than to execute it, and there is one Database
    def _holding(self, names: tuple[str, ...]) -> sa.Update:
        """The statement that writes these columns."""
        mine = (
            (jobs.c.id == sa.bindparam("its_id"))
            & (jobs.c.owner == sa.bindparam("its_owner"))
            & (jobs.c.attempt == sa.bindparam("its_attempt"))
            & (jobs.c.state == "running")
        )
        until = self._database.now() + self._lease if self._database.is_shared else sa.bindparam("until")
        values: dict[str, Any] = {name: sa.bindparam(name) for name in names if name != "more"}
        if "more" in names:
            values["bytes"] = jobs.c.bytes + sa.bindparam("more")
        return jobs.update().where(mine).values({"free_at": until, **values})


def _job(row: Mapping[str, Any]) -> Job:
    shown = {column.name: row[column.name] for column in SHOWN if column.name != "progress"}
    return Job(
        **shown,
        progress=Progress(**json.loads(row["progress"])),
        stated=_document(row.get("stated")),
        outcome=_document(row.get("outcome")),
    )


def _document(text: str | None) -> Mapping[str, Any] | None:
    document: Mapping[str, Any] | None = None if text is None else json.loads(text)
    return document


def _size(text: str) -> int:
    return len(text.encode())


def _event(row: Mapping[str, Any]) -> JobEvent:
    return JobEvent(row["number"], row["name"], json.loads(row["data"]))


def _event_row(job_id: str, event: JobEvent) -> dict[str, Any]:
    return {"job": job_id, "number": event.number, "name": event.name, "data": to_json(event.data)}
