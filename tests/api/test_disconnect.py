import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.types import Message

from service.api.connection import Connection
from service.api.disconnect import ClientLeft, cancel_on_disconnect
from service.api.middleware import BodyLimit, RequestContext, RequestRecord
from service.api.problems import install
from service.api.sse import EventStream
from service.wire.sse import SseEvent
from tests.api.test_sse import Named
from tests.support.peer import Peer


@dataclass
class Work:
    """Something that takes for ever, and a while to end."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        try:
            self.begun.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.ended.set()


def request(peer: Peer) -> Request:
    return Request(peer.scope, peer.receive)


async def test_the_result_comes_back() -> None:
    async def work() -> int:
        return 5

    assert await cancel_on_disconnect(request(Peer()), work()) == 5


async def test_a_failure_comes_back() -> None:
    async def work() -> int:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await cancel_on_disconnect(request(Peer()), work())


async def test_work_has_ended_when_the_client_left() -> None:
    peer, work = Peer(b"unread", b"body"), Work()
    call = asyncio.create_task(cancel_on_disconnect(request(peer), work.run()))
    await work.begun.wait()
    peer.leave()
    with pytest.raises(ClientLeft):
        await call
    assert work.ended.is_set()


async def test_work_has_ended_when_the_request_is_cancelled() -> None:
    work = Work()
    call = asyncio.create_task(cancel_on_disconnect(request(Peer()), work.run()))
    await work.begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert work.ended.is_set()


async def test_nothing_listens_after_the_work() -> None:
    peer = Peer()
    await cancel_on_disconnect(request(peer), asyncio.sleep(0))
    assert len(asyncio.all_tasks()) == 1


async def test_a_failure_to_receive_ends_the_work() -> None:
    async def broken() -> Message:
        raise OSError

    work = Work()
    with pytest.raises(OSError):  # noqa: PT011
        await cancel_on_disconnect(Request(Peer().scope, broken), work.run())
    assert work.ended.is_set()


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of ``app`` behind a real server on a free loopback port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", http=Connection, ws="none", log_config=None))
        serving = asyncio.create_task(server.serve([listener]))
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
                yield client
        finally:
            server.should_exit = True
            await serving


def made_app(work: Work, records: asyncio.Queue[RequestRecord]) -> FastAPI:
    app = FastAPI()
    install(app)
    app.add_middleware(BodyLimit, max_bytes=100)
    app.add_middleware(RequestContext, on_finished=records.put_nowait)

    async def events() -> AsyncGenerator[SseEvent, None]:
        yield "started", {}
        await work.run()

    @app.post("/json")
    async def json(request: Request) -> None:
        await request.body()
        await cancel_on_disconnect(request, work.run())

    @app.post("/stream")
    async def stream(request: Request) -> Response:
        await request.body()
        return EventStream(events(), Named())

    return app


async def test_a_real_client_that_leaves_ends_the_work_of_a_json_request(caplog: pytest.LogCaptureFixture) -> None:
    work, records = Work(), asyncio.Queue[RequestRecord]()
    async with served(made_app(work, records)) as client:
        call = asyncio.create_task(client.post("/json", json={}))
        await work.begun.wait()
        call.cancel()
        async with asyncio.timeout(20):
            await work.ended.wait()
            record = await records.get()
    assert (record.endpoint, record.status) == ("/json", 499)
    assert [entry.getMessage() for entry in caplog.records if entry.levelname in ("WARNING", "ERROR")] == []


async def test_a_real_client_that_leaves_ends_the_work_of_a_stream(caplog: pytest.LogCaptureFixture) -> None:
    work, records = Work(), asyncio.Queue[RequestRecord]()
    async with served(made_app(work, records)) as client:
        async with client.stream("POST", "/stream", json={}) as response:
            first = await anext(response.aiter_bytes())
            await work.begun.wait()
        async with asyncio.timeout(20):
            await work.ended.wait()
            record = await records.get()
    assert first == b"event: started\ndata: {}\n\n"
    assert (record.endpoint, record.status) == ("/stream", 200)
    assert [entry.getMessage() for entry in caplog.records if entry.levelname in ("WARNING", "ERROR")] == []


async def test_a_real_client_sees_the_refusal_of_a_body_that_streams() -> None:
    async def chunks() -> AsyncGenerator[bytes, None]:
        for _ in range(100):
            yield b"x" * 50_000

    records = asyncio.Queue[RequestRecord]()
    async with served(made_app(Work(), records)) as client:
        response = await client.post("/json", content=chunks())
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert response.headers["x-request-id"] == (await records.get()).request_id
