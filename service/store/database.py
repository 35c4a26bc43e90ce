"""The database of the service, in which several rooms keep their tables: SQLite in a file next to the service, or
Postgres, which several services can share."""

import sqlite3
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from service.store.errors import StoreMisconfigured
from service.store.files import FileTransactions
from service.store.transactions import Transactions

T = TypeVar("T")

_formats = sa.Table(
    "redraft_formats",
    sa.MetaData(),
    sa.Column("room", sa.String, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)


class Database:
    """A database that is open. ``file``: where it is, if it is a file. ``read_only``: whether nothing is written."""

    def __init__(self, engine: sa.Engine, file: Path | None = None, *, read_only: bool = False) -> None:
        self.is_shared = file is None
        """Whether other processes use it at the same time."""
        self._read_only = read_only
        self._transactions = Transactions(engine) if file is None else FileTransactions(engine, file)
        self.write = self._transactions.write
        self.read = self._transactions.read
        self.close = self._transactions.close

    def prepare(self, room: str, tables: sa.MetaData, version: int) -> None:
        """Make those of a room's tables and indexes that are missing. Blocks.

        version: of the tables and of what is in them.

        Raises StoreMisconfigured, also if another version of the tables is there, or if a table is missing in a
        database that is only read.
        """
        if self._read_only:
            self.run_now(lambda connection: _expect(connection, room, tables, version))
            return

        def make(connection: sa.Connection) -> None:
            if self.is_shared:  # two services may start at once
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(7265647261667401)"))
            _formats.create(connection, checkfirst=True)
            tables.create_all(connection)
            for table in tables.sorted_tables:
                for index in table.indexes:
                    index.create(connection, checkfirst=True)
            connection.execute(self.insert_once(_formats), {"room": room, "version": version})
            _check_version(connection, room, version)

        self.run_now(make)

    def has(self, room: str) -> bool:
        """Whether a room has tables here, from this process or an earlier one. Blocks. Raises StoreMisconfigured."""

        def look(connection: sa.Connection) -> bool:
            _formats.create(connection, checkfirst=True)
            return connection.execute(sa.select(_formats.c.room).where(_formats.c.room == room)).first() is not None

        return self.run_now(look)

    async def scrub(self) -> bool:
        """Remove what was deleted from SQLite's log, where it is until then; whether that has succeeded. In the
        database itself it has been overwritten with zeros.

        Postgres keeps deleted rows until it vacuums the table, and its log as long as it is configured to.
        """
        if self.is_shared:
            return True
        return await self._transactions.run_outside(_truncate_log)

    def run_now(self, function: Callable[[sa.Connection], T]) -> T:
        """Run a function in a transaction of its own, in this thread. Raises StoreMisconfigured."""
        try:
            return self._transactions.run_now(function)
        except DBAPIError as error:
            raise StoreMisconfigured(f"the database cannot be used: {error.orig}") from error

    @cache  # noqa: B019 - to build a statement takes longer than to execute it, and there is one Database
    def insert_once(self, table: sa.Table) -> sa.Insert:
        """The statement that inserts a row unless it is there already, from a try whose answer was lost."""
        if self.is_shared:
            from sqlalchemy.dialects.postgresql import insert as insert_postgres

            return insert_postgres(table).on_conflict_do_nothing()
        from sqlalchemy.dialects.sqlite import insert as insert_sqlite

        return insert_sqlite(table).on_conflict_do_nothing()

    def now(self) -> Any:
        """The time of the database's own clock, if it has one: those of several services may differ."""
        if self.is_shared:
            return sa.cast(sa.func.extract("epoch", sa.func.clock_timestamp()), sa.Double)
        return sa.literal(time.time())


def _expect(connection: sa.Connection, room: str, tables: sa.MetaData, version: int) -> None:
    there = sa.inspect(connection).get_table_names()
    if missing := [table.name for table in (_formats, *tables.sorted_tables) if table.name not in there]:
        raise StoreMisconfigured(f"the database has no table {missing[0]}: start the service with it first")
    _check_version(connection, room, version)


def _check_version(connection: sa.Connection, room: str, version: int) -> None:
    found = connection.execute(sa.select(_formats.c.version).where(_formats.c.room == room)).scalar_one()
    if found != version:
        raise StoreMisconfigured(
            f"the database has version {found} of the tables for {room}, and this service knows {version}"
        )


def _truncate_log(connection: sqlite3.Connection) -> bool:
    try:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError:
        return False
    return not busy
