"""The client for asyncio. See client.py."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Literal, Self, TypeVar, Unpack, overload
from urllib.parse import quote

import httpx

from redraft.adapters import AsyncAdapterMethods
from redraft.answers import make_refusal, map_httpx_errors, parse
from redraft.batches import BatchResult, BatchResults
from redraft.errors import ConnectionFailed, ProblemError
from redraft.events import GenerateEvent, GenerateEvents, RefineEvent, RefineEvents
from redraft.exchange import DEFAULT_TIMEOUT_SECONDS, DEFAULT_URL, Exchange, StreamReader, make_client
from redraft.jobs import AsyncJob, JobList, JobStatus, job_list_path, prefer_background, read_accepted, result_of
from redraft.learning import AsyncLearningMethods
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
from redraft.traces import AsyncTraceMethods

R = TypeVar("R", bound=Result)
E = TypeVar("E")


class AsyncRedraft(AsyncAdapterMethods, AsyncLearningMethods, AsyncTraceMethods):
    """A client of one service, for asyncio. Tasks may share it.

    The parameters, the methods and the errors are those of Redraft. ``http_client`` is an ``httpx.AsyncClient``, and
    ``sleep`` is a coroutine function.

    >>> async with AsyncRedraft("http://127.0.0.1:8000") as client:
    ...     result = await client.refine(prompt="Describe a sunrise over the sea.")
    ...     print(result.text)
    """

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
        self._client = http_client or make_client(httpx.AsyncClient, base_url)
        self._owns_client = http_client is None
        self._sleep = sleep

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. An ``async with`` block does it.

        >>> await client.aclose()
        """
        if self._owns_client:
            await self._client.aclose()

    @overload
    async def generate(
        self, *, background: Literal[False] = ..., idempotency_key: str | None = ..., **fields: Unpack[GenerateFields]
    ) -> GenerateResult: ...

    @overload
    async def generate(
        self,
        *,
        background: Literal[True],
        notify: str | None = ...,
        idempotency_key: str | None = ...,
        **fields: Unpack[GenerateFields],
    ) -> AsyncJob[GenerateResult]: ...

    async def generate(
        self,
        *,
        background: bool = False,
        notify: str | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[GenerateFields],
    ) -> GenerateResult | AsyncJob[GenerateResult]:
        """Write texts for one prompt or several.

        For the parameters see ``Redraft.generate``.

        >>> result = await client.generate(prompt=["Why is the sky blue?", "Why is the sea salty?"], n=2)
        >>> [choice.text for choice in result.choices]
        """
        if background:
            return await self._begin(GenerateResult, "generate", fields, idempotency_key, notify)
        return await self._request(GenerateResult, "POST", "generate", fields, idempotency_key)

    @overload
    async def critique(
        self, *, background: Literal[False] = ..., idempotency_key: str | None = ..., **fields: Unpack[CritiqueFields]
    ) -> CritiqueResult: ...

    @overload
    async def critique(
        self,
        *,
        background: Literal[True],
        notify: str | None = ...,
        idempotency_key: str | None = ...,
        **fields: Unpack[CritiqueFields],
    ) -> AsyncJob[CritiqueResult]: ...

    async def critique(
        self,
        *,
        background: bool = False,
        notify: str | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[CritiqueFields],
    ) -> CritiqueResult | AsyncJob[CritiqueResult]:
        """Evaluate a text and say what should change.

        For the parameters see ``Redraft.critique``.

        >>> result = await client.critique(
        ...     prompt="Capital of France?",
        ...     candidate="London.",
        ...     evaluators=[{"type": "keywords", "include": ["Paris"]}],
        ... )
        >>> result.passed, result.feedback
        """
        if background:
            return await self._begin(CritiqueResult, "critique", fields, idempotency_key, notify)
        return await self._request(CritiqueResult, "POST", "critique", fields, idempotency_key)

    @overload
    async def refine(
        self, *, background: Literal[False] = ..., idempotency_key: str | None = ..., **fields: Unpack[RefineFields]
    ) -> RefineResult: ...

    @overload
    async def refine(
        self,
        *,
        background: Literal[True],
        notify: str | None = ...,
        idempotency_key: str | None = ...,
        **fields: Unpack[RefineFields],
    ) -> AsyncJob[RefineResult]: ...

    async def refine(
        self,
        *,
        background: bool = False,
        notify: str | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[RefineFields],
    ) -> RefineResult | AsyncJob[RefineResult]:
        """Draft a text, and revise it until it is good enough.

        For the parameters see ``Redraft.refine``.

        >>> result = await client.refine(
        ...     prompt="Describe a sunrise over the sea.",
        ...     evaluators=[{"type": "length", "unit": "words", "max": 30}],
        ...     search={"preset": "self_refine", "rounds": 2},
        ... )
        >>> result.text, result.passed, result.stop_reason
        """
        if background:
            return await self._begin(RefineResult, "refine", fields, idempotency_key, notify)
        return await self._request(RefineResult, "POST", "refine", fields, idempotency_key)

    def stream_generate(
        self, *, idempotency_key: str | None = None, **fields: Unpack[GenerateFields]
    ) -> AbstractAsyncContextManager[AsyncIterator[GenerateEvent]]:
        """Stream texts while they are written. Use it in an ``async with`` block. See ``Redraft.stream_generate``.

        >>> async with client.stream_generate(prompt="Why is the sky blue?") as events:
        ...     async for event in events:
        ...         if isinstance(event, Delta):
        ...             print(event.text, end="")
        """
        return self._stream(GenerateEvents, "generate", {**fields, "stream": True}, idempotency_key)

    def stream_refine(
        self, *, deltas: bool = False, idempotency_key: str | None = None, **fields: Unpack[RefineFields]
    ) -> AbstractAsyncContextManager[AsyncIterator[RefineEvent]]:
        """Stream candidates and rounds. Use it in an ``async with`` block. See ``Redraft.stream_refine``.

        >>> async with client.stream_refine(prompt="Write about the sea.") as events:
        ...     async for event in events:
        ...         if isinstance(event, CandidateAdded):
        ...             print(event.id, event.text)
        """
        asked = {**fields, "stream": True, **({"deltas": True} if deltas else {})}
        return self._stream(RefineEvents, "refine", asked, idempotency_key)

    def batch(
        self, lines: Sequence[BatchLine], *, idempotency_key: str | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[BatchResult]]:
        """Send up to 1,000 requests at once. Use it in an ``async with`` block. See ``Redraft.batch``.

        >>> line = {"custom_id": "sea", "url": "/v1/refine", "body": {"prompt": "Write about the sea."}}
        >>> async with client.batch([line]) as results:
        ...     async for result in results:
        ...         print(result.custom_id, result.error or result.answer)
        """
        return self._stream(partial(BatchResults, lines=lines), "batch", {"requests": lines}, idempotency_key)

    async def job(self, job_id: str) -> AsyncJob[GenerateResult | CritiqueResult | RefineResult]:
        """A job by its id. See ``Redraft.job``.

        >>> begun = await client.refine(prompt="Write about the sea.", background=True)
        >>> found = await client.job(begun.id)
        >>> await found.wait()
        """
        found = await self._request(JobStatus, "GET", f"jobs/{quote(job_id, safe='')}")
        return AsyncJob(self, job_id, result_of(found.kind))

    async def jobs(self, limit: int = 20, before: str | None = None) -> tuple[JobStatus, ...]:
        """List the jobs of this key, newest first. See ``Redraft.jobs``.

        >>> [(job.id, job.state) for job in await client.jobs()]
        """
        return (await self._request(JobList, "GET", job_list_path(limit, before))).jobs

    async def models(self) -> tuple[Model, ...]:
        """List the models that the service has.

        >>> [model.id for model in await client.models()]
        """
        return (await self._request(ModelList, "GET", "models")).data

    async def tasks(self) -> tuple[TaskSummary, ...]:
        """List the tasks that the service has.

        >>> [task.name for task in await client.tasks()]
        """
        return (await self._request(TaskList, "GET", "tasks")).tasks

    async def _begin(
        self, kind: type[R], path: str, body: Mapping[str, object], key: str | None, notify: str | None
    ) -> AsyncJob[R]:
        headers = prefer_background(notify)
        async with aclosing(await self._open_response("POST", path, body, key, headers, whole=True)) as response:
            return AsyncJob(self, read_accepted(response, response.content).id, kind)

    async def _request(
        self,
        kind: type[R],
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        key: str | None = None,
    ) -> R:
        async with aclosing(await self._open_response(method, path, body, key, whole=True)) as response:
            return parse(kind, response.content)

    @asynccontextmanager
    async def _stream(
        self,
        reader: Callable[[httpx.Response], StreamReader[E]],
        path: str,
        body: Mapping[str, object],
        key: str | None,
    ) -> AsyncIterator[AsyncIterator[E]]:
        async with (
            aclosing(await self._open_response("POST", path, body, key)) as response,
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

    async def _open_response(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        key: str | None,
        headers: Mapping[str, str] = MappingProxyType({}),
        *,
        whole: bool = False,
    ) -> httpx.Response:
        """A successful response, which the caller closes. Its body has been read if ``whole``."""
        request = self._exchange.build_request(self._client, method, path, body, key, headers)
        retries = self._exchange.make_retries(key)
        while True:
            try:
                return await self._send(request, whole)
            except (ProblemError, ConnectionFailed) as error:
                wait = retries.next_wait(error)
                if wait is None:
                    raise
            await self._sleep(wait)

    async def _send(self, request: httpx.Request, whole: bool) -> httpx.Response:
        with map_httpx_errors():
            response = await self._client.send(request, stream=True)
            if response.is_success and not whole:
                return response
            async with aclosing(response):
                await response.aread()
        if response.is_success:
            return response
        raise make_refusal(response)
