"""Where batches are kept: what the rest of the room asks of a store."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from service.batches.batch import Batch, BatchClaim, Line, LineFault, Result
from service.deliveries.delivery import Destination
from service.jobs.store import WorkStore


class LineStore(WorkStore, Protocol):
    """Lines of batches, as jobs."""

    def watch(self, on_ended: Callable[[], None]) -> None:
        """Have ``on_ended`` called whenever a line has ended here."""


class BatchStore(Protocol):
    """Keeps batches and their lines. What a method has written survives a power cut, except for lines that were added
    to a batch that has not begun.

    Methods raise StoreUnavailable if the database cannot be reached. Those that take a BatchClaim raise JobTaken if it
    no longer holds, and have then changed nothing.
    """

    @property
    def lines(self) -> LineStore:
        """The lines of the batches at work, as jobs."""

    async def add(self, batch: Batch, notify: Destination | None = None) -> None:
        """Keep a new batch. ``notify``: where a notice of its end goes. It is made in the transaction that ends the
        batch, and dropped with the batch."""

    async def get(self, batch_id: str) -> Batch | None:
        """A batch; None if there is no such batch."""

    async def list(self, caller: str, limit: int, after: str | None) -> Sequence[Batch]:
        """The caller's batches, newest first; with ``after``, those older than it."""

    async def held(self, caller: str | None = None) -> int:
        """Bytes of the input of the caller's batches that have not ended, or of all."""

    async def count_open(self) -> int:
        """How many batches have not ended."""

    async def cancel(self, batch_id: str) -> None:
        """End a batch that has not ended: its lines that wait are not begun, and those at work end."""

    async def end_overdue(self) -> None:
        """The same for the batches whose time is over."""

    async def claim(self, owner: str, lease: float) -> BatchClaim | None:
        """Take a batch whose lines are to be checked or whose results are to be written. None if there is none.

        lease: seconds for which nobody else gets it.
        """

    async def add_lines(self, claim: BatchClaim, lines: Sequence[Line]) -> None:
        """Keep lines, if there are any, which are not begun yet. Renews the lease."""

    async def begin(self, claim: BatchClaim, model: str | None) -> None:
        """Let the lines of a batch begin. ``model``: the batch's."""

    async def fail(self, claim: BatchClaim, faults: Sequence[LineFault]) -> None:
        """End a batch that is not valid."""

    async def begin_finalizing(self, claim: BatchClaim) -> None:
        """Note that the results are written. Renews the lease."""

    async def results(self, claim: BatchClaim, after: int, limit: int) -> Sequence[Result]:
        """The results of the lines after one, in the order of the file. Renews the lease."""

    async def finish(self, claim: BatchClaim, files: Mapping[str, str]) -> None:
        """End a batch. Its lines are dropped. ``files``: ids by the names of the batch's fields."""

    async def release(self, claim: BatchClaim, delay: float) -> None:
        """Let others take the batch, after ``delay`` seconds."""

    async def purge(self, ended_before: float) -> int:
        """Drop the batches that ended before a time; how many there were."""
