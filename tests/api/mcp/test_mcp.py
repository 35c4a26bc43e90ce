"""An agent's client, the protocol's own SDK, against the whole service."""

import asyncio
import hashlib
import json
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from service.engines.scripted import Script
from tests.support.process import served as served_process
from tests.support.serving import Served, reply, serving

SALT = {"prompt": "Write about the sea.", "evaluators": [{"type": "keywords", "include": ["salt"]}], "judge": False}
Mode = Literal["legacy", "2026-07-28"]


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(mcp=True) as served:
        yield served


@asynccontextmanager
async def agent(served: Served, mode: Mode = "2026-07-28", key: str = "none") -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=20) as http,
        Client(streamable_http_client(f"{served.client.base_url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


def texts(contents: Sequence[Any]) -> list[str]:
    """The texts of what a tool or a resource gave."""
    return [content.text for content in contents]


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_the_tools_are_listed_and_called(served: Served, mode: Mode) -> None:
    told: list[str | None] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)

    async with agent(served, mode) as client:
        listed = await client.list_tools()
        refined = await client.call_tool("refine", SALT, progress_callback=note)
        critiqued = await client.call_tool("critique", {"prompt": "Say hello.", "candidate": "Hello."})
        generated = await client.call_tool("generate", {"prompt": "Say hello."})

    assert [tool.name for tool in listed.tools] == ["refine", "critique", "generate"]
    assert len(json.dumps([tool.input_schema for tool in listed.tools])) < 30_000
    assert not refined.is_error
    assert refined.structured_content["text"] == "Salt waves."
    assert refined.structured_content["stop_reason"] == "target"
    assert texts(refined.content) == ["Salt waves."]
    assert told[0] == "candidate c0: score 0.00"
    assert told[-1] == "round 1: the best candidate is c1"
    assert critiqued.structured_content["score"] is not None
    assert generated.structured_content["choices"][0]["text"] == "Waves."


async def test_what_is_wrong_with_arguments_is_a_result_that_names_the_field(served: Served) -> None:
    async with agent(served) as client:
        refused = await client.call_tool("refine", {**SALT, "evaluators": [{"type": "keywords", "exclud": ["salt"]}]})
        with pytest.raises(MCPError, match="there is no tool 'rewrite'"):
            await client.call_tool("rewrite", {})

    assert refused.is_error
    body = json.loads(texts(refused.content)[0])
    assert (body["code"], body["errors"][0]["field"]) == ("invalid_request", "evaluators.0.exclud")


async def test_tasks_rubrics_and_evaluators_are_resources(served: Served) -> None:
    async with agent(served) as client:
        listed = {str(resource.uri) for resource in (await client.list_resources()).resources}
        read: dict[str, Any] = {}
        for uri in ("redraft://tasks/summarize", "redraft://rubrics/safety", "redraft://evaluators/keywords"):
            [text] = texts((await client.read_resource(uri)).contents)
            read[uri] = json.loads(text)
        with pytest.raises(MCPError, match="there is no resource"):
            await client.read_resource("redraft://tasks/none")

    assert read.keys() <= listed
    assert read["redraft://tasks/summarize"]["name"] == "summarize"
    assert read["redraft://rubrics/safety"]["name"] == "safety"
    assert "include" in read["redraft://evaluators/keywords"]["properties"]


async def test_a_key_is_needed_where_there_are_keys() -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    async with serving(mcp=True, api_keys=f"app:{digest}") as closed:
        refused = await closed.client.post("/mcp", json={})
        async with agent(closed, key="secret") as client:
            listed = await client.list_tools()

    assert refused.status_code == 401
    assert len(listed.tools) == 3


async def test_without_the_setting_there_is_nothing() -> None:
    async with serving() as plain:
        response = await plain.client.post("/mcp", json={})

    assert response.status_code == 404
    assert "REDRAFT_MCP" in response.json()["detail"]


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_work_stops_when_the_agent_leaves(mode: Mode) -> None:
    async with serving(Script(reply=reply, seconds_per_call=3600.0), mcp=True) as slow:
        async with agent(slow, mode) as client:
            call = asyncio.create_task(client.call_tool("generate", {"prompt": "Say hello."}))
            while not slow.engine.in_flight:
                await asyncio.sleep(0.01)
            call.cancel()
            await asyncio.wait([call])
        async with asyncio.timeout(5):
            while slow.engine.in_flight:
                await asyncio.sleep(0.01)


async def test_a_call_at_work_ends_while_the_service_drains() -> None:
    settings = {"REDRAFT_ENGINE": "scripted", "REDRAFT_MCP": "true", "SECONDS_PER_CALL": "1"}
    async with served_process("tests.deploy.slow_service", **settings) as (process, http):
        try:
            async with Client(f"{http.base_url}/mcp") as client:
                call = asyncio.create_task(client.call_tool("generate", {"prompt": "Say hello."}))
                while "redraft_requests_in_progress 1.0" not in (await http.get("/metrics")).text:
                    await asyncio.sleep(0.02)
                process.send_signal(signal.SIGTERM)
                written = await call
        except* httpx2.ConnectError:
            pass  # the service may have ended before the client takes its leave
        await asyncio.wait_for(process.wait(), 30)

    assert written.structured_content["choices"][0]["text"]
    assert process.returncode == 0
