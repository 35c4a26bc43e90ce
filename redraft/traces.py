"""Stored traces of programs, feedback on them, and the preferences that follow. docs/reference/api.md describes them.

>>> result = client.refine(prompt="Write about the sea.", store=True)
>>> result = client.refine(prompt="Write about the sea.", store=True)
        >>> client.feedback(result.id, "edit", "The sea is salt and light.")
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    aclosing,
    asynccontextmanager,
    closing,
    contextmanager,
)
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeVar
from urllib.parse import quote, urlencode

import httpx

from redraft.answers import map_httpx_errors, validate
from redraft.errors import UnexpectedAnswer, make_problem_error
from redraft.results import Problem, Result

R = TypeVar("R", bound=Result)

FeedbackKind = Literal["thumb", "edit", "choice", "score"]
PreferenceFormat = Literal["trl", "openai", "sharegpt"]
Line = dict[str, Any]


class Feedback(Result):
    """Feedback as the service keeps it. ``candidate``: of a choice, the one that was chosen; then ``over`` has the
    others, and ``value`` is None."""

    program: str
    kind: str
    candidate: str
    value: str | float | None
    over: tuple[str, ...] | None
    created_at: datetime


class TraceSummary(Result):
    """A stored trace in a list. ``id``: the program's. ``score``, ``passed``: of the text that was returned."""

    id: str
    kind: str
    task: str
    model: str
    created_at: datetime
    score: float | None
    passed: bool | None
    tokens: int


class Trace(TraceSummary):
    """A stored trace. ``account``: the request, prompts, candidates, evaluations, critiques, usage and so on."""

    account: dict[str, object]
    feedback: tuple[Feedback, ...]


class TraceList(Result):
    traces: tuple[TraceSummary, ...]
    has_more: bool


class Deleted(Result):
    deleted: int


class _Sends(Protocol):
    def _request(
        self, kind: type[R], method: str, path: str, body: Mapping[str, object] | None = None, key: str | None = None
    ) -> R: ...

    def _open_response(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        key: str | None,
        headers: Mapping[str, str] = MappingProxyType({}),
        *,
        whole: bool = False,
    ) -> httpx.Response: ...


class _AsyncSends(Protocol):
    async def _request(
        self, kind: type[R], method: str, path: str, body: Mapping[str, object] | None = None, key: str | None = None
    ) -> R: ...

    async def _open_response(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        key: str | None,
        headers: Mapping[str, str] = MappingProxyType({}),
        *,
        whole: bool = False,
    ) -> httpx.Response: ...


