"""A batch: a file of requests that are answered in the background, line by line, into other files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from service.deliveries.delivery import Notice
from service.engines.base import Usage
from service.jobs.job import JobKind

BatchState = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]
BatchEnd = Literal["failed", "completed", "expired", "cancelled"]
ENDED: tuple[BatchState, ...] = ("failed", "completed", "expired", "cancelled")
ENDPOINTS: Mapping[str, JobKind] = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "response",
    "/v1/generate": "generate",
    "/v1/critique": "critique",
    "/v1/refine": "refine",
}
"""Where the lines of a batch may go, and what they are as jobs."""


@dataclass(frozen=True, slots=True)
class LineFault:
    """What is wrong with a line of an input file, or with the file. ``line``: from 1."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many lines there are, were answered with 200, and with something else. ``usage``: of those with 200."""

    total: int = 0
    completed: int = 0
    failed: int = 0
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as its caller sees it.

    caller: the name of the caller's key. Nobody else sees the batch.
    endpoint: one of ENDPOINTS.
    input_file: the id of the file with its lines.
    window: seconds after which no line is begun.
    keep: seconds for which the files with results are kept.
    request_id: of the request that created it, for the log.
    size: bytes of the input file.
    model: as its lines name it, if all name the same.
    times: when it got into each of its states, in seconds since the epoch.
    output_file, error_file: the ids of the files with results, once there are any.
    """

    id: str
    caller: str
    endpoint: str
    input_file: str
    window: float
    keep: float
    request_id: str
    created: float
    size: int = 0
    metadata: Mapping[str, str] | None = None
    state: BatchState = "validating"
    end: BatchEnd = "completed"
    model: str | None = None
    times: Mapping[str, float] = field(default_factory=dict)
    faults: Sequence[LineFault] = ()
    counts: Counts = Counts()
    output_file: str | None = None
    error_file: str | None = None

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    @property
    def expires(self) -> float:
        return self.created + self.window


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a valid input file. ``number``: from 1, blank lines included. ``body``: the request as JSON."""

    number: int
    custom_id: str
    body: str


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a line.

    answer: the member ``response`` of a line of results, as JSON; None for a line that was not answered.
    """

    number: int
    custom_id: str
    state: Literal["completed", "failed", "cancelled", "expired"]
    answer: str | None


@dataclass(frozen=True, slots=True)
class BatchClaim:
    """The right to check a batch's lines or to write its results. It holds until another process claims the batch."""

    batch: Batch
    owner: str
    attempt: int


def make_notice(batch_id: str, end: BatchEnd) -> Notice:
    """The notice of a batch's end. It holds nothing of the requests or the results.

    >>> make_notice("batch_0192", "expired").type
    'batch.expired'
    """
    return Notice(f"batch.{end}", {"id": batch_id, "kind": "batch", "state": end})


def line_job_id(batch_id: str, number: int) -> str:
    """The id of a line as a job.

    >>> line_job_id("batch_0192", 7)
    'job-0192-7'
    """
    return f"job-{batch_id.removeprefix('batch_')}-{number}"


def parse_line_job_id(job_id: str) -> tuple[str, int]:
    """The batch's id and the line's number.

    >>> parse_line_job_id("job-0192-7")
    ('batch_0192', 7)
    """
    _, batch, number = job_id.split("-")
    return f"batch_{batch}", int(number)


def result_file_id(batch_id: str, kind: Literal["output", "error"]) -> str:
    """The id of a file with results. It is always the same, so that a file that was begun before a crash is found."""
    return f"file-{batch_id.removeprefix('batch_')}-{kind}"
