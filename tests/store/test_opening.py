"""A store that is off costs nothing, and a file belongs to one process and one user."""

import asyncio
import sqlite3
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.deliveries.database import DeliveryDatabase
from service.jobs.database import JobDatabase
from service.store.errors import StoreMisconfigured
from service.store.opening import open_database
from tests.support.orders import job_store

ROOT = Path(__file__).parents[2]


def run(program: str) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout


def test_without_a_store_nothing_of_a_database_is_imported() -> None:
    program = (
        "import sys\nfrom service.app import create_app\nfrom service.settings import Settings\n"
        "create_app(Settings(engine='scripted'))\n"
        "print(sorted({'sqlalchemy', 'psycopg', 'service.store.database'} & sys.modules.keys()))"
    )
    assert run(program) == "[]\n"


def test_a_second_process_on_the_same_file_is_refused(tmp_path: Path) -> None:
    imports = "from service.store.errors import StoreMisconfigured\nfrom service.store.opening import open_database\n"
    opened = f"open_database({str(tmp_path / 'store.db')!r})"
    program = (
        f"import subprocess, sys\n{imports}store = {opened}\n"
        f"second = '''{imports}"
        f"try:\n    {opened}\nexcept StoreMisconfigured as error:\n    print(error)'''\n"
        "print(subprocess.run([sys.executable, '-c', second], capture_output=True, text=True).stdout)"
    )
    assert run(program).strip() == f"another process uses {tmp_path / 'store.db'}"


def test_tables_of_another_version_are_refused(tmp_path: Path) -> None:
    async def make() -> None:
        async with job_store(tmp_path / "store.db"):
            pass

    asyncio.run(make())
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute("UPDATE redraft_formats SET version = 99 WHERE room = 'jobs'")
    connection.close()
    database = open_database(str(tmp_path / "store.db"))
    deliveries = DeliveryDatabase(database)

    with pytest.raises(StoreMisconfigured, match="version 99 of the tables for jobs"):
        JobDatabase(database, deliveries, lease=15.0)
    asyncio.run(database.close())


@pytest.mark.parametrize("place", ["/proc/store.db", "postgresql://somebody:secret@127.0.0.1:1/jobs", "postgres://"])
def test_a_place_that_cannot_be_used_is_named_without_its_password(place: str) -> None:
    with pytest.raises(StoreMisconfigured) as refused:
        open_database(place)

    assert "secret" not in str(refused.value)


async def test_only_its_owner_reads_the_file(tmp_path: Path) -> None:
    async with job_store(tmp_path / "in" / "store.db"):
        files = {path.name: path.stat().st_mode & 0o77 for path in (tmp_path / "in").iterdir()}

    assert {name: mode for name, mode in files.items() if not name.endswith(".lock")} == {
        "store.db": 0,
        "store.db-wal": 0,
        "store.db-shm": 0,
    }


NOTES = sa.Table("notes", sa.MetaData(), sa.Column("text", sa.Text))


async def test_what_is_deleted_is_in_no_file_once_the_log_is_scrubbed(tmp_path: Path) -> None:
    database = open_database(str(tmp_path / "store.db"))
    database.prepare("notes", NOTES.metadata, 1)
    for number in range(20):
        await database.write(partial(execute, NOTES.insert().values(text=f"Wäves {number}. " * 10 ** (number % 4))))
    await database.write(partial(execute, NOTES.delete().where(NOTES.c.text.not_like("Wäves 7.%"))), lasting=True)
    assert await database.scrub()
    found = files_in(tmp_path)
    await database.close()

    assert [f"Wäves {number}.".encode() in found for number in range(20)] == [number == 7 for number in range(20)]


async def test_the_log_is_not_scrubbed_while_somebody_reads(tmp_path: Path) -> None:
    database = open_database(str(tmp_path / "store.db"))
    database.prepare("notes", NOTES.metadata, 1)
    reader = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM notes").fetchall()
    await database.write(partial(execute, NOTES.insert().values(text="Wäves.")), lasting=True)
    await database._transactions.run_outside(partial(set_patience, 1))

    assert not await database.scrub()
    reader.close()
    assert await database.scrub()
    await database.close()


def test_a_database_knows_which_rooms_it_has(tmp_path: Path) -> None:
    database = open_database(str(tmp_path / "store.db"))
    assert not database.has("notes")
    database.prepare("notes", NOTES.metadata, 1)
    assert database.has("notes")
    asyncio.run(database.close())


def execute(statement: sa.Executable, connection: sa.Connection) -> None:
    connection.execute(statement)


def set_patience(milliseconds: int, connection: sqlite3.Connection) -> None:
    """How long the connection waits for others."""
    connection.execute(f"PRAGMA busy_timeout = {milliseconds}")


def files_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())