class TraceMethods:
    """What a client does with stored traces."""

    def feedback(
        self: _Sends,
        program: str,
        kind: FeedbackKind,
        value: str | float,
        *,
        candidate: str | None = None,
        over: Sequence[str] | None = None,
    ) -> Feedback:
        """Say something of a text. It replaces what was said before of the same kind about the same candidate.

        program: the id of the result. Its request had ``store=True``.
        kind, value: ``thumb`` with ``up`` or ``down``; ``edit`` with the better text; ``choice`` with the id of the
            candidate; ``score`` with a number from 0 to 1.
        candidate: its id; by default the text that was returned.
        over: the candidates that a choice prefers it to; by default all others.

        >>> result = client.refine(prompt="Write about the sea.", store=True)
        >>> client.feedback(result.id, "thumb", "up")
        """
        return self._request(Feedback, "POST", "feedback", _feedback(program, kind, value, candidate, over))

    def traces(
        self: _Sends,
        limit: int = 20,
        before: str | None = None,
        *,
        task: str | None = None,
        model: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> tuple[TraceSummary, ...]:
        """List the stored traces of this key, newest first.

        limit: how many, at most 100. before: the id of the last trace of the page before.
        task, model, since, until: only those of a task, of a writer, and from a time.

        >>> [(trace.id, trace.score) for trace in client.traces(task="summarize")]
        """
        query = _query(limit=limit, before=before, task=task, model=model, since=since, until=until)
        return self._request(TraceList, "GET", f"traces{query}").traces

    def trace(self: _Sends, trace_id: str) -> Trace:
        """A stored trace by the program's id. Raises ProblemError if there is none.

        >>> result = client.refine(prompt="Write about the sea.", store=True)
        >>> client.trace(result.id).account["candidates"]
        """
        return self._request(Trace, "GET", f"traces/{quote(trace_id, safe='')}")

    def delete_trace(self: _Sends, trace_id: str) -> None:
        """Delete a stored trace with its feedback. Raises ProblemError if there is none.

        >>> result = client.refine(prompt="Write about the sea.", store=True)
        >>> client.delete_trace(result.id)
        """
        self._request(Deleted, "DELETE", f"traces/{quote(trace_id, safe='')}")

    def delete_traces(self: _Sends) -> int:
        """Delete all stored traces of this key; returns how many there were.

        >>> client.delete_traces()
        """
        return self._request(Deleted, "DELETE", "traces").deleted

    def preferences(
        self: _Sends,
        format: PreferenceFormat = "trl",  # noqa: A002 - the service's own name for it
        *,
        task: str | None = None,
        model: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> AbstractContextManager[Iterator[Line]]:
        """Stream pairs of a better and a worse text, for training. Use it in a ``with`` block.

        format: whose: TRL's, OpenAI's, or ShareGPT's as LLaMA-Factory reads it.
        task, model, since, until: as in ``traces``.

        >>> with client.preferences("trl") as pairs:
        ...     for pair in pairs:
        ...         print(pair["chosen"], pair["rejected"])
        """
        return _preferences(self, _query(format=format, task=task, model=model, since=since, until=until))


class AsyncTraceMethods:
    """What a client does with stored traces, for asyncio."""

    async def feedback(
        self: _AsyncSends,
        program: str,
        kind: FeedbackKind,
        value: str | float,
        *,
        candidate: str | None = None,
        over: Sequence[str] | None = None,
    ) -> Feedback:
        """Say something of a text. See ``Redraft.feedback``.

        >>> result = await client.refine(prompt="Write about the sea.", store=True)
        >>> await client.feedback(result.id, "thumb", "up")
        """
        return await self._request(Feedback, "POST", "feedback", _feedback(program, kind, value, candidate, over))

    async def traces(
        self: _AsyncSends,
        limit: int = 20,
        before: str | None = None,
        *,
        task: str | None = None,
        model: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> tuple[TraceSummary, ...]:
        """List the stored traces of this key, newest first. See ``Redraft.traces``.

        >>> [(trace.id, trace.score) for trace in await client.traces()]
        """
        query = _query(limit=limit, before=before, task=task, model=model, since=since, until=until)
        return (await self._request(TraceList, "GET", f"traces{query}")).traces

    async def trace(self: _AsyncSends, trace_id: str) -> Trace:
        """A stored trace by the program's id. See ``Redraft.trace``.

        >>> result = await client.refine(prompt="Write about the sea.", store=True)
        >>> (await client.trace(result.id)).account["candidates"]
        """
        return await self._request(Trace, "GET", f"traces/{quote(trace_id, safe='')}")

    async def delete_trace(self: _AsyncSends, trace_id: str) -> None:
        """Delete a stored trace with its feedback. See ``Redraft.delete_trace``.

        >>> result = await client.refine(prompt="Write about the sea.", store=True)
        >>> await client.delete_trace(result.id)
        """
        await self._request(Deleted, "DELETE", f"traces/{quote(trace_id, safe='')}")

    async def delete_traces(self: _AsyncSends) -> int:
        """Delete all stored traces of this key. See ``Redraft.delete_traces``.

        >>> await client.delete_traces()
        """
        return (await self._request(Deleted, "DELETE", "traces")).deleted

    def preferences(
        self: _AsyncSends,
        format: PreferenceFormat = "trl",  # noqa: A002 - the service's own name for it
        *,
        task: str | None = None,
        model: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> AbstractAsyncContextManager[AsyncIterator[Line]]:
        """Stream pairs of a better and a worse text. Use it in an ``async with`` block. See ``Redraft.preferences``.

        >>> async with client.preferences("trl") as pairs:
        ...     async for pair in pairs:
        ...         print(pair["chosen"], pair["rejected"])
        """
        return _async_preferences(self, _query(format=format, task=task, model=model, since=since, until=until))


@contextmanager
def _preferences(client: _Sends, query: str) -> Iterator[Iterator[Line]]:
    with closing(client._open_response("GET", f"preferences{query}", None, None)) as response:
        yield _read_lines(response)


def _read_lines(response: httpx.Response) -> Iterator[Line]:
    with map_httpx_errors():
        for line in response.iter_lines():
            if line:
                yield _read_line(line)


@asynccontextmanager
async def _async_preferences(client: _AsyncSends, query: str) -> AsyncIterator[AsyncIterator[Line]]:
    async with (
        aclosing(await client._open_response("GET", f"preferences{query}", None, None)) as response,
        aclosing(_read_async_lines(response)) as lines,
    ):
        yield lines


async def _read_async_lines(response: httpx.Response) -> AsyncGenerator[Line, None]:
    with map_httpx_errors():
        async for line in response.aiter_lines():
            if line:
                yield _read_line(line)


def _read_line(text: str) -> Line:
    """A pair. Raises ProblemError where the service could not go on."""
    try:
        line = json.loads(text)
    except ValueError:
        raise UnexpectedAnswer("the service sent a line that is not JSON") from None
    if not isinstance(line, dict):
        raise UnexpectedAnswer("the service sent a line that is not a JSON object")
    if "error" in line:
        raise make_problem_error(validate(Problem, line["error"]), None)
    return line


def _feedback(
    program: str, kind: FeedbackKind, value: str | float, candidate: str | None, over: Sequence[str] | None
) -> dict[str, object]:
    stated = {"candidate": candidate, "over": None if over is None else list(over)}
    given = {name: each for name, each in stated.items() if each is not None}
    return {"program": program, "kind": kind, "value": value, **given}


def _query(**fields: str | int | datetime | None) -> str:
    stated = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in fields.items()
        if value is not None
    }
    return f"?{urlencode(stated)}" if stated else ""
