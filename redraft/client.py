"""The clients. What they do apart from waiting is shared: see exchange.py, answers.py and events.py."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    aclosing,
    asynccontextmanager,
    closing,
    contextmanager,
)
from functools import partial
from types import TracebackType
from typing import Protocol, Self, TypeVar, Unpack

import httpx

from redraft.answers import make_refusal, map_httpx_errors, parse
from redraft.batches import BatchResult, BatchResults
from redraft.errors import Busy, ConnectionFailed
from redraft.events import GenerateEvent, GenerateEvents, RefineEvent, RefineEvents
from redraft.exchange import DEFAULT_TIMEOUT_SECONDS, DEFAULT_URL, LIMITS, Exchange
from redraft.proxies import find_proxy, map_proxy_errors
from redraft.requests import BatchLine, CritiqueFields, GenerateFields, RefineFields
from redraft.results import (
    CritiqueResult,
    GenerateResult,
    Model,
    ModelList,
    RefineResult,
    Result,
    TaskList,
    TaskSummary,
)

C = TypeVar("C", httpx.Client, httpx.AsyncClient)
R = TypeVar("R", bound=Result)
E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)


class StreamReader(Protocol[E_co]):
    """Reads what comes piece by piece. ``is_finished``: the last of it has come."""

    @property
    def is_finished(self) -> bool: ...

    def feed(self, chunk: bytes) -> Iterator[E_co]: ...


def _make_client(kind: Callable[..., C], url: str) -> C:
    """An HTTP client that goes through the environment's proxy, if there is one for the URL. Raises InvalidProxy."""
    proxy = find_proxy(httpx.URL(url))
    with map_proxy_errors(proxy):
        return kind(limits=LIMITS, proxy=proxy, trust_env=False, verify=httpx.create_ssl_context())


