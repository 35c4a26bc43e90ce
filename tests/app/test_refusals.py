"""What the whole service refuses, and how: every refusal is a problem document with its status and code."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from service.engines.scripted import Script
from tests.support.scripts import stall
from tests.support.serving import Served, reply, serving

PROMPT = {"prompt": "Write about the sea."}
CANDIDATE = {"candidate": "Sand."}
ENDPOINTS = [("/v1/generate", {}), ("/v1/critique", CANDIDATE), ("/v1/refine", {})]
KEY = f"ann:{hashlib.sha256(b'secret').hexdigest()}"
BY_ANN = {"Authorization": "Bearer secret"}
OTHER_KEY = f"bob:{hashlib.sha256(b'hidden').hexdigest()}"


def problem(response: httpx.Response) -> tuple[int, str]:
    """Status and code of a problem, whose shape is held against RFC 9457."""
    body = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"]
    assert body.keys() - {"errors"} == {"type", "title", "status", "detail", "code"}
    assert body["type"] == f"/problems#{body['code']}"
    assert body["status"] == response.status_code
    assert body["title"]
    assert body["detail"]
    assert ("errors" in body) is (response.status_code == 422)
    for error in body.get("errors", []):
        assert error.keys() == {"field", "message"}
    if response.status_code in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
    return response.status_code, body["code"]


def fields(response: httpx.Response) -> list[str]:
    return [error["field"] for error in response.json()["errors"]]


@asynccontextmanager
async def uploading(
    served: Served, path: str, headers: Mapping[str, str]
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which the head of a request was sent. Its body is PROMPT and waits until the server reads it,
    which the server tells by an answer of status 100."""
    host, port = served.client.base_url.host, served.client.base_url.port
    stated = {"Host": host, "Expect": "100-continue", "Content-Length": len(json.dumps(PROMPT)), **headers}
    stated["Content-Type"] = "application/json"
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in stated.items())]
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode())
        async with asyncio.timeout(5):
            yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


async def next_answer(reader: asyncio.StreamReader) -> httpx.Response:
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    content = await reader.readexactly(int(headers.get("content-length", 0)))
    return httpx.Response(int(status.split()[1]), headers=headers, content=content)


class Busy:
    """A request that stays at work in the engine until it is given up."""

    def __init__(self, served: Served, **options: Any) -> None:
        self._served = served
        self._options = options

    async def __aenter__(self) -> None:
        reached = asyncio.Event()
        stall(self._served.engine, lambda call: True, reached.set)
        self._task = asyncio.create_task(self._served.post("/v1/generate", PROMPT, **self._options))
        async with asyncio.timeout(5):
            await reached.wait()

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._served.at_rest()


@pytest.mark.parametrize(("path", "body"), ENDPOINTS)
async def test_malformed_json_is_400(served: Served, path: str, body: dict[str, Any]) -> None:
    response = await served.client.post(path, content=b"{", headers={"content-type": "application/json"})

    assert problem(response) == (400, "malformed_body")


@pytest.mark.parametrize(("path", "body"), ENDPOINTS)
@pytest.mark.parametrize("wrong", [{"surprise": 1}, {"sampling": {"max_tokens": "many"}}, {"task": "nonsense"}])
async def test_a_wrong_field_is_422_and_named(
    served: Served, path: str, body: dict[str, Any], wrong: dict[str, Any]
) -> None:
    response = await served.post(path, {**PROMPT, **body, **wrong})

    assert problem(response) == (422, "invalid_request")
    [field] = fields(response)
    assert field.split(".")[0] in wrong


@pytest.mark.parametrize(("path", "body"), ENDPOINTS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_beyond_the_context_is_422_with_both_lengths(
    path: str, body: dict[str, Any], stream: bool
) -> None:
    asked = {"prompt": "word " * 100, **body} | ({"stream": True} if stream and path != "/v1/critique" else {})
    async with serving(Script(reply=reply, context_tokens=50)) as served:
        response = await served.post(path, asked)
        await served.at_rest()

    assert problem(response) == (422, "prompt_too_long")
    assert fields(response) == ["prompt"]
    assert "102 tokens" in response.json()["detail"]
    assert "holds 50" in response.json()["detail"]


async def test_one_of_many_prompts_beyond_the_context_is_422() -> None:
    async with serving(Script(reply=reply, context_tokens=50)) as served:
        response = await served.post("/v1/generate", {"prompt": ["short", "word " * 100], "stream": True})
        await served.at_rest()

    assert problem(response) == (422, "prompt_too_long")


async def test_a_prompt_beyond_the_context_is_422_though_only_a_judge_would_read_it() -> None:
    async with serving(Script(context_tokens=50)) as served:
        response = await served.post("/v1/critique", {"prompt": "word " * 100, **CANDIDATE, "feedback": False})

    assert problem(response) == (422, "prompt_too_long")


async def test_a_candidate_beyond_the_context_is_422_and_named() -> None:
    async with serving(Script(context_tokens=80)) as served:
        response = await served.post("/v1/critique", {**PROMPT, "candidate": "word " * 100})

    assert problem(response) == (422, "prompt_too_long")
    assert fields(response) == ["candidate"]


async def test_a_body_beyond_the_limit_is_413() -> None:
    async with serving(max_body_bytes=100) as served:
        response = await served.post("/v1/generate", {"prompt": "x" * 100})

        assert problem(response) == (413, "body_too_large")
        assert served.engine.calls == []


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1/nothing", "/v1/tasks/nothing", "/v1/tasks/", "/health/live/", "//v1/tasks"]
)
async def test_what_is_not_there_is_404(served: Served, path: str) -> None:
    assert problem(await served.client.get(path)) == (404, "not_found")


