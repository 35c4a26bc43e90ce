"""What the rest of the service asks of jobs: take one on, tell of it, cancel it."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from service.deliveries.delivery import Delivery, Destination
from service.deliveries.sender import Sender, wanted
from service.errors import Cancelled, NotFound, Overloaded, StoreUnavailable
from service.jobs.job import Job, JobEvent, JobKind, JobState, Once, Order
from service.jobs.news import News
from service.jobs.store import JobStore, LiveJobs
from service.jobs.worker import POLL_SECONDS, Worker
from service.programs.ids import is_id, make_id
from service.programs.storage import Storage
from service.wire.problems import problem_body

RETRY_SECONDS = 10
MEASURE_SECONDS = 10.0
"""How often the jobs that have not ended are counted."""
LAST_EVENTS = ("done", "error")


class Jobs:
    """The jobs of this service.

    store: where they are kept.
    worker: who works on them here.
    news: who hears of them here.
    sender: sends the notices of their ends.
    storage: how much callers may keep.
    max_queued: how many may wait.
    on_shed: called with ``overloaded`` for each refusal.
    on_end: called with the kind and the state of each job that ends before it has begun.
    on_measure: called with the jobs that have not ended, every few seconds.
    """

    def __init__(
        self,
        store: JobStore,
        worker: Worker,
        news: News,
        sender: Sender,
        storage: Storage,
        max_queued: int,
        *,
        on_shed: Callable[[str], None],
        on_end: Callable[[JobKind, JobState], None],
        on_measure: Callable[[LiveJobs], None],
    ) -> None:
        self.worker = worker
        self.sender = sender
        self._store = store
        self._storage = storage
        self._news = news
        self._max_queued = max_queued
        self._on_shed = on_shed
        self._on_end = on_end
        self._on_measure = on_measure
        self._measuring: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work, and to send notices."""
        self._measuring = asyncio.create_task(self._measure())
        self.worker.start()
        self.sender.start()

    async def check(self, caller: str) -> None:
        """Raise Overloaded if no job would be taken on now, and StorageFull if none of the caller's would."""
        await self._storage.check(caller)
        waiting = await self._store.count_queued()
        if waiting >= self._max_queued:
            self._on_shed("overloaded")
            raise Overloaded(f"{waiting} jobs wait", retry_after=RETRY_SECONDS)

    async def add(
        self,
        kind: JobKind,
        body: str,
        caller: str,
        request_id: str,
        *,
        once: Once | None = None,
        stated: Mapping[str, Any] | None = None,
        notify: Destination | None = None,
    ) -> Job:
        """Take a request on. Once this has returned, the job will end, whatever becomes of this process.

        body: the request as JSON, with its images inside.
        once: the caller's key for it. The same request under the same key gives the same job, as long as it is kept.
        stated: what the kind shows of the request for as long as the job is kept.
        notify: where a notice of the job's end goes.

        Raises StorageFull.
        """
        order = Order(kind, body, caller, request_id, f"[{secrets.token_hex(6)}]", secrets.randbits(31))
        job = Job(make_id("job"), caller, kind, "queued", time.time(), stated=stated)
        async with self._storage.room(caller, len(body.encode())):
            kept = await self._store.add(job, order, once, notify)
        if kept != job.id:
            return await self.get(caller, kept)
        self.worker.wake()
        return job

    async def get(self, caller: str, job_id: str) -> Job:
        """A job of the caller's. Raises NotFound, also for the job of another caller."""
        job = await self._store.get(job_id) if is_id(job_id) else None
        if job is None or job.caller != caller:
            raise NotFound(f"there is no job {job_id}")
        return job

    async def list(self, caller: str, limit: int, before: str | None) -> Sequence[Job]:
        """The caller's jobs, newest first; with ``before``, those older than it."""
        return await self._store.list(caller, limit, before)

    async def cancel(self, caller: str, job_id: str, patience: float) -> Job:
        """End a job with the best that it has so far. One that has ended stays as it is.

        patience: how many seconds to wait for its end.

        Raises NotFound.
        """
        job = await self.get(caller, job_id)
        with self._news.watch(job_id) as watch:
            if not job.has_ended:
                problem = problem_body(Cancelled("the job was cancelled before it was begun"))
                if await self._store.cancel(job_id, JobEvent(1, "error", problem)):
                    self._on_end(job.kind, "cancelled")
                self.worker.withdraw(job_id)
                self.worker.wake()
                self._news.tell(job_id)
            until = time.monotonic() + patience
            while not job.has_ended and (left := until - time.monotonic()) > 0:
                await watch.wait(min(POLL_SECONDS, left))
                job = await self.get(caller, job_id)
        return job

    async def delete(self, caller: str, job_id: str) -> None:
        """Drop a job, also one that is at work: that ends. Raises NotFound."""
        await self.get(caller, job_id)
        await self._store.delete(job_id)
        self._storage.forget(caller)
        self.worker.withdraw(job_id)
        self._news.tell(job_id)

    async def events(self, job_id: str, after: int) -> AsyncGenerator[JobEvent, None]:
        """The job's events whose number is above ``after``, those that are still to come too, up to the last."""
        with self._news.watch(job_id) as watch:
            while True:
                found = await self._store.events(job_id, after)
                for event in found:
                    yield event
                    after = event.number
                    if event.name in LAST_EVENTS:
                        return
                if not found:
                    job = await self._store.get(job_id)
                    if job is None or (job.has_ended and not await self.has_events(job_id, after)):
                        return
                await watch.wait(POLL_SECONDS)

    async def notice(self, caller: str, job_id: str) -> Delivery:
        """The delivery of the notice of a job's end. Raises NotFound, also if no notice of it is wanted."""
        await self.get(caller, job_id)
        return wanted(await self.sender.get(job_id))

    async def send_again(self, caller: str, job_id: str) -> Delivery:
        """Send the notice of a job's end again, whatever became of it before. Raises NotFound as ``notice`` does."""
        await self.get(caller, job_id)
        return wanted(await self.sender.send_again(job_id))

    async def has_events(self, job_id: str, after: int) -> bool:
        """Whether there are events whose number is above ``after``."""
        return bool(await self._store.events(job_id, after))

    async def close(self) -> None:
        """Hand the jobs at work over, and the notices that are being sent."""
        await self.worker.hand_over()
        await self.sender.close()
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.wait((self._measuring,))
        self._news.tell_all()

    async def _measure(self) -> None:
        while True:
            with suppress(StoreUnavailable):
                self._on_measure(await self._store.measure())
            await asyncio.sleep(MEASURE_SECONDS)