class Redraft:
    """A client of one service, for any number of threads. Its methods raise RedraftError.

    ``timeout``: how many seconds the service may be silent. ``retries``: how often a request is sent again that was
    refused for now, or for which there was no connection. ``http_client``: for proxies, certificates and the like; it
    stays open. ``sleep`` waits between tries.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        timeout: float | None = DEFAULT_TIMEOUT_SECONDS,
        retries: int = 2,
        http_client: httpx.Client | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._exchange = Exchange(base_url, api_key, timeout, retries)
        self._client = http_client or _make_client(httpx.Client, base_url)
        self._owns_client = http_client is None
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._owns_client:
            self._client.close()

    def generate(self, **fields: Unpack[GenerateFields]) -> GenerateResult:
        """Write texts for one prompt or several."""
        return self._request(GenerateResult, "POST", "generate", fields)

    def critique(self, **fields: Unpack[CritiqueFields]) -> CritiqueResult:
        """Evaluate a text and say what should change."""
        return self._request(CritiqueResult, "POST", "critique", fields)

    def refine(self, **fields: Unpack[RefineFields]) -> RefineResult:
        """Draft a text and revise it until it is good enough."""
        return self._request(RefineResult, "POST", "refine", fields)

    def stream_generate(self, **fields: Unpack[GenerateFields]) -> AbstractContextManager[Iterator[GenerateEvent]]:
        """The texts as they are written, in a ``with`` block, and last the result. Leaving it ends the work."""
        return self._stream(GenerateEvents, "generate", {**fields, "stream": True})

    def stream_refine(self, **fields: Unpack[RefineFields]) -> AbstractContextManager[Iterator[RefineEvent]]:
        """The rounds as they happen, in a ``with`` block, and last the result. Leaving it ends the work."""
        return self._stream(RefineEvents, "refine", {**fields, "stream": True})

    def batch(self, lines: Sequence[BatchLine]) -> AbstractContextManager[Iterator[BatchResult]]:
        """The answers to up to 1,000 requests as they are finished, in a ``with`` block. Leaving it ends the work."""
        return self._stream(partial(BatchResults, lines=lines), "batch", {"requests": lines})

    def models(self) -> tuple[Model, ...]:
        return self._request(ModelList, "GET", "models").data

    def tasks(self) -> tuple[TaskSummary, ...]:
        return self._request(TaskList, "GET", "tasks").tasks

    def _request(self, kind: type[R], method: str, path: str, body: Mapping[str, object] | None = None) -> R:
        with closing(self._open_response(method, path, body)) as response, map_httpx_errors():
            document = response.read()
        return parse(kind, document)

    @contextmanager
    def _stream(
        self, reader: Callable[[httpx.Response], StreamReader[E]], path: str, body: Mapping[str, object]
    ) -> Iterator[Iterator[E]]:
        with closing(self._open_response("POST", path, body)) as response:
            yield self._read_events(response, reader(response))

    def _read_events(self, response: httpx.Response, events: StreamReader[E]) -> Iterator[E]:
        with map_httpx_errors():
            for chunk in response.iter_bytes():
                yield from events.feed(chunk)
                if events.is_finished:
                    return
        raise ConnectionFailed("the answer ended before its last event", sent=True)

    def _open_response(self, method: str, path: str, body: Mapping[str, object] | None) -> httpx.Response:
        """A response that is no refusal, its body not yet read; the caller closes it."""
        request = self._exchange.build_request(self._client, method, path, body)
        attempt = 0
        while True:
            try:
                return self._send(request)
            except (Busy, ConnectionFailed) as error:
                wait = self._exchange.retry_delay(error, attempt)
                if wait is None:
                    raise
            self._sleep(wait)
            attempt += 1

    def _send(self, request: httpx.Request) -> httpx.Response:
        with map_httpx_errors():
            response = self._client.send(request, stream=True)
            if response.is_success:
                return response
            with closing(response):
                response.read()
        raise make_refusal(response)


class AsyncRedraft:
    """The same for asyncio: see Redraft."""

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        timeout: float | None = DEFAULT_TIMEOUT_SECONDS,
        retries: int = 2,
        http_client: httpx.AsyncClient | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._exchange = Exchange(base_url, api_key, timeout, retries)
        self._client = http_client or _make_client(httpx.AsyncClient, base_url)
        self._owns_client = http_client is None
        self._sleep = sleep

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        if self._owns_client:
            await self._client.aclose()

    async def generate(self, **fields: Unpack[GenerateFields]) -> GenerateResult:
        """Write texts for one prompt or several."""
        return await self._request(GenerateResult, "POST", "generate", fields)

    async def critique(self, **fields: Unpack[CritiqueFields]) -> CritiqueResult:
        """Evaluate a text and say what should change."""
        return await self._request(CritiqueResult, "POST", "critique", fields)

    async def refine(self, **fields: Unpack[RefineFields]) -> RefineResult:
        """Draft a text and revise it until it is good enough."""
        return await self._request(RefineResult, "POST", "refine", fields)

    def stream_generate(
        self, **fields: Unpack[GenerateFields]
    ) -> AbstractAsyncContextManager[AsyncIterator[GenerateEvent]]:
        """The texts as they are written, in an ``async with`` block, and last the result. Leaving it ends the work."""
        return self._stream(GenerateEvents, "generate", {**fields, "stream": True})

    def stream_refine(self, **fields: Unpack[RefineFields]) -> AbstractAsyncContextManager[AsyncIterator[RefineEvent]]:
        """The rounds as they happen, in an ``async with`` block, and last the result. Leaving it ends the work."""
        return self._stream(RefineEvents, "refine", {**fields, "stream": True})

    def batch(self, lines: Sequence[BatchLine]) -> AbstractAsyncContextManager[AsyncIterator[BatchResult]]:
        """The answers to up to 1,000 requests as they are finished, in an ``async with`` block. Leaving it ends the
        work."""
        return self._stream(partial(BatchResults, lines=lines), "batch", {"requests": lines})

    async def models(self) -> tuple[Model, ...]:
        return (await self._request(ModelList, "GET", "models")).data

    async def tasks(self) -> tuple[TaskSummary, ...]:
        return (await self._request(TaskList, "GET", "tasks")).tasks

    async def _request(self, kind: type[R], method: str, path: str, body: Mapping[str, object] | None = None) -> R:
        async with aclosing(await self._open_response(method, path, body)) as response:
            with map_httpx_errors():
                document = await response.aread()
        return parse(kind, document)

    @asynccontextmanager
    async def _stream(
        self, reader: Callable[[httpx.Response], StreamReader[E]], path: str, body: Mapping[str, object]
    ) -> AsyncIterator[AsyncIterator[E]]:
        async with (
            aclosing(await self._open_response("POST", path, body)) as response,
            aclosing(self._read_events(response, reader(response))) as events,
        ):
            yield events

    async def _read_events(self, response: httpx.Response, events: StreamReader[E]) -> AsyncGenerator[E, None]:
        with map_httpx_errors():
            async for chunk in response.aiter_bytes():
                for event in events.feed(chunk):
                    yield event
                if events.is_finished:
                    return
        raise ConnectionFailed("the answer ended before its last event", sent=True)

    async def _open_response(self, method: str, path: str, body: Mapping[str, object] | None) -> httpx.Response:
        """A response that is no refusal, its body not yet read; the caller closes it."""
        request = self._exchange.build_request(self._client, method, path, body)
        attempt = 0
        while True:
            try:
                return await self._send(request)
            except (Busy, ConnectionFailed) as error:
                wait = self._exchange.retry_delay(error, attempt)
                if wait is None:
                    raise
            await self._sleep(wait)
            attempt += 1

    async def _send(self, request: httpx.Request) -> httpx.Response:
        with map_httpx_errors():
            response = await self._client.send(request, stream=True)
            if response.is_success:
                return response
            async with aclosing(response):
                await response.aread()
        raise make_refusal(response)
