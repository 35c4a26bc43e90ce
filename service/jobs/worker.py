"""The worker: claims jobs, as many at once as it may, and keeps the right to them while it works."""

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from service.errors import StoreUnavailable, Unavailable
from service.jobs.attempt import Attempt, Services

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""How soon jobs are found that other processes have accepted or let go, and how soon their word is heard."""
PURGE_SECONDS = 60.0


class Worker:
    """Works on the store's jobs from ``start`` to ``hand_over``.

    max_jobs: how many at once.
    lease: seconds after which another process may take the jobs of one that is gone.
    keep: seconds for which jobs are kept once they have ended.
    check_ready: raises Unavailable while no program could run; no job is claimed then.
    """

    def __init__(
        self, services: Services, max_jobs: int, lease: float, keep: float, check_ready: Callable[[], Awaitable[None]]
    ) -> None:
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"  # no two processes have the same
        self._services = services
        self._metrics = services.runner.metrics
        self._max_jobs = max_jobs
        self._lease = lease
        self._keep = keep
        self._check_ready = check_ready
        self._attempts: dict[str, Attempt] = {}
        self._working: dict[str, asyncio.Task[None]] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()

    @property
    def at_work(self) -> int:
        """Jobs at work here."""
        return len(self._working)

    def start(self) -> None:
        """Begin to work."""
        self._loops = [asyncio.create_task(work()) for work in (self._claim_jobs, self._renew_leases, self._purge)]

    def wake(self) -> None:
        """Look for jobs now: there is a new one."""
        self._wake.set()

    def withdraw(self, job_id: str) -> None:
        """End a job that was cancelled, if it is at work here."""
        if attempt := self._attempts.get(job_id):
            attempt.withdraw()

    async def hand_over(self) -> None:
        """Stop, and let go of the jobs at work: another process, or the next one, goes on at once. The second call does
        nothing."""
        tasks = [*self._loops, *self._working.values()]
        for attempt in self._attempts.values():
            attempt.count_lost()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
            with suppress(StoreUnavailable):  # one whose claim was cut off is held by nobody, and free at once
                await self._services.store.renew(self.owner, 0.0)
        self._loops = []

    async def _claim_jobs(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            try:
                while len(self._working) < self._max_jobs and await self._claim_one():
                    pass
            except Unavailable as error:
                if isinstance(error, StoreUnavailable):
                    log.warning("no job can be claimed", extra={"reason": str(error)})

    async def _claim_one(self) -> bool:
        """Begin one job; whether there was one."""
        await self._check_ready()
        claim = await self._services.store.claim(self.owner, self._lease)
        if claim is None:
            return False
        job_id = claim.job.id
        attempt = self._attempts[job_id] = Attempt(self._services, claim)
        task = self._working[job_id] = asyncio.create_task(attempt.run())
        task.add_done_callback(lambda done: self._ended(job_id, done))
        self._metrics.count_attempt(is_first=claim.attempt == 1)
        log.info("job begun", extra={"job": job_id, "attempt": claim.attempt, "request_id": claim.order.request_id})
        return True

    def _ended(self, job_id: str, done: "asyncio.Task[None]") -> None:
        if self._working.get(job_id) is done:  # it may have been claimed again here, after another process had it
            del self._working[job_id], self._attempts[job_id]
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("a job's attempt failed", extra={"job": job_id}, exc_info=error)
        self._wake.set()

    async def _renew_leases(self) -> None:
        """Keep the jobs at work, end those that were cancelled elsewhere, and stop those that others have taken."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            working = dict(self._working)
            if not working:
                continue
            try:
                held = await self._services.store.renew(self.owner, self._lease, working.keys())
            except StoreUnavailable as error:
                log.warning("no lease can be renewed", extra={"reason": str(error)})
                continue
            for job_id, task in working.items():
                if job_id not in held and not self._is_ending(job_id):
                    self._attempts[job_id].count_lost()
                    task.cancel()
                elif held.get(job_id):
                    self.withdraw(job_id)

    def _is_ending(self, job_id: str) -> bool:
        """Whether the job has ended or is about to: it may be gone from those that are held."""
        attempt = self._attempts.get(job_id)
        return attempt is None or attempt.is_ending

    async def _purge(self) -> None:
        while True:
            with suppress(StoreUnavailable):
                if dropped := await self._services.store.purge(time.time() - self._keep):
                    log.info("jobs were dropped", extra={"jobs": dropped})
            await asyncio.sleep(PURGE_SECONDS)
