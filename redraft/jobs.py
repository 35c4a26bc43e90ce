"""Requests that the service answers in the background. docs/reference/api.md describes the fields of a job.

>>> job = client.refine(prompt="Write about the sea.", background=True)
>>> print(job.wait().text)
"""

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.parse import urlencode

import httpx

from redraft.answers import parse, validate
from redraft.errors import UnexpectedAnswer, make_problem_error
from redraft.events import REFINE_EVENTS, Critiqued, Events
from redraft.following import follow, follow_async
from redraft.results import CritiqueResult, GenerateResult, Problem, RefineResult, Result

if TYPE_CHECKING:
    from redraft.async_client import AsyncRedraft
    from redraft.client import Redraft

R = TypeVar("R", bound=Result)

FIRST_POLL_SECONDS = 0.1
LONGEST_POLL_SECONDS = 2.0

AnyResult = GenerateResult | CritiqueResult | RefineResult
RESULTS: Mapping[str, type[AnyResult]] = MappingProxyType(
    {"generate": GenerateResult, "critique": CritiqueResult, "refine": RefineResult}
)


def result_of(kind: str) -> type[AnyResult]:
    """The form of the results of a kind of jobs. Raises UnexpectedAnswer for one that is another client's."""
    if kind not in RESULTS:
        raise UnexpectedAnswer(f"this client cannot read a job of the kind {kind}: fetch it with OpenAI's client")
    return RESULTS[kind]


EVENTS: Mapping[str, Mapping[str, type[Result]]] = MappingProxyType(
    {
        "generate": {"done": GenerateResult},
        "critique": {"critique": Critiqued, "done": CritiqueResult},
        "refine": REFINE_EVENTS,
    }
)


class JobProgress(Result):
    """``round``: the last one that ended. ``score``: of the best candidate. ``tokens``: all so far."""

    round: int | None
    candidates: int
    score: float | None
    tokens: int


class JobStatus(Result):
    """A job as the service describes it.

    kind: generate, critique, refine, or response for one of OpenAI's clients.
    state: queued, running, completed, failed or cancelled.
    cancelling: it was cancelled and is about to end.
    """

    id: str
    kind: str
    state: str
    cancelling: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    progress: JobProgress


class WholeJob(JobStatus):
    """``result``: the answer, in the form of the request's kind. ``error``: why there is no result."""

    result: dict[str, object] | None
    error: Problem | None


class JobList(Result):
    jobs: tuple[JobStatus, ...]
    has_more: bool


class Notice(Result):
    """What became of the notice of a job's end.

    state: waiting for the end, pending, and last delivered, gone or given_up. attempts: since the end, or since it was
    last sent again. status, error: what the last attempt gave.
    """

    url: str
    state: str
    attempts: int
    attempted_at: datetime | None
    next_attempt_at: datetime | None
    status: int | None
    error: str | None


class JobEvents(Events[Result]):
    """The events of a job."""

    def __init__(self, response: httpx.Response, kind: str) -> None:
        super().__init__(response)
        self._kinds = EVENTS.get(kind, {})

    def _make_event(self, name: str, data: str) -> Result | None:
        kind = self._kinds.get(name)
        return None if kind is None else parse(kind, data)


def prefer_background(notify: str | None) -> Mapping[str, str]:
    """The headers of a request that is to become a job. ``notify``: where a notice of its end goes.

    >>> prefer_background("https://hooks.example.com/redraft")
    {'Prefer': 'respond-async, callback; url="https://hooks.example.com/redraft"'}
    """
    if notify is None:
        return {"Prefer": "respond-async"}
    url = notify.replace("\\", "\\\\").replace('"', '\\"')
    return {"Prefer": f'respond-async, callback; url="{url}"'}


def read_accepted(response: httpx.Response, document: bytes) -> WholeJob:
    """The job that a request has become. Raises UnexpectedAnswer if the service answered it at once."""
    if response.status_code != 202:
        raise UnexpectedAnswer("the service answered at once, because it has no jobs: its operator sets REDRAFT_STORE")
    return parse(WholeJob, document)


def read_result(job: WholeJob, kind: type[R]) -> R:
    """The result of a job that has ended. Raises ProblemError if it has none."""
    if job.result is None:
        problem = job.error or Problem(
            type="about:blank", title="No result", status=500, detail=job.state, code="unknown"
        )
        raise make_problem_error(problem, None)
    return validate(kind, job.result)


def job_list_path(limit: int, before: str | None) -> str:
    """Where a page of jobs is."""
    return f"jobs?{urlencode({'limit': limit} | ({} if before is None else {'before': before}))}"


def poll_delays() -> Iterator[float]:
    """Seconds to wait before each look at a job."""
    seconds = FIRST_POLL_SECONDS
    while True:
        yield seconds
        seconds = min(2 * seconds, LONGEST_POLL_SECONDS)


