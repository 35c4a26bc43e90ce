"""A notice to somebody outside that a job or a batch has ended, and how far its delivery has come."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

DeliveryState = Literal["waiting", "pending", "delivered", "gone", "given_up"]
Result = Literal["delivered", "retried", "gone", "given_up"]
"""What an attempt came to. ``retried``: it failed, and another follows."""

DELAYS_SECONDS = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""From each attempt that failed to the next, as Standard Webhooks recommends: three days in all."""
JITTER = (0.8, 1.2)
"""By which a delay is multiplied, so that notices that failed together are not sent together again."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a notice goes. ``receiver``: the operator's name for those who receive at this URL."""

    receiver: str
    url: str


@dataclass(frozen=True, slots=True)
class Notice:
    """What the receiver learns. ``type``: such as ``job.completed`` or ``batch.expired``."""

    type: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery as the job's caller sees it. Times are seconds since the epoch.

    state: ``waiting`` for the job's end, ``pending`` until it is ``delivered``, the receiver is ``gone``, or all
        attempts have failed (``given_up``).
    attempts: how many were made since the job's end, or since it was asked for by hand.
    tried: when the last one was made. next_attempt: when the next one is due.
    status, error: what the last one gave: the HTTP status, or why there is none.
    """

    job_id: str
    url: str
    state: DeliveryState
    attempts: int = 0
    tried: float | None = None
    next_attempt: float | None = None
    status: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class DeliveryClaim:
    """The right to make one attempt. It holds until another process claims the delivery, or it is asked for by hand.

    attempt: its number, from 1. version: distinguishes this claim from others of the delivery.
    """

    job_id: str
    destination: Destination
    message_id: str
    body: str
    attempt: int
    version: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of an attempt. ``due``: when the next one is, after one that is ``retried``."""

    result: Result
    at: float
    due: float | None = None
    status: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Backlog:
    """pending: deliveries that have not ended. overdue: those whose next attempt should have been made a while ago."""

    pending: int
    overdue: int


def next_delay(attempt: int, jitter: float, retry_after: float = 0.0) -> float | None:
    """Seconds from a failed attempt to the next; None if there is none.

    attempt: the number of the one that failed, from 1.
    jitter: from JITTER.
    retry_after: seconds that the receiver asks for. At most a day of it counts.

    >>> next_delay(1, 1.0), next_delay(2, 1.0, retry_after=600.0), next_delay(10, 1.0)
    (5.0, 600.0, None)
    """
    if attempt > len(DELAYS_SECONDS):
        return None
    return max(DELAYS_SECONDS[attempt - 1] * jitter, min(retry_after, DELAYS_SECONDS[-1]))
