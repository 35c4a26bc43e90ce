"""The whole app behind a real server on loopback, with an engine that follows a script."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from redraft.sse import EventDecoder
from service.api.connection import Connection
from service.app import create_app
from service.engines.base import Sample
from service.engines.scripted import Script, ScriptedEngine
from service.engines.served import ServedEngine
from service.evaluators.toolbox import Toolbox
from service.fleet import StartEngine
from service.images.fetch import RemoteImages
from service.settings import Settings
from tests.support.scripts import role_of

Frame = tuple[str, dict[str, Any]]


def reply(call: Sample) -> str:
    """A draft of waves; a critic that wants more; a revision with salt; whatever else has a form keeps it."""
    if call.schema is not None and "issues" not in call.schema.get("properties", {}):
        return Script().reply(call)
    match role_of(call):
        case "critique":
            return json.dumps({"issues": ["Say more."]})
        case "revise":
            return "Salt waves."
        case _:
            return "Waves."


@dataclass
class Served:
    """``failures``: why the engine could not be started."""

    client: httpx.AsyncClient
    app: FastAPI
    engine: ScriptedEngine
    failures: list[BaseException] = field(default_factory=list)

    async def post(self, path: str, body: Mapping[str, Any], **options: Any) -> httpx.Response:
        return await self.client.post(path, json=body, **options)

    async def stream(self, path: str, body: Mapping[str, Any]) -> list[Frame]:
        """All events of a streamed answer."""
        async with self.client.stream("POST", path, json={**body, "stream": True}) as response:
            assert response.status_code == 200, await response.aread()
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            return [frame async for frame in frames(response)]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once the condition holds. A busy machine may need seconds for it."""
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.002)

    async def at_rest(self) -> None:
        """Return once nothing is at work."""
        admission = self.app.state.admission
        await self.until(lambda: self.engine.in_flight == admission.in_progress == admission.queued == 0)


async def frames(response: httpx.Response) -> AsyncIterator[Frame]:
    """The events of a stream; comments are skipped."""
    decoder = EventDecoder()
    async for chunk in response.aiter_bytes():
        for name, data in decoder.feed(chunk):
            yield name, json.loads(data)


@asynccontextmanager
async def serving(
    script: Script | None = None,
    *,
    start: StartEngine | None = None,
    tools: Toolbox | None = None,
    images: RemoteImages | None = None,
    **settings: Any,
) -> AsyncIterator[Served]:
    """Serve the app. Without a ``start`` of its own the engine serves already; ``settings`` are those of the app."""
    engine = ScriptedEngine(script or Script(reply=reply))
    failures: list[BaseException] = []

    async def started(*_: object) -> ServedEngine:
        return engine

    stated = Settings(**{"engine": "scripted", **settings})
    app = create_app(stated, tools=tools, images=images, start=start or started, on_failure=failures.append)
    async with (
        listening(app, stated.max_connections) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client,
    ):
        served = Served(client, app, engine, failures)
        if start is None:
            while (await client.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.002)
        yield served


@asynccontextmanager
async def listening(app: ASGIApp, max_connections: int = 1_000) -> AsyncIterator[str]:
    """Serve an app on loopback; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app, lifespan="on", http=Connection, ws="none", log_config=None, limit_concurrency=max_connections
        )
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup([listener])  # what serve() does, without its tick
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            await _shut_down(server)


async def _shut_down(server: uvicorn.Server) -> None:
    """What shutdown() does, without its pause; no request may outlive its client."""
    for listening in server.servers:
        listening.close()
    state = server.server_state
    for connection in list(state.connections):
        connection.shutdown()
    async with asyncio.timeout(30):
        while state.connections or state.tasks:
            await asyncio.sleep(0)
    await server.lifespan.shutdown()
