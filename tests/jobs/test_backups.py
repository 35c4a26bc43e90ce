"""A backup is taken while jobs run. The database is lost, the backup takes its place, and the jobs go on."""

import asyncio
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from service.store.backup import back_up
from tests.jobs.test_kills import JOBS, SERVICE, calls, results, settings, undisturbed
from tests.support.orders import make_request, make_store
from tests.support.postgres import find_binaries, make_database
from tests.support.process import served

CALLS_BEFORE_THE_BACKUP = 60
CALLS_BEFORE_THE_LOSS = 40


async def run(*command: str | Path, **environment: str) -> tuple[int, str]:
    """The exit status of a command, and what it said."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), env=environment or None, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def run_backup(place: Path, copy: Path) -> tuple[int, str]:
    return await run(sys.executable, "-m", "service", "backup", copy, REDRAFT_STORE=str(place))


async def work_until(folder: Path, count: int) -> None:
    """Return once that many calls have ended."""
    async with asyncio.timeout(60):
        while len(calls(folder)) < count:
            await asyncio.sleep(0.01)


@pytest.mark.timeout(240)
async def test_jobs_go_on_from_a_copy_of_the_file(tmp_path: Path) -> None:
    requests = [make_request(number) for number in range(JOBS)]
    expected, _ = await undisturbed(tmp_path / "undisturbed", requests)
    folder, copy = tmp_path / "lost", tmp_path / "copy.db"
    place = folder / "jobs.db"
    ids = await make_store(place, requests)
    async with served(SERVICE, **settings(folder)) as (process, _):
        await work_until(folder, CALLS_BEFORE_THE_BACKUP)
        await asyncio.to_thread(back_up, str(place), copy)
        await work_until(folder, len(calls(folder)) + CALLS_BEFORE_THE_LOSS)
        process.kill()
        await process.wait()

    for file in folder.glob("jobs.db*"):
        file.unlink()
    mode = copy.stat().st_mode & 0o777
    with closing(sqlite3.connect(copy)) as connection:
        states = {state for (state,) in connection.execute("SELECT state FROM redraft_jobs")}
    copy.rename(place)
    async with served(SERVICE, **settings(folder)) as (_, client):
        found = await results(client, ids)

    assert mode == 0o600
    assert "running" in states
    assert found == expected


@pytest.mark.postgres
@pytest.mark.timeout(240)
async def test_jobs_go_on_from_a_dump(postgres: str, tmp_path: Path) -> None:
    requests = [make_request(number) for number in range(JOBS)]
    expected, _ = await undisturbed(tmp_path / "undisturbed", requests)
    binaries = find_binaries()
    assert binaries is not None
    place, restored, dump = await make_database(postgres), await make_database(postgres), tmp_path / "dump"
    folder = tmp_path / "lost"
    folder.mkdir()
    ids = await make_store(place, requests)
    lease = {"REDRAFT_JOB_LEASE_SECONDS": "5"}
    async with served(SERVICE, **{**settings(folder), **lease, "REDRAFT_STORE": place}) as (process, _):
        await work_until(folder, CALLS_BEFORE_THE_BACKUP)
        dumped = await run(binaries / "pg_dump", "--format=custom", f"--file={dump}", place)
        await work_until(folder, len(calls(folder)) + CALLS_BEFORE_THE_LOSS)
        process.kill()
        await process.wait()

    loaded = await run(binaries / "pg_restore", "--no-owner", f"--dbname={restored}", dump)
    async with served(SERVICE, **{**settings(folder), **lease, "REDRAFT_STORE": restored}) as (_, client):
        found = await results(client, ids)

    assert dumped == loaded == (0, "")
    assert found == expected


async def test_what_was_deleted_is_not_in_the_copy(tmp_path: Path) -> None:
    place, copy = tmp_path / "store.db", tmp_path / "copy.db"
    await make_store(place, [make_request(0, prompt="A secret of the sea.")])
    with closing(sqlite3.connect(place, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = off")
        connection.execute("DELETE FROM redraft_jobs")
    backed_up = await run_backup(place, copy)

    assert backed_up[0] == 0, backed_up[1]
    assert b"A secret of the sea." in place.read_bytes()
    assert b"A secret of the sea." not in copy.read_bytes()


@pytest.mark.parametrize(
    ("store", "reason"),
    [("missing.db", "there is no file"), ("postgresql://somebody@127.0.0.1/jobs", "use pg_dump"), ("", "STORE")],
)
async def test_what_cannot_be_backed_up_is_said(tmp_path: Path, store: str, reason: str) -> None:
    stated = store if "://" in store else str(tmp_path / store)
    command = [sys.executable, "-m", "service", "backup", str(tmp_path / "copy.db")]
    status, said = await run(*command, **({"REDRAFT_STORE": stated} if store else {"PATH": ""}))

    assert status == 1
    assert said.startswith("Cannot back up: ")
    assert reason in said
    assert not (tmp_path / "copy.db").exists()


async def test_a_copy_replaces_no_file(tmp_path: Path) -> None:
    place, copy = tmp_path / "store.db", tmp_path / "copy.db"
    await make_store(place, [])
    copy.write_text("another")
    status, said = await run_backup(place, copy)

    assert (status, copy.read_text()) == (1, "another")
    assert "exists already" in said
