"""Deliveries in the service's database."""

import json
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime

import sqlalchemy as sa

from service.deliveries.delivery import Backlog, Delivery, DeliveryClaim, Destination, Notice, Settlement
from service.store.database import Database

FORMAT = 1
"""The version of the table and of what is in it."""

metadata = sa.MetaData()
deliveries = sa.Table(
    "redraft_deliveries",
    metadata,
    sa.Column("job", sa.String, primary_key=True),
    sa.Column("receiver", sa.String, nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("state", sa.String, nullable=False, default="waiting"),
    sa.Column("body", sa.Text),  # once the job has ended
    sa.Column("due", sa.Double),  # when the next attempt is, or when the lease of the one at work ends
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("version", sa.Integer, nullable=False, default=0),  # grows with each claim
    # What the last attempt gave.
    sa.Column("tried", sa.Double),
    sa.Column("status", sa.Integer),
    sa.Column("error", sa.Text),
    sa.Index("redraft_deliveries_by_state", "state", "due"),
)
_PENDING = deliveries.c.state == "pending"


class DeliveryDatabase:
    """A DeliveryStore in a database, and what the stores of jobs and batches do in their own transactions. A batch's id
    takes the place of a job's.

    clock: gives the time of a job's end.

    Makes its table, which blocks. Raises StoreMisconfigured.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        database.prepare("deliveries", metadata, FORMAT)

    def plan(self, connection: sa.Connection, job_id: str, destination: Destination) -> None:
        """Have a notice sent when a new job ends."""
        row = {"job": job_id, "receiver": destination.receiver, "url": destination.url}
        connection.execute(self._database.insert_once(deliveries), row)

    def announce(self, connection: sa.Connection, job_id: str, notice: Notice) -> None:
        """Make the notice of a job that ends due, if there is to be one."""
        now = self._clock()
        waiting = (deliveries.c.job == job_id) & (deliveries.c.state == "waiting")
        due = {"state": "pending", "body": _to_json(job_id, notice, now), "due": now}
        connection.execute(deliveries.update().where(waiting).values(due))

    def drop(self, connection: sa.Connection, job_ids: sa.Select[tuple[str]]) -> None:
        """Drop the deliveries for jobs that are dropped."""
        connection.execute(deliveries.delete().where(deliveries.c.job.in_(job_ids)))

    async def get(self, job_id: str) -> Delivery | None:
        return await self._database.read(lambda c: _find(c, job_id))

    async def claim(self, receivers: Collection[str], now: float, lease: float) -> DeliveryClaim | None:
        def take(connection: sa.Connection) -> DeliveryClaim | None:
            due = _PENDING & (deliveries.c.due <= now) & deliveries.c.receiver.in_(receivers)
            oldest = sa.select(deliveries.c.job).where(due).order_by(deliveries.c.due).limit(1)
            job_id = connection.execute(oldest.with_for_update(skip_locked=True)).scalar_one_or_none()
            if job_id is None:
                return None
            claimed = (
                deliveries.update()
                .where(deliveries.c.job == job_id)
                .values(due=now + lease, attempts=deliveries.c.attempts + 1, version=deliveries.c.version + 1)
                .returning(*deliveries.c)
            )
            row = connection.execute(claimed).one()
            destination = Destination(row.receiver, row.url)
            return DeliveryClaim(job_id, destination, message_id(job_id), row.body, row.attempts, row.version)

        return await self._database.write(take, alone=True)

    async def settle(self, claim: DeliveryClaim, settlement: Settlement) -> bool:
        is_retried = settlement.result == "retried"
        ended = {"state": "pending" if is_retried else settlement.result, "due": settlement.due}
        gave = {"tried": settlement.at, "status": settlement.status, "error": settlement.error}

        def write(connection: sa.Connection) -> bool:
            found = connection.execute(deliveries.update().where(_held(claim)).values(ended | gave))
            if settlement.result == "gone":
                to_it = _PENDING & (deliveries.c.url == claim.destination.url)
                connection.execute(deliveries.update().where(to_it).values(ended))
            return found.rowcount == 1

        return await self._database.write(write, alone=settlement.result == "gone")

    async def release(self, claim: DeliveryClaim, now: float) -> None:
        freed = deliveries.update().where(_held(claim)).values(due=now, attempts=deliveries.c.attempts - 1)
        await self._database.write(lambda c: c.execute(freed))

    async def send_again(self, job_id: str, now: float) -> Delivery | None:
        def write(connection: sa.Connection) -> Delivery | None:
            ended = (deliveries.c.job == job_id) & (deliveries.c.state != "waiting")
            begun = {"state": "pending", "due": now, "attempts": 0, "version": deliveries.c.version + 1}
            connection.execute(deliveries.update().where(ended).values(begun))
            return _find(connection, job_id)

        return await self._database.write(write, lasting=True)

    async def measure(self, now: float, patience: float) -> Backlog:
        pending = sa.select(sa.func.count()).select_from(deliveries).where(_PENDING)
        overdue = pending.where(deliveries.c.due <= now - patience)

        def count(connection: sa.Connection) -> Backlog:
            return Backlog(*(connection.execute(each).scalar_one() for each in (pending, overdue)))

        return await self._database.read(count)


def message_id(job_id: str) -> str:
    """The id of the notice that a job or a batch has ended. There is one, so its id follows from theirs.

    >>> message_id("job-0192"), message_id("batch_0193")
    ('msg-0192', 'msg-0193')
    """
    return f"msg-{job_id.removeprefix('job-').removeprefix('batch_')}"


def _to_json(job_id: str, notice: Notice, now: float) -> str:
    happened = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body = {
        "id": message_id(job_id),
        "object": "event",
        "type": notice.type,
        "timestamp": happened,
        "created_at": int(now),
        "data": notice.data,
    }
    return json.dumps(body, separators=(",", ":"))


def _held(claim: DeliveryClaim) -> sa.ColumnElement[bool]:
    return _PENDING & (deliveries.c.job == claim.job_id) & (deliveries.c.version == claim.version)


def _find(connection: sa.Connection, job_id: str) -> Delivery | None:
    row = connection.execute(sa.select(deliveries).where(deliveries.c.job == job_id)).one_or_none()
    if row is None:
        return None
    return Delivery(row.job, row.url, row.state, row.attempts, row.tried, row.due, row.status, row.error)
