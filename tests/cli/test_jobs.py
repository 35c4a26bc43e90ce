"""``python -m service jobs``, ``watch`` and ``cancel`` against the whole service over real HTTP."""

import json
from pathlib import Path

import pytest

from service.engines.scripted import Script
from tests.cli.test_ask import Run, at, run
from tests.support.receiver import ReceiverServer
from tests.support.serving import Served, reply, serving

__all__ = ["run"]


async def test_a_job_is_begun_listed_and_watched(working: Served, run: Run) -> None:
    begun = await run("refine", "Write about the sea.", *at(working), "--background", "--rounds", "1")
    job = begun.out.strip()
    watched = await run("watch", job, *at(working))
    listed = await run("jobs", *at(working))

    assert (begun.code, watched.code, listed.code) == (0, 0, 0)
    assert watched.out == "Waves.\n"
    assert "round 1: nothing better, the best is c0" in watched.err
    [line] = listed.out.splitlines()
    assert line.startswith(job)
    assert line.split()[3:] == ["refine", "completed", "round", "1", "score", "0.40"]


async def test_jobs_and_results_are_printed_as_json(working: Served, run: Run) -> None:
    for _ in range(2):
        job = (await run("refine", "Write.", *at(working), "--background", "--rounds", "0")).out.strip()
    watched = await run("watch", job, *at(working), "--json")
    listed = await run("jobs", *at(working), "--json", "--limit", "1")

    assert json.loads(watched.out)["text"] == "Waves."
    assert [json.loads(line)["id"] for line in listed.out.splitlines()] == [job]


async def test_a_job_is_cancelled(tmp_path: Path, run: Run) -> None:
    async with serving(Script(reply=reply, seconds_per_call=60), store=str(tmp_path / "jobs.db")) as served:
        job = (await run("refine", "Write.", *at(served), "--background")).out.strip()
        cancelled = await run("cancel", job, *at(served))
        watched = await run("watch", job, *at(served))

    assert cancelled.code == 0
    assert cancelled.out.split()[4] == "cancelled"
    assert (watched.code, watched.out) == (1, "")
    assert "The job was cancelled" in watched.err


async def test_a_notice_is_shown_and_sent_again(tmp_path: Path, run: Run) -> None:
    async with ReceiverServer().listening() as server:
        receivers = {"billing": server.configuration(tmp_path)}
        async with serving(store=str(tmp_path / "jobs.db"), notice_receivers=receivers) as served:
            begun = await run("refine", "Write.", *at(served), "--notify", server.url, "--rounds", "0")
            await server.until(1)
            job = begun.out.strip()
            while "delivered" not in (shown := await run("notice", job, *at(served))).out:
                pass
            again = await run("notice", job, *at(served), "--again", "--json")
            await server.until(2)

    assert shown.out == f"delivered  {server.url}  attempts 1  status 204\n"
    assert (again.code, json.loads(again.out)["state"]) == (0, "pending")
    assert [seen.body["data"]["id"] for seen in server.seen] == [job, job]


@pytest.mark.parametrize("command", ["watch", "cancel", "notice"])
async def test_a_job_that_is_unknown_is_a_failure(working: Served, run: Run, command: str) -> None:
    ended = await run(command, "job-0", *at(working))

    assert (ended.code, ended.out) == (1, "")
    assert "there is no job job-0" in ended.err
