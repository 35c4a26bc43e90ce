"""Where deliveries are kept: what the rest of the room asks of a store."""

from collections.abc import Collection
from typing import Protocol

from service.deliveries.delivery import Backlog, Delivery, DeliveryClaim, Settlement


class DeliveryStore(Protocol):
    """Keeps deliveries. A delivery is made together with its job, becomes due in the transaction that ends the job, and
    is dropped with it: the store of the jobs does that. The same holds for batches, whose ids take the place of a
    job's.

    Times are the caller's, in seconds since the epoch. Methods raise StoreUnavailable.
    """

    async def get(self, job_id: str) -> Delivery | None:
        """The delivery for a job; None if nobody wants a notice of it."""

    async def claim(self, receivers: Collection[str], now: float, lease: float) -> DeliveryClaim | None:
        """Take the delivery that has been due for longest. None if none is due.

        receivers: those to whom it may go.
        lease: seconds for which nobody else gets it.
        """

    async def settle(self, claim: DeliveryClaim, settlement: Settlement) -> bool:
        """Note what became of an attempt; whether the claim still held. If the receiver is gone, all that is pending
        for its URL ends."""

    async def release(self, claim: DeliveryClaim, now: float) -> None:
        """Let another process make the attempt, at once."""

    async def send_again(self, job_id: str, now: float) -> Delivery | None:
        """Begin the attempts again, whatever became of earlier ones, and return the delivery. One that waits for the
        job's end goes on waiting."""

    async def measure(self, now: float, patience: float) -> Backlog:
        """Count what is pending. Overdue is what has been due for ``patience`` seconds."""
