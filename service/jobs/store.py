"""Where jobs are kept: what the rest of the room asks of a store."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from service.deliveries.delivery import Destination
from service.jobs.job import Claim, Job, JobEvent, JobState, Once, Order, Progress


@dataclass(frozen=True, slots=True)
class Step:
    """A call of an engine or an evaluator, and what it gave.

    key: what was called, and how. occurrence: the how-manieth call of that key in the job, from 0.
    result: as JSON. seconds: how long it took.
    """

    key: str
    occurrence: int
    result: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LiveJobs:
    """The jobs that have not ended. ``oldest_queued``: when the oldest that waits was created, in seconds since the
    epoch; None if none waits."""

    queued: int
    running: int
    oldest_queued: float | None


class WorkStore(Protocol):
    """Keeps jobs while they are worked on, with their steps and events. What a method has written survives the end of
    this process. The ends of jobs also survive a power cut; of steps and events it may take the last, which are then
    computed again.

    Methods raise StoreUnavailable if the database cannot be reached. Those that take a Claim raise JobTaken if it no
    longer holds, and have then changed nothing.
    """

    async def claim(self, owner: str, lease: float) -> Claim | None:
        """Take a job that waits, or that another process has let go for longer than its lease. None if there is none.

        Jobs that are to end come first, then those of processes that are gone. Of the jobs that wait, callers take
        turns.

        lease: seconds for which nobody else gets it. Every write for it renews them.
        """

    async def renew(self, owner: str, lease: float, job_ids: Collection[str] | None = None) -> Mapping[str, bool]:
        """Renew the leases of those of ``job_ids`` that the owner holds: their ids, and whether each is to be
        cancelled. By default of all that it holds."""

    async def steps(self, job_id: str) -> Sequence[Step]:
        """What was recorded of a job."""

    async def record(self, claim: Claim, step: Step, worked: float) -> None:
        """Record a step. ``worked``: the job's seconds of work so far."""

    async def append(self, claim: Claim, event: JobEvent, progress: Progress) -> None:
        """Keep an event."""

    async def finish(self, claim: Claim, state: JobState, event: JobEvent, progress: Progress) -> None:
        """End the job with its last event, whose data is the outcome. Its steps and its order are dropped."""

    async def release(self, claim: Claim, worked: float, delay: float) -> None:
        """Put the job back to wait, for ``delay`` seconds at least."""

    async def purge(self, ended_before: float) -> int:
        """Drop the jobs that ended before a time, with everything of theirs; how many there were."""


class JobStore(WorkStore, Protocol):
    """Keeps jobs. New ones and cancellations also survive a power cut."""

    async def add(self, job: Job, order: Order, once: Once | None = None, notify: Destination | None = None) -> str:
        """Keep a new job; its id. With ``once``, that of the caller's job of before, if it was the same and is still
        kept. ``notify``: where a notice of its end goes; it becomes due in the transaction of the end."""

    async def get(self, job_id: str) -> Job | None:
        """A job with its outcome; None if there is no such job."""

    async def list(self, caller: str, limit: int, before: str | None = None) -> Sequence[Job]:
        """The caller's newest jobs without their outcomes, newest first; with ``before``, those older than it."""

    async def events(self, job_id: str, after: int) -> Sequence[JobEvent]:
        """The events of a job whose number is above ``after``."""

    async def count_queued(self) -> int:
        """How many jobs wait."""

    async def measure(self) -> LiveJobs:
        """Count the jobs that have not ended."""

    async def held(self, caller: str | None) -> int:
        """Bytes of the caller's jobs, or of all: their requests until they end, their events and their results."""

    async def cancel(self, job_id: str, event: JobEvent) -> bool:
        """Note that a job is to end. One that no attempt has begun ends here, with ``event`` as its only event and its
        outcome; whether it did."""

    async def delete(self, job_id: str) -> None:
        """Drop a job with everything of its. Who works on it can write nothing more."""
