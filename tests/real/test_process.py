"""The process as an operator runs it: ``python -m service``, stopped by SIGTERM, or robbed of its engine."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.process import served

LONG = {"prompt": "Tell a very long story.", "sampling": {"max_tokens": 300, "seed": 1}, "search": {"rounds": 0}}


@pytest.mark.thorough
async def test_two_processes_may_prepare_the_embedded_model_at_once(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    command = (sys.executable, "-m", "service", "prepare")
    processes = [await asyncio.create_subprocess_exec(*command, env=environment) for _ in range(2)]

    assert [await process.wait() for process in processes] == [0, 0]
    [checkpoint] = (tmp_path / "redraft").iterdir()
    assert (checkpoint / "model.safetensors").stat().st_size > 200_000_000
    assert "quantization_config" not in (checkpoint / "config.json").read_text()


async def test_sigterm_lets_running_requests_finish_and_takes_no_new_ones() -> None:
    async with served() as (process, client):
        running = [asyncio.ensure_future(client.post("/v1/refine", json=LONG)) for _ in range(4)]
        while (await client.get("/metrics")).text.count("redraft_requests_in_progress 4.0") == 0:
            await asyncio.sleep(0.01)

        process.send_signal(signal.SIGTERM)
        while (ready := await client.get("/health/ready")).status_code == 200:
            await asyncio.sleep(0.01)
        refused = await client.post("/v1/generate", json={"prompt": "Hello"})

        assert ready.json()["code"] == "draining"
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        assert "Retry-After" in refused.headers
        assert [response.status_code for response in await asyncio.gather(*running)] == [200] * 4
        async with asyncio.timeout(30):
            assert await process.wait() == 0


async def test_a_killed_engine_ends_requests_with_a_problem_and_fails_the_health_checks() -> None:
    async with served() as (process, client):
        drafting = asyncio.ensure_future(client.post("/v1/refine", json=LONG))
        generating = asyncio.ensure_future(client.post("/v1/generate", json={"prompt": "Tell a story."}))
        while (await client.get("/metrics")).text.count("redraft_requests_in_progress 2.0") == 0:
            await asyncio.sleep(0.01)
        [core] = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if "EngineCore" in " ".join(child.cmdline())
        ]

        core.kill()
        async with asyncio.timeout(30):  # without a watch over the engine they would wait for ever
            while (ready := await client.get("/health/ready")).status_code == 200:
                await asyncio.sleep(0.05)
            answers = [await drafting, await generating]

        assert (ready.status_code, ready.json()["code"]) == (503, "engine_dead")
        assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(503, "engine_dead")] * 2
        assert (await client.get("/health/live")).status_code == 503
