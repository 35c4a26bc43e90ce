"""A client that leaves ends its work, wherever that work stands, within a second; nobody else is disturbed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from service.engines.scripted import EngineCall, Script
from tests.support.scripts import role_of, stall
from tests.support.serving import Served, frames, reply, serving

PROMPT = {"prompt": "Write about the sea."}
WIDE = {**PROMPT, "search": {"drafts": 4, "beam": 2, "branches": 2, "rounds": 2}}


@pytest.fixture(autouse=True)
def _nothing_is_logged_as_wrong(caplog: pytest.LogCaptureFixture) -> Any:
    yield
    found = [*caplog.get_records("setup"), *caplog.get_records("call")]
    assert [entry.getMessage() for entry in found if entry.levelname in ("WARNING", "ERROR")] == []


@dataclass
class Client:
    """One that sends a request and may leave before the answer."""

    served: Served
    task: asyncio.Task[Any]

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


@asynccontextmanager
async def at_work(
    served: Served, path: str, body: dict[str, Any], at: Callable[[EngineCall], bool] = lambda call: True
) -> AsyncIterator[Client]:
    """A client whose request has come as far as the first engine call that ``at`` picks."""
    reached = asyncio.Event()
    stall(served.engine, at, reached.set)
    client = Client(served, asyncio.create_task(served.post(path, body)))
    async with asyncio.timeout(30):
        await reached.wait()
    assert served.engine.in_flight > 0
    yield client
    await client.leave()


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("role", ["draft", "judge", "critique", "revise"])
async def test_leaving_a_refine_ends_its_engine_calls(role: str, stream: bool) -> None:
    async with (
        serving() as served,
        at_work(served, "/v1/refine", {**WIDE, "stream": stream}, lambda call: role_of(call) == role) as client,
    ):
        await client.leave()
        await served.at_rest()


@pytest.mark.parametrize("role", ["judge", "critique"])
async def test_leaving_a_critique_ends_its_engine_calls(role: str) -> None:
    body = {**PROMPT, "candidate": "Sand."}
    async with (
        serving() as served,
        at_work(served, "/v1/critique", body, lambda call: role_of(call) == role) as client,
    ):
        await client.leave()
        await served.at_rest()


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_leaving_a_generate_before_its_first_token_ends_its_engine_calls(stream: bool) -> None:
    body = {"prompt": ["One?", "Two?"], "n": 3, "stream": stream}
    async with serving() as served, at_work(served, "/v1/generate", body) as client:
        await client.leave()
        await served.at_rest()


async def test_leaving_a_stream_of_tokens_ends_its_engine_calls() -> None:
    async with serving(Script(reply=lambda call: "word " * 400, seconds_per_token=0.01)) as served:
        body = {**PROMPT, "n": 3, "stream": True, "sampling": {"max_tokens": 400}}
        async with served.client.stream("POST", "/v1/generate", json=body) as response:
            name, _ = await anext(frames(response))
            assert name == "delta"
            assert served.engine.in_flight == 3
        await served.at_rest()


async def test_leaving_the_queue_gives_up_the_place_in_it() -> None:
    async with serving(max_programs=1, max_queued=1) as served, at_work(served, "/v1/refine", PROMPT):
        admission = served.app.state.admission
        for body in (PROMPT, {**PROMPT, "stream": True}):
            waiting = Client(served, asyncio.create_task(served.post("/v1/refine", body)))
            await served.until(lambda: admission.queued == 1)
            await waiting.leave()
            await served.until(lambda: admission.queued == 0)
        calls = len(served.engine.calls)
        assert admission.in_progress == 1
    assert len(served.engine.calls) == calls


async def test_whoever_leaves_hands_its_place_to_the_next() -> None:
    async with (
        serving(Script(reply=reply), max_programs=1, max_queued=1) as served,
        at_work(served, "/v1/refine", PROMPT) as client,
    ):
        waiting = asyncio.create_task(served.post("/v1/critique", {**PROMPT, "candidate": "x", "judge": False}))
        await served.until(lambda: served.app.state.admission.queued == 1)
        served.engine.script = Script(reply=reply)
        await client.leave()
        answered = await waiting

        assert answered.status_code == 200
        assert answered.json()["timing"]["queued_seconds"] > 0


async def test_one_that_leaves_does_not_disturb_the_one_beside_it() -> None:
    async with serving(Script(reply=lambda call: "word " * 30, seconds_per_token=0.005)) as served:
        staying = asyncio.create_task(served.post("/v1/generate", PROMPT))
        leaving = Client(served, asyncio.create_task(served.post("/v1/generate", {**PROMPT, "n": 2})))
        await served.until(lambda: served.engine.in_flight == 3)
        await leaving.leave()
        await served.until(lambda: served.engine.in_flight == 1)
        answered = await staying

    assert answered.json()["usage"]["completion_tokens"] > 20
