"""Opening the database that the settings name."""

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from service.store.database import Database
from service.store.errors import StoreMisconfigured
from service.store.places import is_postgres


def open_database(place: str, password: str | None = None, *, read_only: bool = False) -> Database:
    """The database at ``place``: a file, which is made if it is missing, or the URL of a Postgres database.

    password: one that the URL leaves out.
    read_only: leave it as it is. Then a service may use the file at the same time.

    Blocks. Raises StoreMisconfigured.
    """
    try:
        file = None if is_postgres(place) else Path(place)
        if file is None:
            engine = _connect_postgres(place, password)
        else:
            engine = _open_file_to_read(file) if read_only else _open_file(file)
        try:
            engine.connect().close()
        except BaseException:
            engine.dispose()
            raise
    except ModuleNotFoundError as error:
        raise StoreMisconfigured(f"it needs redraft's extra 'store': {error}") from error
    except ArgumentError as error:
        raise StoreMisconfigured("the URL of the database is not valid") from error
    except (DBAPIError, OSError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise StoreMisconfigured(f"the database cannot be opened: {cause}") from error
    return Database(engine.execution_options(reading=True) if read_only else engine, file, read_only=read_only)


def _connect_postgres(url: str, password: str | None) -> sa.Engine:
    location = sa.make_url(url).set(drivername="postgresql+psycopg")
    if password is not None:
        location = location.set(password=password)
    engine = sa.create_engine(location, pool_pre_ping=True, hide_parameters=True, connect_args={"connect_timeout": 5})

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        options = connection.get_execution_options()
        if not options.get("reading") and not options.get("lasting"):
            connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")

    return engine


def _open_file(path: Path) -> sa.Engine:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # prompts are nobody else's business
    lock = _lock(path)
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)), hide_parameters=True)

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver begins no transactions, since ``begin`` below does
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA busy_timeout = 30000")
        # Commits wait neither for the disk nor for the log to be moved into the database: FileTransactions does both.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten with zeros

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        statement = "BEGIN" if connection.get_execution_options().get("reading") else "BEGIN IMMEDIATE"
        driver: Any = connection.connection.dbapi_connection
        try:
            driver.execute(statement)  # SQLAlchemy's own way to execute it takes longer than a short write
        except driver.Error as error:
            raise OperationalError(statement, None, error) from error

    @sa.event.listens_for(engine, "engine_disposed")
    def unlock(_: sa.Engine) -> None:
        lock.close()

    return engine


def _open_file_to_read(path: Path) -> sa.Engine:
    def connect() -> sqlite3.Connection:
        address = f"{path.resolve().as_uri()}?mode=ro"
        return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.QueuePool, hide_parameters=True)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def _lock(path: Path) -> IO[bytes]:
    """Keep other processes from the file until this one ends.

    A record lock, because the engine's processes are forks of this one, and do not inherit it.
    """
    lock = path.with_name(f"{path.name}.lock").open("wb")
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise StoreMisconfigured(f"another process uses {path}") from error
    return lock
