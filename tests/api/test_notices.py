"""Notices of jobs' ends, asked for over HTTP and received over HTTP."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from redraft import AsyncRedraft
from service.engines.scripted import Script
from service.settings import Settings
from tests.api.test_jobs import REFINE, at_work, ended
from tests.support.receiver import SECRET, ReceiverServer
from tests.support.serving import Served, listening, reply, serving


@asynccontextmanager
async def notifying(
    folder: Path, server: ReceiverServer, script: Script | None = None, **settings: Any
) -> AsyncIterator[Served]:
    receivers = {"billing": server.configuration(folder)}
    async with serving(script, store=str(folder / "jobs.db"), notice_receivers=receivers, **settings) as served:
        yield served


async def begin(served: Served, url: str, body: dict[str, Any] = REFINE, **headers: str) -> str:
    """The address of a new job, with a notice of its end to a URL."""
    prefer = f'respond-async, callback; url="{url}"'
    response = await served.post("/v1/refine", body, headers={"Prefer": prefer, **headers})
    assert response.status_code == 202, response.text
    assert response.headers["preference-applied"] == "respond-async, callback"
    return response.headers["location"]


async def notice(served: Served, job: str, state: str) -> dict[str, Any]:
    """What became of a job's notice, once it is in that state."""
    async with asyncio.timeout(20):
        while (body := (await served.client.get(f"{job}/notice")).json())["state"] != state:
            await asyncio.sleep(0.005)
    found: dict[str, Any] = body
    return found


async def test_a_receiver_hears_once_that_a_job_has_ended_and_sees_no_text(tmp_path: Path) -> None:
    async with ReceiverServer().listening() as server, notifying(tmp_path, server) as served:
        job = await begin(served, f"{server.url}/42?a=b,c;d")
        body = await ended(served, job)
        found = await notice(served, job, "delivered")

    [seen] = server.seen
    assert seen.path == "/hooks/42"
    assert seen.body == {
        "id": body["id"].replace("job", "msg"),
        "object": "event",
        "type": "job.completed",
        "timestamp": seen.body["timestamp"],
        "created_at": int(datetime.fromisoformat(seen.body["timestamp"]).timestamp()),
        "data": {"id": body["id"], "kind": "refine", "state": "completed"},
    }
    assert abs_seconds(seen.body["timestamp"], body["finished_at"]) < 5
    assert found == {
        "url": f"{server.url}/42?a=b,c;d",
        "state": "delivered",
        "attempts": 1,
        "attempted_at": found["attempted_at"],
        "next_attempt_at": None,
        "status": 204,
        "error": None,
    }


def abs_seconds(one: str, other: str) -> float:
    return abs((datetime.fromisoformat(one) - datetime.fromisoformat(other)).total_seconds())


async def test_jobs_that_fail_or_are_cancelled_have_notices_too(tmp_path: Path) -> None:
    slow = Script(reply=reply, seconds_per_call=60)
    async with ReceiverServer().listening() as server, notifying(tmp_path, server, slow, max_jobs=1) as served:
        failed = await begin(served, server.url, {"prompt": "word " * 9_000})
        await notice(served, failed, "delivered")
        running = await begin(served, server.url)
        await at_work(served)
        waiting = await begin(served, server.url)
        for job in (waiting, running):
            await served.client.delete(job)
            await notice(served, job, "delivered")

    assert [(seen.body["type"], seen.body["data"]["id"]) for seen in server.seen] == [
        ("job.failed", failed.rpartition("/")[2]),
        ("job.cancelled", waiting.rpartition("/")[2]),
        ("job.cancelled", running.rpartition("/")[2]),
    ]


async def test_a_notice_is_sent_again_by_hand_under_the_same_id(tmp_path: Path) -> None:
    async with ReceiverServer([410, 204]).listening() as server, notifying(tmp_path, server) as served:
        job = await begin(served, server.url)
        gone = await notice(served, job, "gone")
        response = await served.client.post(f"{job}/notice")
        await notice(served, job, "delivered")

    assert (gone["status"], gone["attempts"]) == (410, 1)
    assert (response.status_code, response.json()["state"], response.json()["attempts"]) == (202, "pending", 0)
    first, second = server.seen
    assert (first.message_id, first.raw) == (second.message_id, second.raw)


async def test_the_notice_of_a_job_that_has_not_ended_waits(tmp_path: Path) -> None:
    slow = Script(reply=reply, seconds_per_call=60)
    async with ReceiverServer().listening() as server, notifying(tmp_path, server, slow) as served:
        job = await begin(served, server.url)
        before = (await served.client.get(f"{job}/notice")).json()
        response = await served.client.post(f"{job}/notice")

    assert (before["state"], before["attempts"], before["attempted_at"]) == ("waiting", 0, None)
    assert (response.status_code, response.json()) == (202, before)
    assert server.seen == []


