"""Requests that are answered in the background, over HTTP."""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.engines.scripted import EngineCall, Script
from tests.support.orders import comparable
from tests.support.serving import Served, reply, serving

PREFER = {"Prefer": "respond-async"}
REFINE = {"prompt": "Write about the sea.", "search": {"rounds": 2}, "sampling": {"seed": 3}}
SALT = {"type": "keywords", "include": ["salt"]}
Event = tuple[int, str, dict[str, Any]]


@asynccontextmanager
async def with_jobs(folder: Path, script: Script | None = None, **settings: Any) -> AsyncIterator[Served]:
    async with serving(script, store=str(folder / "jobs.db"), **settings) as served:
        yield served


async def begin(served: Served, path: str = "/v1/refine", body: dict[str, Any] = REFINE, **headers: str) -> str:
    """The address of a new job."""
    response = await served.post(path, body, headers={**PREFER, **headers})
    assert response.status_code == 202, response.text
    return response.headers["location"]


async def read_events(served: Served, job: str, after: int | None = None, most: int | None = None) -> list[Event]:
    """The events of a job; the connection is cut after ``most`` of them."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    found: list[Event] = []
    async with served.client.stream("GET", f"{job}/events", headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        fields: dict[str, str] = {}
        async for line in response.aiter_lines():
            if len(found) == most:
                break
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
                fields = {}
    return found


async def ended(served: Served, job: str) -> dict[str, Any]:
    """The job, once it has ended."""
    async with asyncio.timeout(30):
        body: dict[str, Any] = (await served.client.get(job)).json()
        while body["finished_at"] is None:
            await asyncio.sleep(0.005)
            body = (await served.client.get(job)).json()
    return body


async def at_work(served: Served) -> None:
    """Return once a call is in flight."""
    async with asyncio.timeout(30):
        while not served.engine.in_flight:
            await asyncio.sleep(0.005)


async def test_a_job_gives_the_answer_that_the_request_would_have_had(tmp_path: Path) -> None:
    async with with_jobs(tmp_path) as served:
        at_once = (await served.post("/v1/refine", REFINE)).json()
        body = await ended(served, await begin(served))

    assert (body["state"], body["kind"], body["error"]) == ("completed", "refine", None)
    assert comparable(body["result"]) == comparable(at_once)
    assert body["result"]["id"] == body["id"].replace("job", "ref")
    assert body["progress"] == {
        "round": 2,
        "candidates": 3,
        "score": body["result"]["score"],
        "tokens": sum(body["result"]["usage"]["total"][kind] for kind in ("prompt_tokens", "completion_tokens")),
    }


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/generate", {"prompt": ["Write.", "Sing."], "n": 2}),
        ("/v1/critique", {"prompt": "Write.", "candidate": "Waves."}),
    ],
)
async def test_every_kind_of_request_can_be_a_job(tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    async with with_jobs(tmp_path) as served:
        at_once = (await served.post(path, body)).json()
        job = await ended(served, await begin(served, path, body))

    assert comparable(job["result"]) == comparable(at_once)


async def test_the_acceptance_says_what_was_preferred_and_where_the_job_is(tmp_path: Path) -> None:
    async with with_jobs(tmp_path) as served:
        response = await served.post("/v1/refine", REFINE, headers={"Prefer": "wait=5, Respond-Async; x=1"})

    assert response.status_code == 202
    assert response.headers["preference-applied"] == "respond-async"
    assert response.headers["location"] == f"/v1/jobs/{response.json()['id']}"
    assert response.json()["state"] == "queued"


async def test_without_the_preference_or_without_jobs_the_answer_comes_at_once(tmp_path: Path, served: Served) -> None:
    async with with_jobs(tmp_path) as other:
        assert (await other.post("/v1/refine", REFINE, headers={"Prefer": "wait=10"})).status_code == 200
    assert (await served.post("/v1/refine", REFINE, headers=PREFER)).status_code == 200
    assert (await served.client.get("/v1/jobs")).status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"prompt": "Write.", "stream": True}, "stream"),
        ({"prompt": "Write.", "task": "unknown"}, "task"),
        ({"prompt": "Write.", "search": {"rounds": 99}}, "search.rounds"),
        ({"prompt": "Write.", "surprise": 1}, "surprise"),
    ],
)
async def test_what_is_wrong_with_a_request_is_said_before_it_becomes_a_job(
    tmp_path: Path, body: dict[str, Any], field: str
) -> None:
    async with with_jobs(tmp_path) as served:
        response = await served.post("/v1/refine", body, headers=PREFER)

        assert response.status_code == 422
        assert [error["field"] for error in response.json()["errors"]] == [field]
        assert (await served.client.get("/v1/jobs")).json() == {"jobs": [], "has_more": False}


async def test_a_job_tells_what_a_stream_would_have_told(tmp_path: Path) -> None:
    async with with_jobs(tmp_path) as served:
        streamed = await served.stream("/v1/refine", REFINE)
        told = await read_events(served, await begin(served))

    assert [number for number, _, _ in told] == list(range(1, len(streamed) + 1))
    assert [(name, comparable(data)) for _, name, data in told] == [(n, comparable(d)) for n, d in streamed]


async def test_a_reader_that_is_cut_off_at_every_event_has_seen_each_once(tmp_path: Path) -> None:
    async with with_jobs(tmp_path, Script(reply=reply, seconds_per_call=0.01)) as served:
        job = await begin(served)
        seen: list[Event] = []
        while not seen or seen[-1][1] != "done":
            seen += await read_events(served, job, seen[-1][0] if seen else None, most=1)
        whole = await read_events(served, job)

        assert seen == whole
        for number in range(len(whole)):
            assert await read_events(served, job, after=number) == whole[number:]
        assert (await served.client.get(f"{job}/events", headers={"Last-Event-ID": str(len(whole))})).status_code == 204


async def test_an_id_that_no_event_can_have_is_refused(tmp_path: Path) -> None:
    async with with_jobs(tmp_path) as served:
        job = await begin(served)
        response = await served.client.get(f"{job}/events", headers={"Last-Event-ID": "last"})

    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "last-event-id")


async def test_a_cancelled_job_keeps_the_best_so_far_and_its_engine_stops(tmp_path: Path) -> None:
    async with with_jobs(tmp_path, Script(reply=reply, seconds_per_token=0.05)) as served:
        job = await begin(served, body={**REFINE, "search": {"rounds": 9}, "stop": {"patience": 9}})
        await read_events(served, job, most=3)  # the draft was evaluated
        response = await served.client.delete(job)
        body = response.json()

        assert (response.status_code, body["state"]) == (200, "cancelled")
        assert body["result"]["text"] in ("Waves.", "Salt waves.")
        assert body["result"]["stop_reason"] == "cancelled"
        assert served.engine.in_flight == 0
        told = await read_events(served, job)
        assert (told[-1][1], told[-1][2]) == ("done", body["result"])
        assert (await served.client.delete(job)).json() == body


async def test_a_job_that_is_cancelled_before_its_first_text_has_none(tmp_path: Path) -> None:
    async with with_jobs(tmp_path, Script(reply=reply, seconds_per_call=60)) as served:
        job = await begin(served)
        await at_work(served)
        body = (await served.client.delete(job)).json()

        assert (body["state"], body["result"], body["error"]["code"]) == ("cancelled", None, "cancelled")
        assert [name for _, name, _ in await read_events(served, job)] == ["started", "error"]


async def test_a_job_that_waits_is_cancelled_at_once(tmp_path: Path) -> None:
    async with with_jobs(tmp_path, Script(reply=reply, seconds_per_call=60), max_jobs=1) as served:
        await begin(served)
        await at_work(served)
        job = await begin(served)
        body = (await served.client.delete(job)).json()

        assert (body["state"], body["started_at"]) == ("cancelled", None)
        assert body["error"]["code"] == "cancelled"
        assert [name for _, name, _ in await read_events(served, job)] == ["error"]


async def test_a_job_whose_program_fails_says_why(tmp_path: Path) -> None:
    long = {"prompt": "word " * 9_000}
    async with with_jobs(tmp_path) as served:
        job = await ended(served, await begin(served, body=long))

        assert (job["state"], job["result"], job["error"]["code"]) == ("failed", None, "prompt_too_long")
        assert job["error"] == (await served.post("/v1/refine", long)).json()


async def test_jobs_are_listed_newest_first_page_by_page(tmp_path: Path) -> None:
    async with with_jobs(tmp_path) as served:
        made = []
        for _ in range(5):
            made.append((await begin(served)).rpartition("/")[2])
            await asyncio.sleep(0.002)  # ids sort by milliseconds
        first = (await served.client.get("/v1/jobs", params={"limit": 3})).json()
        last = first["jobs"][-1]["id"]
        second = (await served.client.get("/v1/jobs", params={"limit": 3, "before": last})).json()

        assert [job["id"] for job in first["jobs"] + second["jobs"]] == made[::-1]
        assert (first["has_more"], second["has_more"]) == (True, False)
        assert "result" not in first["jobs"][0]


@pytest.mark.parametrize("limit", ["0", "101", "many"])
async def test_a_page_that_cannot_be_is_refused(tmp_path: Path, limit: str) -> None:
    async with with_jobs(tmp_path) as served:
        response = await served.client.get("/v1/jobs", params={"limit": limit})

    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "limit")


async def test_nobody_sees_the_job_of_another(tmp_path: Path) -> None:
    keys = ",".join(f"{name}:{hashlib.sha256(name.encode()).hexdigest()}" for name in ("ann", "ben"))
    ann, ben = ({"Authorization": f"Bearer {name}"} for name in ("ann", "ben"))
    async with with_jobs(tmp_path, api_keys=keys, allowed_hosts=["*"]) as served:
        job = await begin(served, Authorization=ann["Authorization"])

        async def ask(method: str, path: str, headers: dict[str, str]) -> httpx.Response:
            return await served.client.request(method, path, headers=headers)

        for method, path in (("GET", job), ("GET", f"{job}/events"), ("DELETE", job)):
            refused = await ask(method, path, ben)
            assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
            assert (await ask(method, path, {})).status_code == 401
        assert (await ask("GET", "/v1/jobs", ben)).json()["jobs"] == []
        assert len((await ask("GET", "/v1/jobs", ann)).json()["jobs"]) == 1
        assert (await ask("GET", job, ann)).status_code == 200


async def test_jobs_beyond_the_queue_are_refused_before_their_body_is_read(tmp_path: Path) -> None:
    script = Script(reply=reply, seconds_per_call=60)
    async with with_jobs(tmp_path, script, max_jobs=1, max_queued_jobs=1) as served:
        await begin(served)
        await at_work(served)
        await begin(served)
        response = await served.post("/v1/refine", {"nonsense": True}, headers=PREFER)

        assert (response.status_code, response.json()["code"]) == (503, "overloaded")
        assert "retry-after" in response.headers


async def test_a_restart_goes_on_with_what_was_recorded(tmp_path: Path) -> None:
    asked: list[EngineCall] = []

    def fault(call: EngineCall) -> None:
        asked.append(call)

    request = {**REFINE, "evaluators": [SALT]}
    async with with_jobs(tmp_path, Script(reply=reply, seconds_per_token=0.05, fault=fault)) as served:
        job = await begin(served, body=request)
        before = await read_events(served, job, most=4)
    first = len(asked)
    assert (before[0][1], before[1][1]) == ("started", "candidate")

    async with with_jobs(tmp_path, Script(reply=reply, fault=fault)) as served:
        body = await ended(served, job)
        told = await read_events(served, job)
        page = (await served.client.get("/metrics")).text
        asked_again = len(asked) - first
        at_once = (await served.post("/v1/refine", request)).json()

    assert comparable(body["result"]) == comparable(at_once)
    assert told[: len(before)] == before
    assert [number for number, _, _ in told] == list(range(1, len(told) + 1))
    calls = body["result"]["usage"]["total"]["calls"]
    assert asked_again < calls  # those that had ended were not made again
    assert 'redraft_step_seconds_count{model="scripted",role="judge"}' in page
    counted = sum(
        float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith("redraft_step_seconds_count")
    )
    assert counted == asked_again  # the metrics count what was done, not what was repeated


async def test_results_are_kept_for_a_while(tmp_path: Path) -> None:
    async with with_jobs(tmp_path) as served:
        job = await begin(served)
        await ended(served, job)
    async with with_jobs(tmp_path) as served:
        assert (await ended(served, job))["result"]["text"]
    async with with_jobs(tmp_path, job_keep_seconds=1e-6) as served, asyncio.timeout(30):
        while (await served.client.get(job)).status_code != 404:
            await asyncio.sleep(0.01)


async def test_a_job_that_is_cancelled_twice_ends_once(tmp_path: Path) -> None:
    script = Script(reply=reply, seconds_per_call=60)
    async with with_jobs(tmp_path, script) as served:
        job = await begin(served)
        await at_work(served)
        both = await asyncio.gather(*(served.client.delete(job) for _ in range(2)))
        again = await served.client.delete(job)
        told = await read_events(served, job)

    assert [answer.status_code for answer in (*both, again)] == [200, 200, 200]
    assert again.json() == both[0].json() == both[1].json()
    assert [name for _, name, _ in told].count("error") == 1


@pytest.mark.parametrize("before", ["zzz", "file-1", "job-1;", "job-" + "1" * 90, "1", "-1"])
async def test_a_page_after_what_is_no_job_is_refused(tmp_path: Path, before: str) -> None:
    async with with_jobs(tmp_path) as served:
        await begin(served)
        refused = await served.client.get("/v1/jobs", params={"before": before})
        first = await served.client.get("/v1/jobs", params={"before": ""})

    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "before")
    assert len(first.json()["jobs"]) == 1


async def test_the_cursor_of_another_shows_no_job_of_theirs(tmp_path: Path) -> None:
    keys = ",".join(f"{name}:{hashlib.sha256(name.encode()).hexdigest()}" for name in ("ann", "ben"))
    ann, ben = ({"Authorization": f"Bearer {name}"} for name in ("ann", "ben"))
    async with with_jobs(tmp_path, api_keys=keys, allowed_hosts=["*"]) as served:
        mine = (await begin(served, Authorization=ann["Authorization"])).rpartition("/")[2]
        await asyncio.sleep(0.002)  # ids sort by milliseconds
        theirs = (await begin(served, Authorization=ben["Authorization"])).rpartition("/")[2]
        page = (await served.client.get("/v1/jobs", params={"before": theirs}, headers=ann)).json()

    assert [job["id"] for job in page["jobs"]] == [mine]


async def test_a_job_whose_model_is_gone_after_a_restart_fails_and_says_so(tmp_path: Path) -> None:
    models = {"aide": {"urls": ["http://127.0.0.1:9"]}}
    async with with_jobs(tmp_path, models=models) as served:
        job = await begin(served, body={**REFINE, "models": {"judge": "aide"}})
    async with with_jobs(tmp_path) as served:
        body = await ended(served, job)
        told = await read_events(served, job)

    assert (body["state"], body["error"]["status"]) == ("failed", 422)
    assert body["error"]["errors"][0]["field"] == "models.judge"
    assert told[-1][1] == "error"


async def test_a_clock_that_is_set_back_loses_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shift = 0.0
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + shift)
    script = Script(reply=reply, seconds_per_call=0.1)
    async with with_jobs(tmp_path, script, max_jobs=1) as served:
        first = await begin(served)
        await at_work(served)
        shift = -3_600.0
        second = await begin(served)
        bodies = [await ended(served, job) for job in (first, second)]
        listed = (await served.client.get("/v1/jobs")).json()["jobs"]
        events = await read_events(served, first)

    assert [body["state"] for body in bodies] == ["completed", "completed"]
    assert {f"/v1/jobs/{job['id']}" for job in listed} == {first, second}
    assert [number for number, _, _ in events] == list(range(1, len(events) + 1))


async def test_a_job_does_not_wait_for_all_jobs_of_another(tmp_path: Path) -> None:
    keys = ",".join(f"{name}:{hashlib.sha256(name.encode()).hexdigest()}" for name in ("ann", "ben"))
    ann, ben = ({"Authorization": f"Bearer {name}"} for name in ("ann", "ben"))
    script = Script(reply=reply, seconds_per_call=0.02)
    async with with_jobs(tmp_path, script, max_jobs=1, api_keys=keys, allowed_hosts=["*"]) as served:
        for _ in range(12):
            await begin(served, "/v1/generate", {"prompt": "Write."}, **ann)
        job = await begin(served, "/v1/generate", {"prompt": "Write."}, **ben)
        async with asyncio.timeout(20):
            while (mine := (await served.client.get(job, headers=ben)).json())["finished_at"] is None:
                await asyncio.sleep(0.005)
            while any(other["finished_at"] is None for other in await list_jobs(served, ann)):
                await asyncio.sleep(0.02)
        theirs = [other["started_at"] for other in await list_jobs(served, ann)]

    assert mine["state"] == "completed"
    assert sum(mine["created_at"] < started < mine["started_at"] for started in theirs) <= 1


async def list_jobs(served: Served, headers: Mapping[str, str]) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = (await served.client.get("/v1/jobs", headers=headers)).json()["jobs"]
    return jobs