async def test_a_wrong_method_is_405_and_names_the_right_one(served: Served) -> None:
    response = await served.client.get("/v1/refine")

    assert problem(response) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic secret"}, 401),
        ({"Authorization": "Bearer secret"}, 200),
        ({"Authorization": "Bearer hidden"}, 200),
    ],
)
async def test_with_keys_configured_a_known_one_is_needed(headers: dict[str, str], status: int) -> None:
    async with serving(api_keys=f"{KEY},{OTHER_KEY}") as served:
        written = await served.post("/v1/generate", PROMPT, headers=headers)
        listed = await served.client.get("/v1/models", headers=headers)
        shown = await served.client.get("/v1/tasks/general", headers=headers)

        assert written.status_code == listed.status_code == shown.status_code == status
        if status == 401:
            assert problem(written) == problem(shown) == (401, "unauthorized")
            assert written.headers["www-authenticate"] == "Bearer"
            assert served.engine.calls == []


async def test_health_metrics_and_documentation_need_no_key() -> None:
    async with serving(api_keys=KEY) as served:
        for path in ("/health/live", "/health/ready", "/metrics", "/docs", "/openapi.json"):
            assert (await served.client.get(path)).status_code == 200, path


async def test_without_a_key_the_body_is_not_even_looked_at() -> None:
    async with serving(api_keys=KEY) as served:
        response = await served.client.post("/v1/generate", content=b"{")

    assert problem(response) == (401, "unauthorized")


async def test_a_callers_own_limit_is_429_and_stops_no_one_else() -> None:
    async with serving(api_keys=f"{KEY},{OTHER_KEY}", max_programs_per_key=1) as served:
        async with Busy(served, headers={"Authorization": "Bearer secret"}):
            refused = await served.post("/v1/refine", PROMPT, headers={"Authorization": "Bearer secret"})
            stream = await served.post(
                "/v1/refine", {**PROMPT, "stream": True}, headers={"Authorization": "Bearer secret"}
            )
            other = asyncio.create_task(served.post("/v1/generate", PROMPT, headers={"Authorization": "Bearer hidden"}))
            await served.until(lambda: served.app.state.admission.in_progress == 2)
            other.cancel()

        assert problem(refused) == problem(stream) == (429, "caller_limit")


async def test_a_full_service_is_503_and_says_when_to_try_again() -> None:
    async with serving(max_programs=1, max_queued=0) as served:
        async with Busy(served):
            whole = await served.post("/v1/refine", PROMPT)
            stream = await served.post("/v1/refine", {**PROMPT, "stream": True})

        assert problem(whole) == problem(stream) == (503, "overloaded")


@pytest.mark.parametrize("path", [path for path, _ in ENDPOINTS])
@pytest.mark.parametrize(
    ("settings", "draining", "refusal"),
    [
        ({"max_programs": 1, "max_queued": 0}, False, (503, "overloaded")),
        ({"max_programs_per_key": 1}, False, (429, "caller_limit")),
        ({}, True, (503, "draining")),
    ],
)
async def test_a_request_without_room_is_refused_once_and_before_its_body_is_read(
    path: str, settings: dict[str, Any], draining: bool, refusal: tuple[int, str]
) -> None:
    async with serving(api_keys=KEY, **settings) as served, Busy(served, headers=BY_ANN):
        if draining:
            served.app.state.admission.drain()
        async with uploading(served, path, BY_ANN) as (answers, _):
            refused = await next_answer(answers)
        stranger = await served.client.post(path, content=b"{")
        metrics = (await served.client.get("/metrics")).text

        assert problem(refused) == refusal
        assert problem(stranger) == (401, "unauthorized")
        assert f'redraft_requests_shed_total{{reason="{refusal[1]}"}} 1.0' in metrics
        assert (await served.client.get("/v1/models", headers=BY_ANN)).status_code == 200