@pytest.mark.parametrize("callback", ['callback; url="https://elsewhere.example/"', "callback", 'callback; url="'])
async def test_a_url_that_the_operator_does_not_allow_is_refused(tmp_path: Path, callback: str) -> None:
    async with ReceiverServer().listening() as server, notifying(tmp_path, server) as served:
        response = await served.post("/v1/refine", REFINE, headers={"Prefer": f"respond-async, {callback}"})
        jobs = (await served.client.get("/v1/jobs")).json()["jobs"]

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == ["prefer"]
    assert response.json()["detail"] == "prefer: callback: the operator allows no notices to this URL"
    assert jobs == []


async def test_without_receivers_a_callback_is_refused_and_without_jobs_it_is_ignored(
    working: Served, served: Served
) -> None:
    prefer = {"Prefer": 'respond-async, callback; url="https://hooks.example.com/"'}
    refused = await working.post("/v1/refine", REFINE, headers=prefer)
    ignored = await served.post("/v1/refine", REFINE, headers=prefer)

    assert refused.status_code == 422
    assert "REDRAFT_NOTICE_RECEIVERS" in refused.json()["detail"]
    assert ignored.status_code == 200
    assert "preference-applied" not in ignored.headers


async def test_a_callback_alone_makes_no_job(tmp_path: Path) -> None:
    async with ReceiverServer().listening() as server, notifying(tmp_path, server) as served:
        response = await served.post("/v1/refine", REFINE, headers={"Prefer": f'callback; url="{server.url}"'})

    assert response.status_code == 200
    assert "preference-applied" not in response.headers
    assert server.seen == []


async def test_nobody_sees_the_notice_of_another_or_of_a_job_without_one(tmp_path: Path) -> None:
    keys = ",".join(f"{name}:{hashlib.sha256(name.encode()).hexdigest()}" for name in ("ann", "ben"))
    ann, ben = ({"Authorization": f"Bearer {name}"} for name in ("ann", "ben"))
    async with (
        ReceiverServer().listening() as server,
        notifying(tmp_path, server, api_keys=keys, allowed_hosts=["*"]) as served,
    ):
        job = await begin(served, server.url, Authorization=ann["Authorization"])
        other = (await served.post("/v1/refine", REFINE, headers={"Prefer": "respond-async", **ann})).headers[
            "location"
        ]
        found = [
            (await served.client.request(method, f"{path}/notice", headers=headers)).status_code
            for method in ("GET", "POST")
            for path, headers in ((job, ben), (other, ann), ("/v1/jobs/job-0", ann), (job, {}))
        ]
        mine = (await served.client.get(f"{job}/notice", headers=ann)).status_code

    assert found == [404, 404, 404, 401] * 2
    assert mine == 200


async def test_notices_go_on_after_a_restart(tmp_path: Path) -> None:
    server = ReceiverServer()
    async with server.listening():
        pass  # it has a port now, at which nobody listens
    async with notifying(tmp_path, server) as served:
        job = await begin(served, server.url)
        failed = await notice(served, job, "pending")
        while failed["attempted_at"] is None:
            failed = await notice(served, job, "pending")
    async with server.listening(), notifying(tmp_path, server) as served:
        found = await notice(served, job, "delivered")

    assert failed["error"] == "no connection could be made"
    assert found["attempts"] == failed["attempts"] + 1
    assert len(server.seen) == 1


def test_receivers_need_a_store(tmp_path: Path) -> None:
    configured = {"billing": ReceiverServer(port=9).configuration(tmp_path)}
    with pytest.raises(ValidationError, match="REDRAFT_NOTICE_RECEIVERS needs REDRAFT_STORE"):
        Settings(engine="scripted", notice_receivers=configured)


def test_receivers_are_read_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured = {"billing": ReceiverServer(port=9).configuration(tmp_path)}
    monkeypatch.setenv("REDRAFT_NOTICE_RECEIVERS", json.dumps(configured))
    monkeypatch.setenv("REDRAFT_STORE", str(tmp_path / "jobs.db"))

    assert Settings(engine="scripted").notice_receivers["billing"].url == "http://127.0.0.1:9/hooks"


async def test_the_receiver_in_the_guide_reads_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = (Path(__file__).parents[2] / "docs/guide/webhooks.md").read_text()
    [snippet] = re.findall(r"^```python\n(import os\n.*?)^```$", document, re.MULTILINE | re.DOTALL)
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    scope: dict[str, Any] = {}
    exec(snippet, scope)
    async with listening(scope["app"]) as url:
        server = ReceiverServer(port=int(url.rpartition(":")[2]))
        configured = server.configuration(tmp_path, url=f"{url}/redraft")
        async with serving(store=str(tmp_path / "jobs.db"), notice_receivers={"billing": configured}) as served:
            async with AsyncRedraft(str(served.client.base_url)) as client:
                await scope["client"].aclose()
                scope["client"] = client
                job = await begin(served, f"{url}/redraft")
                await notice(served, job, "delivered")
                await served.client.post(f"{job}/notice")
                await notice(served, job, "delivered")
            forged = await served.client.post(f"{url}/redraft", json={"type": "job.completed"})

    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("job.completed {'id': 'ref-")
    assert scope["handled"] == {f"msg-{job.rpartition('job-')[2]}"}
    assert forged.status_code == 400
