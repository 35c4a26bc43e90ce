"""One way of calling both clients, so that a test runs with either."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from redraft import AsyncRedraft, Redraft

WAYS = ("sync", "async")
Handler = Callable[[httpx.Request], httpx.Response]


class Caller(Protocol):
    waits: list[float]
    """How long the client wanted to sleep. It does not."""

    async def ask(self, method: str, **fields: Any) -> Any:
        """What the client's method returns."""

    async def events(self, method: str, until: type | None = None, **fields: Any) -> list[Any]:
        """The events of a stream, which is left after the first of the type ``until``."""


@dataclass
class SyncCaller:
    """In a thread, so that the event loop can serve it."""

    client: Redraft
    waits: list[float]
    left: list[Any] = field(default_factory=list)  # so that no stream is closed by being forgotten

    async def ask(self, method: str, **fields: Any) -> Any:
        return await asyncio.to_thread(getattr(self.client, method), **fields)

    async def events(self, method: str, until: type | None = None, **fields: Any) -> list[Any]:
        def collected() -> list[Any]:
            found = []
            with getattr(self.client, method)(**fields) as events:
                self.left.append(events)
                for event in events:
                    found.append(event)
                    if until and isinstance(event, until):
                        break
            return found

        return await asyncio.to_thread(collected)


@dataclass
class AsyncCaller:
    client: AsyncRedraft
    waits: list[float]
    left: list[Any] = field(default_factory=list)  # so that no stream is closed by being forgotten

    async def ask(self, method: str, **fields: Any) -> Any:
        return await getattr(self.client, method)(**fields)

    async def events(self, method: str, until: type | None = None, **fields: Any) -> list[Any]:
        found = []
        async with getattr(self.client, method)(**fields) as events:
            self.left.append(events)
            async for event in events:
                found.append(event)
                if until and isinstance(event, until):
                    break
        return found


@asynccontextmanager
async def calling(
    way: str,
    url: str | httpx.URL = "http://redraft",
    key: str | None = None,
    *,
    handler: Handler | None = None,
    **options: Any,
) -> AsyncIterator[Caller]:
    """A client of the service at ``url``; with a ``handler``, which answers in its place."""
    transport = httpx.MockTransport(handler) if handler else None
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    if way == "sync":
        with (
            httpx.Client(transport=transport) as http,
            Redraft(str(url), key, http_client=http, sleep=waits.append, **options) as client,
        ):
            yield SyncCaller(client, waits)
    else:
        async with (
            httpx.AsyncClient(transport=transport) as async_http,
            AsyncRedraft(str(url), key, http_client=async_http, sleep=sleep, **options) as async_client,
        ):
            yield AsyncCaller(async_client, waits)
