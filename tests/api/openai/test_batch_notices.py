"""Notices of batches' ends, asked for and read with OpenAI's own client."""

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.api.test_notices import notifying
from tests.support.batches import CHAT, client_at, ended, make_chat, upload
from tests.support.receiver import SECRET, ReceiverServer
from tests.support.serving import Served

LINES = [make_chat("a", "Write about the sea.")]


async def begin(client: AsyncOpenAI, url: str, lines: Any = LINES) -> str:
    file = await upload(client, lines)
    prefer = {"Prefer": f'callback; url="{url}"'}
    made = await client.batches.with_raw_response.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h", extra_headers=prefer
    )
    assert made.headers["preference-applied"] == "callback"
    return made.parse().id


async def notice(served: Served, batch: str, state: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while (body := (await served.client.get(f"/v1/batches/{batch}/notice")).json())["state"] != state:
            await asyncio.sleep(0.005)
    found: dict[str, Any] = body
    return found


@pytest.mark.parametrize(("lines", "state"), [(LINES, "completed"), (b"no JSON", "failed")])
async def test_a_receiver_hears_that_a_batch_has_ended_and_openai_s_client_can_read_it(
    tmp_path: Path, lines: Any, state: str
) -> None:
    async with (
        ReceiverServer().listening() as server,
        notifying(tmp_path, server) as served,
        client_at(str(served.client.base_url)) as client,
    ):
        batch = await begin(client, server.url, lines)
        await ended(client, batch)
        found = await notice(served, batch, "delivered")
        again = await served.client.post(f"/v1/batches/{batch}/notice")
        await server.until(2)

    assert (again.status_code, found["url"], found["attempts"]) == (202, server.url, 1)
    for seen in server.seen:
        assert seen.body["type"] == f"batch.{state}"
        assert seen.body["data"] == {"id": batch, "kind": "batch", "state": state}
        event = client.webhooks.unwrap(seen.raw.decode(), seen.headers, secret=SECRET)
        assert (event.type, event.data.id, event.created_at) == (f"batch.{state}", batch, seen.body["created_at"])  # type: ignore[union-attr]


async def test_a_notice_is_refused_that_could_not_be_sent(tmp_path: Path) -> None:
    async with (
        ReceiverServer().listening() as server,
        notifying(tmp_path, server) as served,
        client_at(str(served.client.base_url)) as client,
    ):
        with pytest.raises(openai.BadRequestError, match="the operator allows no notices to this URL"):
            await begin(client, "https://elsewhere.example.com")
        file = await upload(client, LINES)
        plain = await client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        paths = [f"/v1/batches/{batch}/notice" for batch in (plain.id, "batch_none", "%00")]
        answers = [await served.client.get(path) for path in paths]

    assert [answer.status_code for answer in answers] == [404] * 3
    assert json.loads(answers[0].text)["error"]["code"] == "not_found"
