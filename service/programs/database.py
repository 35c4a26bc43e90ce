"""Answers under idempotency keys in the service's database: they survive a restart, and replicas share them."""

import json
import secrets
import time
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from service.errors import KeyReused, StillAtWork
from service.programs.kept_answers import OVERHEAD_BYTES, IdempotencyKey, KeptAnswer
from service.store.database import Database

FORMAT = 1
"""The version of the table and of what is in it."""
PURGE_SECONDS = 30.0
"""How soon what has expired is dropped."""

metadata = sa.MetaData()
answers = sa.Table(
    "redraft_answers",
    metadata,
    sa.Column("caller", sa.String, primary_key=True),
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("fingerprint", sa.String, nullable=False),
    sa.Column("owner", sa.String, nullable=False),  # who has begun; another one each time
    sa.Column("expires", sa.Double, nullable=False),  # when the answer is dropped, or the right to work on it is lost
    sa.Column("size", sa.BigInteger, nullable=False, default=0),
    # The answer, once there is one.
    sa.Column("status", sa.Integer),
    sa.Column("headers", sa.Text),
    sa.Column("body", sa.LargeBinary),
    sa.Index("redraft_answers_by_caller", "caller", "expires", "size"),
    sa.Index("redraft_answers_by_end", "expires"),
)


class AnswerDatabase:
    """An AnswerStore in a database.

    max_bytes: of all answers. Where they need more, the caller who has most loses the oldest.
    seconds: how long an answer is kept.
    lease: seconds after which another service may begin what a lost one has begun.

    Makes its table, which blocks. Raises StoreMisconfigured.
    """

    def __init__(self, database: Database, max_bytes: int, seconds: float, lease: float) -> None:
        self._database = database
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._lease = lease
        self._owned: dict[IdempotencyKey, str] = {}  # what was begun here
        self._purged = -PURGE_SECONDS
        database.prepare("answers", metadata, FORMAT)
        if not database.is_shared:  # the process that has begun them has ended
            database.run_now(lambda c: c.execute(answers.delete().where(answers.c.status.is_(None))))
        self.held_bytes = database.run_now(_held_bytes)

    async def has(self, key: IdempotencyKey) -> bool:
        query = sa.select(answers.c.key).where(_at(key), answers.c.expires > self._database.now())
        return await self._database.read(lambda c: c.execute(query).one_or_none()) is not None

    async def begin(self, key: IdempotencyKey, fingerprint: str) -> KeptAnswer | None:
        owner = secrets.token_hex(8)

        def take(connection: sa.Connection) -> bool:
            """Whether the work is the caller's."""
            now = self._database.now()
            connection.execute(answers.delete().where(_at(key), answers.c.expires <= now))
            row = {"caller": key.caller, "key": key.value, "fingerprint": fingerprint, "owner": owner}
            connection.execute(self._database.insert_once(answers).values(**row, expires=now + self._lease))
            query = sa.select(answers.c.owner, answers.c.fingerprint, answers.c.status).where(_at(key))
            found = connection.execute(query).one_or_none()
            if found is None or found.owner == owner:
                return found is not None
            if found.fingerprint != fingerprint:
                raise KeyReused("the key was used for another request")
            if found.status is None:
                raise StillAtWork("another replica works on the same request")
            return False

        while True:
            if await self._database.write(take, alone=self._database.is_shared):
                self._owned[key] = owner
                return None
            if (answer := await self._read(key)) is not None:  # it may have expired since
                return answer

    async def keep(self, key: IdempotencyKey, fingerprint: str, answer: KeptAnswer) -> None:
        size = len(answer.body) + OVERHEAD_BYTES
        if size > self._max_bytes or self._seconds <= 0:
            await self.release(key)
            return
        row = {
            "caller": key.caller,
            "key": key.value,
            "fingerprint": fingerprint,
            "owner": self._owned.pop(key, None) or secrets.token_hex(8),
            "size": size,
            "status": answer.status,
            "headers": json.dumps([[part.decode("latin-1") for part in header] for header in answer.headers]),
            "body": answer.body,
        }

        def write(connection: sa.Connection) -> bool:
            """Whether nobody else has begun since."""
            values: dict[str, Any] = {**row, "expires": self._database.now() + self._seconds}
            mine = answers.update().where(_at(key), answers.c.owner == row["owner"])
            if not connection.execute(mine.values(values)).rowcount:  # the right was lost; did anybody take it?
                connection.execute(answers.delete().where(_at(key), answers.c.expires <= self._database.now()))
                connection.execute(self._database.insert_once(answers).values(values))
                holder = connection.execute(sa.select(answers.c.owner).where(_at(key))).scalar_one_or_none()
                if holder != row["owner"]:
                    return False
            self._make_room(connection)
            return True

        if not await self._database.write(write, lasting=True, alone=self._database.is_shared):
            raise StillAtWork("another replica works on the same request")

    async def release(self, key: IdempotencyKey) -> None:
        owner = self._owned.pop(key, None)
        if owner is not None:
            mine = answers.delete().where(_at(key), answers.c.owner == owner, answers.c.status.is_(None))
            await self._database.write(lambda c: c.execute(mine))

    async def maintain(self) -> Collection[IdempotencyKey]:
        if time.monotonic() - self._purged >= PURGE_SECONDS:
            self._purged = time.monotonic()
            await self._database.write(self._purge, bulk=True)
        owned = dict(self._owned)
        if not owned:
            return ()
        renewed = (
            answers.update()
            .where(answers.c.owner.in_(owned.values()), answers.c.status.is_(None))
            .values(expires=self._database.now() + self._lease)
            .returning(answers.c.owner)
        )
        held = set(await self._database.write(lambda c: c.execute(renewed).scalars().all()))
        # What was kept or released meanwhile is not lost.
        return [key for key, owner in owned.items() if owner not in held and self._owned.get(key) == owner]

    async def _read(self, key: IdempotencyKey) -> KeptAnswer | None:
        query = sa.select(answers.c.status, answers.c.headers, answers.c.body).where(
            _at(key), answers.c.status.is_not(None)
        )
        row = await self._database.read(lambda c: c.execute(query).one_or_none())
        if row is None:
            return None
        headers = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in json.loads(row.headers))
        return KeptAnswer(row.status, headers, bytes(row.body))

    def _purge(self, connection: sa.Connection) -> None:
        connection.execute(answers.delete().where(answers.c.expires <= self._database.now()))
        self._make_room(connection)

    def _make_room(self, connection: sa.Connection) -> None:
        """Drop answers until the others fit."""
        held = _held_bytes(connection)
        while held > self._max_bytes:
            greediest = (
                sa.select(answers.c.caller)
                .group_by(answers.c.caller)
                .order_by(sa.func.sum(answers.c.size).desc(), answers.c.caller)
                .limit(1)
                .scalar_subquery()
            )
            oldest = (
                sa.select(answers.c.caller, answers.c.key, answers.c.size)
                .where(answers.c.caller == greediest, answers.c.status.is_not(None))
                .order_by(answers.c.expires)
                .limit(1)
            )
            row = connection.execute(oldest).one()
            connection.execute(answers.delete().where(_at(IdempotencyKey(row.caller, row.key))))
            held -= row.size
        self.held_bytes = held


def _at(key: IdempotencyKey) -> sa.ColumnElement[bool]:
    return (answers.c.caller == key.caller) & (answers.c.key == key.value)


def _held_bytes(connection: sa.Connection) -> int:
    return int(connection.execute(sa.select(sa.func.coalesce(sa.func.sum(answers.c.size), 0))).scalar_one())
