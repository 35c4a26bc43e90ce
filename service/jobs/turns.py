"""Turns: of those who wait for the same places, the one who was served longest ago is served next.

So a caller with one job waits for the next free place, however many jobs another caller has queued. Times are counted
in turns: a clock that is set back favours nobody.
"""

import sqlalchemy as sa

from service.store.database import Database

FORMAT = 1
"""The version of the table and of what is in it."""

metadata = sa.MetaData()
turns = sa.Table(
    "redraft_turns",
    metadata,
    sa.Column("queue", sa.String, primary_key=True),
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("served", sa.BigInteger, nullable=False),  # the number of the last turn, which grows in each queue
    sa.Index("redraft_turns_by_number", "queue", "served"),
)


class Turns:
    """Who was served when in one queue.

    queue: its name. Who waits has a name too: a caller's, or the id of a batch.

    Makes its table, which blocks. Raises StoreMisconfigured.
    """

    def __init__(self, database: Database, queue: str) -> None:
        self._database = database
        self._queue = queue
        self._turns = turns.alias(f"turns_of_{queue}")
        database.prepare("turns", metadata, FORMAT)

    @property
    def served(self) -> sa.ColumnElement[int]:
        """What statements with ``join`` sort by. It is 0 for those who were never served."""
        return sa.func.coalesce(self._turns.c.served, 0)

    def join(self, waiting: sa.FromClause, name: sa.ColumnElement[str]) -> sa.FromClause:
        """The rows of those who wait, with their turns. ``name``: the column with their names."""
        return waiting.outerjoin(self._turns, (self._turns.c.queue == self._queue) & (self._turns.c.name == name))

    def note(self, connection: sa.Connection, name: str) -> None:
        """Note that somebody is served now.

        It waits for no other process: where two serve the same caller at the same time, one turn is counted.
        """
        last = sa.select(sa.func.coalesce(sa.func.max(turns.c.served), 0) + 1).where(turns.c.queue == self._queue)
        served = last.scalar_subquery()
        mine = (turns.c.queue == self._queue) & (turns.c.name == name)
        unlocked = sa.select(turns.c.name).where(mine).with_for_update(skip_locked=True)
        noted = turns.update().where(turns.c.queue == self._queue, turns.c.name.in_(unlocked)).values(served=served)
        known = sa.select(turns.c.name).where(mine)
        if connection.execute(noted).rowcount == 0 and connection.execute(known).first() is None:
            row = {"queue": self._queue, "name": name, "served": connection.execute(last).scalar_one()}
            connection.execute(self._database.insert_once(turns), row)

    def drop(self, connection: sa.Connection, name: str) -> None:
        """Forget somebody who waits no more."""
        connection.execute(turns.delete().where(turns.c.queue == self._queue, turns.c.name == name))