async def test_a_request_whose_place_goes_while_its_body_comes_is_refused_once() -> None:
    async with serving(max_programs=1, max_queued=0) as served:
        async with uploading(served, "/v1/refine", {}) as (answers, body):
            asked_for_the_body = await next_answer(answers)
            async with Busy(served):
                body.write(json.dumps(PROMPT).encode())
                refused = await next_answer(answers)
        metrics = (await served.client.get("/metrics")).text

    assert asked_for_the_body.status_code == 100
    assert problem(refused) == (503, "overloaded")
    assert 'redraft_requests_shed_total{reason="overloaded"} 1.0' in metrics


async def test_a_request_whose_time_ends_in_the_queue_is_503() -> None:
    async with serving(max_programs=1) as served, Busy(served):
        response = await served.post("/v1/refine", {**PROMPT, "budget": {"seconds": 0.02}})

    assert problem(response) == (503, "deadline_exceeded")


async def test_a_request_whose_time_ends_before_its_draft_is_503(served: Served) -> None:
    stall(served.engine, lambda call: True)

    response = await served.post("/v1/refine", {**PROMPT, "budget": {"seconds": 0.02}})

    assert problem(response) == (503, "deadline_exceeded")
    await served.at_rest()


async def test_a_bug_is_500_and_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fault(_: object) -> None:
        raise KeyError("password")

    async with serving(Script(fault=fault)) as served:
        response = await served.post("/v1/generate", PROMPT)

    assert problem(response) == (500, "internal_error")
    assert "password" not in response.text
    assert f"request {response.headers['x-request-id']} failed" in [entry.getMessage() for entry in caplog.records]


@pytest.mark.parametrize(
    ("offered", "kept"), [("my-id.1_A", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("", False)]
)
async def test_a_sane_request_id_comes_back_and_another_is_replaced(served: Served, offered: str, kept: bool) -> None:
    for request in (
        served.client.get("/health/live", headers={"X-Request-ID": offered}),
        served.client.get("/nothing", headers={"X-Request-ID": offered}),
        served.post("/v1/generate", PROMPT, headers={"X-Request-ID": offered}),
        served.post("/v1/generate", {**PROMPT, "stream": True}, headers={"X-Request-ID": offered}),
    ):
        found = (await request).headers["x-request-id"]
        assert (found == offered) is kept
        assert found


async def test_while_the_engine_loads_the_service_is_alive_but_not_ready() -> None:
    loaded = asyncio.Event()

    async def start(*_: object) -> Any:
        await loaded.wait()
        return loading.engine

    async with serving(start=start) as loading:
        assert (await loading.client.get("/health/live")).json() == {"status": "alive"}
        assert problem(await loading.client.get("/health/ready")) == (503, "starting")
        for path, body in ENDPOINTS:
            assert problem(await loading.post(path, {**PROMPT, **body})) == (503, "starting")
        assert problem(await loading.post("/v1/refine", {**PROMPT, "stream": True})) == (503, "starting")
        assert (await loading.client.get("/v1/models")).status_code == 200

        loaded.set()
        await asyncio.sleep(0)

        assert (await loading.client.get("/health/ready")).json() == {"status": "ready"}
        assert (await loading.post("/v1/generate", PROMPT)).status_code == 200


async def test_an_engine_that_cannot_be_started_is_dead() -> None:
    async def start(*_: object) -> Any:
        raise RuntimeError("no weights")

    async with serving(start=start) as served:
        for path in ("/health/live", "/health/ready"):
            assert problem(await served.client.get(path)) == (503, "engine_dead")
        assert problem(await served.post("/v1/refine", PROMPT)) == (503, "engine_dead")
        assert [str(failure) for failure in served.failures] == ["no weights"]


async def test_a_service_that_drains_takes_nothing_new_and_lets_what_runs_finish() -> None:
    async with serving(Script(reply=lambda call: "word " * 20, seconds_per_token=0.005)) as served:
        running = asyncio.create_task(served.post("/v1/generate", PROMPT))
        await served.until(lambda: served.engine.in_flight == 1)
        served.app.state.admission.drain()

        assert problem(await served.client.get("/health/ready")) == (503, "draining")
        refused = await served.post("/v1/refine", PROMPT)
        assert problem(refused) == (503, "draining")
        assert refused.headers["Connection"] == "close"
        assert (await served.client.get("/health/live")).status_code == 200
        assert not running.done()
        assert (await running).status_code == 200


async def test_a_dead_engine_is_neither_alive_nor_ready(served: Served) -> None:
    served.engine.kill()

    for path in ("/health/live", "/health/ready"):
        assert problem(await served.client.get(path)) == (503, "engine_dead")
    for path, body in ENDPOINTS:
        assert problem(await served.post(path, {**PROMPT, **body})) == (503, "engine_dead")