class Job(Generic[R]):
    """A job of the service. It goes on without this object, and without this process.

    id: what the service calls it. ``client.job(id)`` finds it again.
    """

    def __init__(self, client: "Redraft", job_id: str, kind: type[R]) -> None:
        self.id = job_id
        self._client = client
        self._kind = kind

    def status(self) -> WholeJob:
        """Ask how far the job has come.

        >>> job.status().progress.round
        """
        return self._client._request(WholeJob, "GET", f"jobs/{self.id}")

    def wait(self, timeout: float | None = None) -> R:
        """Wait for the job's end and return its result. One that was cancelled gives the best so far.

        timeout: how many seconds to wait, None for no limit. The job goes on after a TimeoutError.

        Raises ProblemError if there is no result.

        >>> result = job.wait(timeout=600)
        """
        until = None if timeout is None else time.monotonic() + timeout
        for seconds in poll_delays():
            job = self.status()
            if job.finished_at is not None:
                return read_result(job, self._kind)
            left = seconds if until is None else until - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{self.id} has not ended within {timeout:g} seconds")
            self._client._sleep(min(seconds, left))
        raise AssertionError("polling never ends")

    def events(self) -> AbstractContextManager[Iterator[Result]]:
        """The job's events, from the first one, and live while it runs. A connection that is cut is made again.

        Use it in a ``with`` block. Leaving the block does not stop the job. Raises ProblemError if it has no result.

        >>> with job.events() as events:
        ...     for event in events:
        ...         if isinstance(event, RoundEnded):
        ...             print(event.round, event.incumbent)
        """
        return self._follow()

    def cancel(self) -> WholeJob:
        """End the job with the best that it has so far. One that has ended stays as it is.

        >>> job.cancel().state
        'cancelled'
        """
        return self._client._request(WholeJob, "DELETE", f"jobs/{self.id}")

    def notice(self) -> Notice:
        """Ask what became of the notice of the job's end. Raises ProblemError if the job was begun without ``notify``.

        >>> job.notice().state
        'delivered'
        """
        return self._client._request(Notice, "GET", f"jobs/{self.id}/notice")

    def send_notice(self) -> Notice:
        """Have the notice sent again, whatever became of it before. Before the job's end this changes nothing.

        >>> job.send_notice().state
        'pending'
        """
        return self._client._request(Notice, "POST", f"jobs/{self.id}/notice")

    @contextmanager
    def _follow(self) -> Iterator[Iterator[Result]]:
        reader = partial(JobEvents, kind=self.status().kind)
        with follow(self._client, f"jobs/{self.id}/events", reader) as events:
            yield events


class AsyncJob(Generic[R]):
    """A job of the service, for asyncio. See ``Job``."""

    def __init__(self, client: "AsyncRedraft", job_id: str, kind: type[R]) -> None:
        self.id = job_id
        self._client = client
        self._kind = kind

    async def status(self) -> WholeJob:
        """Ask how far the job has come. See ``Job.status``.

        >>> (await job.status()).progress.round
        """
        return await self._client._request(WholeJob, "GET", f"jobs/{self.id}")

    async def wait(self, timeout: float | None = None) -> R:
        """Wait for the job's end and return its result. See ``Job.wait``.

        >>> result = await job.wait(timeout=600)
        """
        until = None if timeout is None else time.monotonic() + timeout
        for seconds in poll_delays():
            job = await self.status()
            if job.finished_at is not None:
                return read_result(job, self._kind)
            left = seconds if until is None else until - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{self.id} has not ended within {timeout:g} seconds")
            await self._client._sleep(min(seconds, left))
        raise AssertionError("polling never ends")

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[Result]]:
        """The job's events. Use it in an ``async with`` block. See ``Job.events``.

        >>> async with job.events() as events:
        ...     async for event in events:
        ...         if isinstance(event, RoundEnded):
        ...             print(event.round, event.incumbent)
        """
        return self._follow()

    async def cancel(self) -> WholeJob:
        """End the job with the best that it has so far. See ``Job.cancel``.

        >>> (await job.cancel()).state
        'cancelled'
        """
        return await self._client._request(WholeJob, "DELETE", f"jobs/{self.id}")

    async def notice(self) -> Notice:
        """Ask what became of the notice of the job's end. See ``Job.notice``.

        >>> (await job.notice()).state
        'delivered'
        """
        return await self._client._request(Notice, "GET", f"jobs/{self.id}/notice")

    async def send_notice(self) -> Notice:
        """Have the notice sent again. See ``Job.send_notice``.

        >>> (await job.send_notice()).state
        'pending'
        """
        return await self._client._request(Notice, "POST", f"jobs/{self.id}/notice")

    @asynccontextmanager
    async def _follow(self) -> AsyncIterator[AsyncIterator[Result]]:
        reader = partial(JobEvents, kind=(await self.status()).kind)
        async with follow_async(self._client, f"jobs/{self.id}/events", reader) as events:
            yield events
