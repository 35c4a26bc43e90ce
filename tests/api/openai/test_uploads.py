"""Files are uploaded as forms, which are read strictly and never held whole."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from openai import AsyncOpenAI

from service.files.database import chunks
from service.files.store import CHUNK_BYTES
from tests.support.batches import client_at
from tests.support.serving import Served, serving

LINES = ("lines.jsonl", b'{"custom_id": "a"}\n')


@pytest.fixture
async def client(working: Served) -> AsyncIterator[AsyncOpenAI]:
    async with client_at(str(working.client.base_url)) as client:
        yield client


async def test_a_file_can_be_listed_read_and_deleted(client: AsyncOpenAI) -> None:
    file = await client.files.create(file=LINES, purpose="batch")
    content = (await client.files.content(file.id)).content
    listed = (await client.files.list()).data
    deleted = await client.files.delete(file.id)

    assert (file.filename, file.bytes, file.purpose, file.status) == (
        "lines.jsonl",
        len(LINES[1]),
        "batch",
        "processed",
    )
    assert file.expires_at == file.created_at + 2_592_000
    assert content == LINES[1]
    assert [found.id for found in listed] == [file.id]
    assert (deleted.id, deleted.deleted) == (file.id, True)
    assert (await client.files.list()).data == []


async def test_a_file_expires_as_its_form_says(client: AsyncOpenAI) -> None:
    file = await client.files.create(
        file=LINES, purpose="batch", expires_after={"anchor": "created_at", "seconds": 3_600}
    )

    assert file.expires_at
    assert file.expires_at - file.created_at == 3_600


async def test_content_cannot_become_a_page(working: Served, client: AsyncOpenAI) -> None:
    file = await client.files.create(file=("page.html", b"<script>"), purpose="batch")
    response = await working.client.get(f"/v1/files/{file.id}/content")

    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"] == "attachment"
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("files", "data", "param"),
    [
        ({"file": LINES}, {}, "purpose"),
        ({"file": LINES}, {"purpose": "fine-tune"}, "purpose"),
        ({"file": LINES}, {"purpose": ["batch", "batch"]}, "purpose"),
        ({"file": LINES}, {"purpose": "b" * 200}, "purpose"),
        ({"file": LINES}, {"purpose": "batch", "more": "1"}, "more"),
        ({"other": LINES}, {"purpose": "batch"}, "other"),
        ({"file": ("a.jsonl", b"")}, {"purpose": "batch"}, "file"),
        ([("file", LINES), ("file", LINES)], {"purpose": "batch"}, "file"),
        ({"file": ("a" * 300, b"a")}, {"purpose": "batch"}, "file"),
        ({"file": (None, b"a")}, {"purpose": "batch"}, "file"),
        ({"file": LINES}, {"purpose": "batch", "expires_after[seconds]": "3600"}, "expires_after.anchor"),
        (
            {"file": LINES},
            {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "1"},
            "expires_after.seconds",
        ),
    ],
)
async def test_a_form_that_is_wrong_is_refused_with_the_field(
    working: Served, client: AsyncOpenAI, files: Any, data: dict[str, Any], param: str
) -> None:
    response = await working.client.post("/v1/files", files=files, data=data)

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert (await client.files.list()).data == []


@pytest.mark.parametrize(
    ("content_type", "body", "code"),
    [
        ("application/json", b"{}", "invalid_request"),
        ("multipart/form-data", b"", "invalid_request"),
        ("multipart/form-data; boundary=a", b"", "malformed_body"),
        ("multipart/form-data; boundary=a", b"nothing", "malformed_body"),
        ("multipart/form-data; boundary=a", b"--a\r\n\r\nvalue\r\n--a--\r\n", "malformed_body"),
        (
            "multipart/form-data; boundary=a",
            b'--a\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf',
            "malformed_body",
        ),
        (f"multipart/form-data; boundary={'a' * 300}", b"", "malformed_body"),
    ],
)
async def test_what_is_not_a_form_is_refused(working: Served, content_type: str, body: bytes, code: str) -> None:
    response = await working.client.post("/v1/files", content=body, headers={"Content-Type": content_type})

    assert (response.status_code, response.json()["error"]["code"]) == (400, code)


async def test_a_file_that_is_too_large_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    async with (
        serving(store=str(tmp_path / "store.db"), max_file_bytes=1_000) as served,
        client_at(str(served.client.base_url)) as client,
    ):
        files: dict[str, Any] = {"file": ("a.jsonl", b"a" * 1_001)}
        slightly = await served.client.post("/v1/files", files=files, data={"purpose": "batch"})
        files = {"file": ("a.jsonl", b"a" * 100_000)}
        much = await served.client.post("/v1/files", files=files, data={"purpose": "batch"})
        left = (await client.files.list()).data

    assert (slightly.status_code, slightly.json()["error"]["code"]) == (413, "body_too_large")
    assert (much.status_code, much.json()["error"]["code"]) == (413, "body_too_large")
    assert left == []


async def test_files_are_refused_once_there_is_no_room_for_them(tmp_path: Path) -> None:
    async with (
        serving(store=str(tmp_path / "store.db"), max_files_bytes=1_000) as served,
        client_at(str(served.client.base_url)) as client,
    ):
        first = await client.files.create(file=("a.jsonl", b"a" * 600), purpose="batch")
        files: dict[str, Any] = {"file": ("b.jsonl", b"b" * 600)}
        refused = await served.client.post("/v1/files", files=files, data={"purpose": "batch"})
        await client.files.delete(first.id)
        taken = await served.client.post("/v1/files", files=files, data={"purpose": "batch"})

    assert (refused.status_code, refused.json()["error"]["code"], taken.status_code) == (413, "storage_full", 200)


async def test_an_upload_that_dawdles_is_refused(tmp_path: Path) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield b'--a\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf'
        await asyncio.sleep(1)

    async with serving(store=str(tmp_path / "store.db"), max_body_seconds=0.1) as served:
        response = await served.client.post(
            "/v1/files", content=slowly(), headers={"Content-Type": "multipart/form-data; boundary=a"}
        )

    assert (response.status_code, response.json()["error"]["code"]) == (408, "body_timeout")


async def test_a_client_that_leaves_in_an_upload_leaves_nothing(working: Served, client: AsyncOpenAI) -> None:
    class Left(Exception):
        pass

    async def half() -> AsyncIterator[bytes]:
        yield b'--a\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        yield b"a" * CHUNK_BYTES * 2
        raise Left

    with pytest.raises(Left):
        await working.client.post(
            "/v1/files", content=half(), headers={"Content-Type": "multipart/form-data; boundary=a"}
        )
    batches = working.app.state.batches
    async with asyncio.timeout(30):
        while await counted(batches.files):
            await asyncio.sleep(0.01)


async def counted(files: Any) -> int:
    """The chunks that the database has."""
    query = sa.select(sa.func.count()).select_from(chunks)
    return int(await files._database.read(lambda c: c.execute(query).scalar_one()))


async def test_a_large_file_is_never_held_whole(working: Served) -> None:
    size = 8 * 1024 * 1024

    async def pieces() -> AsyncIterator[bytes]:
        yield b'--a\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(size // 65_536):
            yield b"a" * 65_536
        yield b'\r\n--a\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--a--\r\n'

    headers = {"Content-Type": "multipart/form-data; boundary=a"}
    tracemalloc.start()
    try:
        file = (await working.client.post("/v1/files", content=pieces(), headers=headers, timeout=60)).json()
        received = 0
        async with working.client.stream("GET", f"/v1/files/{file['id']}/content") as response:
            async for piece in response.aiter_bytes():
                received += len(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert received == file["bytes"] == size
    assert peak < size // 2
