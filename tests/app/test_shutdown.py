"""What clients are told when the process ends before their requests do."""

import asyncio
import signal
from asyncio.subprocess import Process

import httpx
import pytest

from tests.support.process import served

WHOLE = ("/v1/refine", {"prompt": "Write about the sea."})
STREAM = ("/v1/generate", {"prompt": "Write about the sea.", "stream": True})
CHAT = ("/v1/chat/completions", {"model": "scripted", "messages": [{"role": "user", "content": "Write."}]})


async def cut_off(process: Process, client: httpx.AsyncClient, *signals: signal.Signals) -> list[httpx.Response]:
    """The answers to requests that are at work when the signals come."""
    answers = [asyncio.create_task(client.post(path, json=body)) for path, body in (WHOLE, STREAM, CHAT)]
    while "redraft_requests_in_progress 3.0" not in (await client.get("/metrics")).text:
        await asyncio.sleep(0.02)
    for number in signals:
        process.send_signal(number)
        while (await client.get("/health/ready")).status_code == 200:
            await asyncio.sleep(0.02)
    return await asyncio.gather(*answers)


@pytest.mark.parametrize(
    ("drain_seconds", "signals"),
    [("60", [signal.SIGTERM, signal.SIGTERM]), ("0.2", [signal.SIGTERM])],
    ids=["by a second signal", "past the time to drain"],
)
async def test_a_request_that_is_cut_off_is_told_so(
    drain_seconds: str, signals: list[signal.Signals], capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {"REDRAFT_ENGINE": "scripted", "REDRAFT_DRAIN_SECONDS": drain_seconds, "SECONDS_PER_CALL": "60"}
    async with served("tests.deploy.slow_service", **settings) as (process, client):
        refine, stream, chat = await cut_off(process, client, *signals)
        await asyncio.wait_for(process.wait(), 30)
    assert (refine.status_code, refine.json()["code"]) == (503, "draining")
    assert (chat.status_code, chat.json()["error"]["code"]) == (503, "draining")
    for whole in (refine, chat):
        assert whole.headers["retry-after"] == "1"
        assert whole.headers["x-request-id"]
    assert stream.status_code in (200, 503)
    assert '"code":"draining"' in stream.text
    assert "Exception in ASGI application" not in capfd.readouterr().err
