"""A job: a request that is answered in the background, and what is known of it so far."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from service.deliveries.delivery import Notice

JobKind = Literal["generate", "critique", "refine", "chat", "response"]
"""``chat`` and ``response`` are the lines of OpenAI's batches."""
JobState = Literal["queued", "running", "completed", "failed", "cancelled"]
ENDED: tuple[JobState, ...] = ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for, and everything that a later attempt needs to ask for the same.

    kind: which endpoint it was sent to.
    body: the request as JSON, with its images inside.
    caller: the name of the caller's key. Nobody else sees the job.
    request_id: of the request, for the log.
    fence: the delimiter line of the program's prompts.
    seed: what the search draws from if the request states no seed.
    """

    kind: JobKind
    body: str
    caller: str
    request_id: str
    fence: str
    seed: int


@dataclass(frozen=True, slots=True)
class Once:
    """The caller's idempotency key for a new job, and what stands for everything that was asked for under it."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job has come.

    round: the last round that ended.
    candidates: how many texts there are.
    score: the incumbent's.
    tokens: prompt and completion tokens so far.
    """

    round: int | None = None
    candidates: int = 0
    score: float | None = None
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its caller sees it. Times are seconds since the epoch.

    cancelling: it was cancelled and has not ended yet.
    finished: when it ended.
    stated: what its kind shows of the request for as long as the job is kept. None in lists.
    outcome: the answer, or the problem document if there is none. None until the job has ended, and in lists.
    """

    id: str
    caller: str
    kind: JobKind
    state: JobState
    created: float
    started: float | None = None
    finished: float | None = None
    cancelling: bool = False
    progress: Progress = Progress()
    stated: Mapping[str, Any] | None = None
    outcome: Mapping[str, Any] | None = None

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened in a job, as its caller sees it. ``number``: from 1, without gaps."""

    number: int
    name: str
    data: Mapping[str, Any]

    @property
    def key(self) -> str:
        """What tells the event from all others of its job. An attempt that repeats recorded steps meets it again."""
        data = self.data
        match self.name:
            case "candidate":
                return f"candidate {data['id']}"
            case "evaluation":
                return f"evaluation {data['candidate']}"
            case "critique":
                return f"critique {data['round']} {data['candidate']}"
            case "round":
                return f"round {data['round']}"
            case _:
                return self.name


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a job. It holds until another process claims the job.

    owner, attempt: who works, and the how-manieth attempt it is. Every write for the job states both.
    idle_attempts: how many attempts in a row, this one included, have recorded nothing yet.
    worked: seconds of work in earlier attempts.
    events: how many events there are, and ``keys``, those of all of them.
    """

    job: Job
    order: Order
    owner: str
    attempt: int
    idle_attempts: int
    worked: float
    events: int
    keys: frozenset[str] = field(repr=False)


class JobTaken(Exception):
    """Another process has claimed the job: nothing more may be written for it."""


def make_notice(job_id: str, kind: JobKind, state: JobState) -> Notice:
    """The notice of a job's end. It holds nothing of the request or the result.

    >>> make_notice("job-1", "refine", "completed").type
    'job.completed'
    """
    return Notice(f"job.{state}", {"id": job_id, "kind": kind, "state": state})


def name_program(job_id: str, program_id: str) -> str:
    """The id of a job's program, which is the same in all attempts: the job's after the program's own prefix.

    >>> name_program("job-0192", "ref-53ab")
    'ref-0192'
    """
    return job_id.replace("job", program_id.partition("-")[0], 1)


def to_json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
