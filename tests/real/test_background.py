"""Responses in the background by OpenAI's own client on the real engine, also across a restart."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
from openai import AsyncOpenAI
from openai.types.responses import Response

from tests.real.test_jobs import kill_all
from tests.support.process import served

MODEL = "SmolLM2-135M-Instruct"
SEA = "Write one sentence about the sea."
SHORT = {"redraft": {"evaluators": [{"type": "length", "unit": "words", "max": 20}], "search": {"rounds": 2}}}


def client_of(http: httpx.AsyncClient) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=str(http.base_url.join("/v1")), api_key="none")


async def ended(client: AsyncOpenAI, response: Response) -> Response:
    while response.status in ("queued", "in_progress"):
        await asyncio.sleep(0.1)
        response = await client.responses.retrieve(response.id)
    return response


async def test_a_response_works_in_the_background_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    settings = {"REDRAFT_STORE": str(tmp_path / "jobs.db")}
    headers = {"Idempotency-Key": "a-1"}
    async with served(**settings) as (process, http):
        async with client_of(http) as client:
            create = client.responses.create
            written = await ended(client, await create(model=MODEL, input=SEA, background=True, max_output_tokens=30))
            stream = await create(model=f"{MODEL}:refine", input=SEA, background=True, stream=True, extra_body=SHORT)
            events: list[Any] = [event async for event in stream]
            whole = await client.responses.retrieve(events[-1].response.id)
            resumed = await client.responses.retrieve(whole.id, stream=True, starting_after=3)
            rest = [event async for event in resumed]
            begun = await create(
                model=f"{MODEL}:beam", input=SEA, background=True, extra_body=SHORT, extra_headers=headers
            )
            cancelled = await client.responses.cancel((await create(model=MODEL, input=SEA, background=True)).id)
        await kill_all(process.pid)
        await process.wait()
    async with served(**settings) as (_, http), client_of(http) as client:
        again = await client.responses.create(
            model=f"{MODEL}:beam", input=SEA, background=True, extra_body=SHORT, extra_headers=headers
        )
        after_restart = await ended(client, begun)

    assert written.status in ("completed", "incomplete")
    assert written.output_text
    assert events[-1].type in ("response.completed", "response.incomplete")
    assert events[-1].response == whole
    assert rest == events[4:]
    assert whole.model_extra is not None
    assert whole.model_extra["redraft"]["selected"]
    assert cancelled.status == "cancelled"
    assert again == begun
    assert after_restart.status in ("completed", "incomplete")
    assert after_restart.output_text
