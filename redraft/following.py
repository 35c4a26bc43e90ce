"""Reads a stream of events that the service keeps: a connection that is cut is made again, after the last event."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from typing import Protocol, TypeVar

import httpx

from redraft.answers import map_httpx_errors
from redraft.errors import ConnectionFailed
from redraft.events import Events
from redraft.exchange import Exchange, reconnect_delay
from redraft.results import Result

E = TypeVar("E", bound=Result)


class Opens(Protocol):
    """A client that can open a response again."""

    _exchange: Exchange
    _sleep: Callable[[float], object]

    def _open_response(
        self, method: str, path: str, body: Mapping[str, object] | None, key: str | None, headers: Mapping[str, str]
    ) -> httpx.Response: ...


class AsyncOpens(Protocol):
    """The same for asyncio."""

    _exchange: Exchange
    _sleep: Callable[[float], Awaitable[object]]

    async def _open_response(
        self, method: str, path: str, body: Mapping[str, object] | None, key: str | None, headers: Mapping[str, str]
    ) -> httpx.Response: ...


@contextmanager
def follow(client: Opens, path: str, reader: Callable[[httpx.Response], Events[E]]) -> Iterator[Iterator[E]]:
    """The events at ``path``, as ``reader`` makes them of each response."""
    with closing(_read(client, path, reader)) as events:
        yield events


@asynccontextmanager
async def follow_async(
    client: AsyncOpens, path: str, reader: Callable[[httpx.Response], Events[E]]
) -> AsyncIterator[AsyncIterator[E]]:
    """The same for asyncio."""
    async with aclosing(_read_async(client, path, reader)) as events:
        yield events


def _read(client: Opens, path: str, reader: Callable[[httpx.Response], Events[E]]) -> Generator[E, None, None]:
    last: str | None = None
    failed = 0
    while True:
        headers = {} if last is None else {"Last-Event-ID": last}
        try:
            with closing(client._open_response("GET", path, None, None, headers)) as response:
                if response.status_code == 204:
                    return
                events = reader(response)
                with map_httpx_errors():
                    for chunk in response.iter_bytes():
                        for event in events.feed(chunk):
                            failed = 0
                            yield event
                        last = events.last_id or last
                        if events.is_finished:
                            return
        except ConnectionFailed:
            if failed >= client._exchange.retries:
                raise
        client._sleep(reconnect_delay(failed))
        failed += 1


async def _read_async(
    client: AsyncOpens, path: str, reader: Callable[[httpx.Response], Events[E]]
) -> AsyncGenerator[E, None]:
    last: str | None = None
    failed = 0
    while True:
        headers = {} if last is None else {"Last-Event-ID": last}
        try:
            async with aclosing(await client._open_response("GET", path, None, None, headers)) as response:
                if response.status_code == 204:
                    return
                events = reader(response)
                with map_httpx_errors():
                    async for chunk in response.aiter_bytes():
                        for event in events.feed(chunk):
                            failed = 0
                            yield event
                        last = events.last_id or last
                        if events.is_finished:
                            return
        except ConnectionFailed:
            if failed >= client._exchange.retries:
                raise
        await client._sleep(reconnect_delay(failed))
        failed += 1
