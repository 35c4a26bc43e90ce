"""Batches for tests, by OpenAI's own client."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import sqlalchemy as sa
from openai import AsyncOpenAI
from openai.types import Batch, FileObject

from service.batches import batch as stored
from service.batches import tables
from service.batches.database import BatchDatabase
from service.deliveries.database import DeliveryDatabase
from service.programs.ids import make_id
from service.store.opening import open_database

CHAT: Final = "/v1/chat/completions"


@asynccontextmanager
async def client_at(url: str, key: str = "none") -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        yield client


def make_line(custom_id: str, url: str, body: Mapping[str, Any], **members: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": dict(body), **members}


def make_chat(custom_id: str, prompt: str, **fields: Any) -> dict[str, Any]:
    """A line with a chat completion."""
    body = {"model": "scripted", "messages": [{"role": "user", "content": prompt}], **fields}
    return make_line(custom_id, CHAT, body)


def json_lines(lines: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


async def upload(client: AsyncOpenAI, lines: Sequence[Mapping[str, Any]] | bytes) -> FileObject:
    content = lines if isinstance(lines, bytes) else json_lines(lines)
    return await client.files.create(file=("lines.jsonl", content), purpose="batch")


async def begin(client: AsyncOpenAI, lines: Sequence[Mapping[str, Any]] | bytes, url: str = CHAT) -> Batch:
    """A new batch of these lines."""
    file = await upload(client, lines)
    return await client.batches.create(input_file_id=file.id, endpoint=url, completion_window="24h")  # type: ignore[arg-type]


async def ended(client: AsyncOpenAI, batch: str, seconds: float = 30) -> Batch:
    """The batch, once it has ended."""
    async with asyncio.timeout(seconds):
        while True:
            found = await client.batches.retrieve(batch)
            if found.status in ("completed", "failed", "expired", "cancelled"):
                return found
            await asyncio.sleep(0.05)


async def results(client: AsyncOpenAI, file: str | None) -> list[dict[str, Any]]:
    """The lines of a file with results; none without a file."""
    if file is None:
        return []
    text = (await client.files.content(file)).text
    return [json.loads(line) for line in text.splitlines()]


async def make_batch(place: str, url: str, requests: Sequence[Mapping[str, Any]]) -> str:
    """The id of a batch of these requests, whose lines begin together.

    All lines have the same delimiter, which the judge reads too: so their answers depend on nothing but the requests.
    """
    batch = stored.Batch(
        make_id("batch", "_"),
        "anonymous",
        url,
        "file-none",
        window=86_400,
        keep=86_400,
        request_id="request",
        created=time.time(),
        state="in_progress",
    )
    same = {"batch": batch.id, "state": "held", "fence": "[fence]", "seed": 1}
    rows = [
        {**same, "number": number, "custom_id": f"line-{number}", "body": json.dumps(request)}
        for number, request in enumerate(requests, 1)
    ]

    def begin_all(connection: sa.Connection) -> None:
        connection.execute(tables.batches.update().values(in_progress_at=batch.created))
        connection.execute(tables.lines.update().values(state="queued"))

    database = open_database(place)
    try:
        store = BatchDatabase(database, DeliveryDatabase(database), lease=15.0)
        await database.write(lambda c: c.execute(tables.lines.insert(), rows))
        await store.add(batch)
        await database.write(begin_all)
    finally:
        await database.close()
    return batch.id
