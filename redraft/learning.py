"""Runs of learning, which end with an adapter and a verdict. For operators; see docs/guide/learning.md.

>>> run = client.start_learning("quick")
>>> with client.watch_learning(run.id) as states:
...     for run in states:
...         print(run.step, run.done, run.total, run.note)
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol, TypeVar
from urllib.parse import quote

from redraft.answers import parse
from redraft.events import Events
from redraft.following import AsyncOpens, Opens, follow, follow_async
from redraft.results import Result

R = TypeVar("R", bound=Result)


class LearningRun(Result):
    """A run of learning, in the folder from which the service serves.

    state: ``running``, ``ended``, ``failed`` or ``cancelled``. step: the last one that began.
    done, total: how far that has come, in prompts or steps of training; None while that is not known.
    adapter, decision: what came of it. error: why it failed. revision: grows with each change.
    """

    id: str
    state: str
    recipe: str | None
    started_at: str
    finished_at: str | None
    step: str | None
    done: int | None
    total: int | None
    note: str
    adapter: str | None
    decision: str | None
    error: str | None
    revision: int


class LearningRuns(Result):
    runs: tuple[LearningRun, ...]


class LearningEvents(Events[LearningRun]):
    """The events of a run, each of which is the run."""

    def _make_event(self, name: str, data: str) -> LearningRun | None:
        return parse(LearningRun, data) if name in ("progress", "done") else None


class _Sends(Opens, Protocol):
    def _request(
        self, kind: type[R], method: str, path: str, body: Mapping[str, object] | None = None, key: str | None = None
    ) -> R: ...


class _AsyncSends(AsyncOpens, Protocol):
    async def _request(
        self, kind: type[R], method: str, path: str, body: Mapping[str, object] | None = None, key: str | None = None
    ) -> R: ...


def _path(run_id: str) -> str:
    return f"learning/runs/{quote(run_id, safe='')}"


class LearningMethods:
    """What an operator's client does with runs of learning."""

    def learning_runs(self: _Sends) -> tuple[LearningRun, ...]:
        """List the runs of learning, newest first.

        >>> [(run.step, run.done, run.total) for run in client.learning_runs() if run.state == "running"]
        """
        return self._request(LearningRuns, "GET", "learning/runs").runs

    def learning_run(self: _Sends, run_id: str) -> LearningRun:
        """A run of learning. Raises ProblemError if it is unknown.

        >>> client.learning_run(client.start_learning().id).state
        """
        return self._request(LearningRun, "GET", _path(run_id))

    def start_learning(
        self: _Sends,
        recipe: str = "quick",
        *,
        sources: Sequence[str] = ("practice",),
        idempotency_key: str | None = None,
    ) -> LearningRun:
        """Start a run, which trains an adapter and examines it. It does not promote it.

        recipe: the name of a built-in one. sources: where its texts come from: ``practice``, ``store``, or both.
        idempotency_key: as in ``generate``.
        Raises ProblemError, with the reason, if the service cannot train or another run is at work.

        >>> client.start_learning("quick").id
        """
        body = {"recipe": recipe, "sources": list(sources)}
        return self._request(LearningRun, "POST", "learning/runs", body, idempotency_key)

    def watch_learning(self: _Sends, run_id: str) -> AbstractContextManager[Iterator[LearningRun]]:
        """The run as it is now, and again after each step forward, up to its end.

        Use it in a ``with`` block. Leaving the block does not stop the run. A connection that is cut is made again.

        >>> run = client.start_learning()
        >>> with client.watch_learning(run.id) as states:
        ...     for run in states:
        ...         print(run.step, run.done, run.total, run.note)
        """
        return follow(self, f"{_path(run_id)}/events", LearningEvents)

    def cancel_learning(self: _Sends, run_id: str) -> LearningRun:
        """End a run that the service has started. One that has ended stays as it is. Raises ProblemError for others.

        >>> client.cancel_learning(client.start_learning().id).state
        'cancelled'
        """
        return self._request(LearningRun, "DELETE", _path(run_id))


class AsyncLearningMethods:
    """What an operator's client does with runs of learning, for asyncio."""

    async def learning_runs(self: _AsyncSends) -> tuple[LearningRun, ...]:
        """List the runs of learning, newest first. See ``Redraft.learning_runs``.

        >>> [(run.step, run.done, run.total) for run in await client.learning_runs()]
        """
        return (await self._request(LearningRuns, "GET", "learning/runs")).runs

    async def learning_run(self: _AsyncSends, run_id: str) -> LearningRun:
        """A run of learning. See ``Redraft.learning_run``.

        >>> (await client.learning_run((await client.start_learning()).id)).state
        """
        return await self._request(LearningRun, "GET", _path(run_id))

    async def start_learning(
        self: _AsyncSends,
        recipe: str = "quick",
        *,
        sources: Sequence[str] = ("practice",),
        idempotency_key: str | None = None,
    ) -> LearningRun:
        """Start a run. See ``Redraft.start_learning``.

        >>> (await client.start_learning("quick")).id
        """
        body = {"recipe": recipe, "sources": list(sources)}
        return await self._request(LearningRun, "POST", "learning/runs", body, idempotency_key)

    def watch_learning(self: _AsyncSends, run_id: str) -> AbstractAsyncContextManager[AsyncIterator[LearningRun]]:
        """How a run goes on. Use it in an ``async with`` block. See ``Redraft.watch_learning``.

        >>> run = await client.start_learning()
        >>> async with client.watch_learning(run.id) as states:
        ...     async for run in states:
        ...         print(run.step, run.done, run.total, run.note)
        """
        return follow_async(self, f"{_path(run_id)}/events", LearningEvents)

    async def cancel_learning(self: _AsyncSends, run_id: str) -> LearningRun:
        """End a run that the service has started. See ``Redraft.cancel_learning``.

        >>> (await client.cancel_learning((await client.start_learning()).id)).state
        'cancelled'
        """
        return await self._request(LearningRun, "DELETE", _path(run_id))
