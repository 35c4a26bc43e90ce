"""The sender: makes the attempts that are due, some at once for each receiver, and plans those that follow."""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from service.deliveries.delivery import JITTER, Backlog, Delivery, DeliveryClaim, Result, Settlement, next_delay
from service.deliveries.receivers import Answer, DeliveryFailed, Receivers
from service.deliveries.store import DeliveryStore
from service.errors import NotFound, StoreUnavailable

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
LEASE_SECONDS = 60.0
"""After which another process makes an attempt that one did not settle. More than an attempt can take."""
MOST_AT_ONCE = 4
"""Attempts at once for each receiver, so that a slow one holds nobody else up."""
MEASURE_SECONDS = 10.0
PATIENCE_SECONDS = 60.0
"""How long a delivery may be due before it counts as overdue."""


class Sender:
    """Sends notices from ``start`` to ``close``, if there are receivers.

    store: where deliveries are kept.
    receivers: who may get notices.
    clock: the time, in seconds since the epoch.
    on_attempt: called with the receiver's name and the result of each attempt.
    on_backlog: called with what is pending, every few seconds.
    """

    def __init__(
        self,
        store: DeliveryStore,
        receivers: Receivers,
        *,
        clock: Callable[[], float] = time.time,
        on_attempt: Callable[[str, Result], None] = lambda receiver, result: None,
        on_backlog: Callable[[Backlog], None] = lambda backlog: None,
    ) -> None:
        self.receivers = receivers
        self._store = store
        self._clock = clock
        self._on_attempt = on_attempt
        self._on_backlog = on_backlog
        self._loops: list[asyncio.Task[None]] = []
        self._attempts: dict[asyncio.Task[None], str] = {}
        self._wake = asyncio.Event()

    def start(self) -> None:
        """Begin to send."""
        if self.receivers.names:
            self._loops = [asyncio.create_task(work()) for work in (self._send_due, self._measure)]

    def wake(self) -> None:
        """Look now for what is due: a job has ended."""
        self._wake.set()

    async def get(self, job_id: str) -> Delivery | None:
        """The delivery of the notice of a job's end; None if nobody wants one."""
        return await self._store.get(job_id)

    async def send_again(self, job_id: str) -> Delivery | None:
        """Begin the attempts again, whatever became of earlier ones. See DeliveryStore."""
        found = await self._store.send_again(job_id, self._clock())
        self.wake()
        return found

    async def close(self) -> None:
        """Stop. Attempts that have not ended are made again, by another process or after the next start."""
        tasks = [*self._loops, *self._attempts]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self.receivers.close()

    async def _send_due(self) -> None:
        while True:
            try:
                while (free := self._free()) and (claim := await self._claim(free)):
                    self._begin(claim)
            except StoreUnavailable as error:
                log.warning("no notice can be sent", extra={"reason": str(error)})
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()
            self._wake.clear()

    async def _claim(self, receivers: list[str]) -> DeliveryClaim | None:
        return await self._store.claim(receivers, self._clock(), LEASE_SECONDS)

    def _free(self) -> list[str]:
        """The receivers for whom another attempt may begin."""
        busy = Counter(self._attempts.values())
        return [name for name in self.receivers.names if busy[name] < MOST_AT_ONCE]

    def _begin(self, claim: DeliveryClaim) -> None:
        task = asyncio.create_task(self._attempt(claim))
        self._attempts[task] = claim.destination.receiver
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        del self._attempts[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a notice could not be sent", exc_info=error)
        self.wake()

    async def _attempt(self, claim: DeliveryClaim) -> None:
        try:
            settlement = self._judge(claim, await self._send(claim))
        except DeliveryFailed as error:
            settlement = self._plan(claim, error=str(error))
        except asyncio.CancelledError:
            with suppress(StoreUnavailable):
                await self._store.release(claim, self._clock())
            raise
        if await self._store.settle(claim, settlement):
            self._report(claim, settlement)

    async def _send(self, claim: DeliveryClaim) -> Answer:
        url, receiver = claim.destination.url, self.receivers.get(claim.destination.receiver)
        if not receiver.allows(url):
            raise DeliveryFailed("the operator no longer allows notices to this URL")
        return await receiver.send(url, claim.message_id, claim.body, self._clock())

    def _judge(self, claim: DeliveryClaim, answer: Answer) -> Settlement:
        if 200 <= answer.status < 300:
            return Settlement("delivered", self._clock(), status=answer.status)
        if answer.status == 410:
            return Settlement("gone", self._clock(), status=answer.status)
        return self._plan(claim, answer.retry_after, status=answer.status)

    def _plan(
        self, claim: DeliveryClaim, retry_after: float = 0.0, *, status: int | None = None, error: str | None = None
    ) -> Settlement:
        """What follows an attempt that failed."""
        now = self._clock()
        jitter = random.uniform(*JITTER)  # noqa: S311 - nobody gains by guessing it
        delay = next_delay(claim.attempt, jitter, retry_after)
        if delay is None:
            return Settlement("given_up", now, status=status, error=error)
        return Settlement("retried", now, now + delay, status, error)

    def _report(self, claim: DeliveryClaim, settlement: Settlement) -> None:
        receiver, result = claim.destination.receiver, settlement.result
        self._on_attempt(receiver, result)
        log.log(
            logging.INFO if result == "delivered" else logging.WARNING,
            "notice sent" if result == "delivered" else "a notice was not delivered",
            extra={
                "job": claim.job_id,
                "receiver": receiver,
                "attempt": claim.attempt,
                "result": result,
                "status": settlement.status,
                "reason": settlement.error,
            },
        )

    async def _measure(self) -> None:
        while True:
            with suppress(StoreUnavailable):
                self._on_backlog(await self._store.measure(self._clock(), PATIENCE_SECONDS))
            await asyncio.sleep(MEASURE_SECONDS)


def wanted(delivery: Delivery | None) -> Delivery:
    """The delivery. Raises NotFound if there is none."""
    if delivery is None:
        raise NotFound("no notice of this end is wanted")
    return delivery
