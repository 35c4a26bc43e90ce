"""Transactions from asyncio: in threads, with writes that wait together committed together."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DataError, DBAPIError

from service.errors import StoreUnavailable

T = TypeVar("T")

Work = Callable[[sa.Connection], Any]
TRIES = 6
FIRST_PAUSE_SECONDS = 0.1
READERS = 2


class Transactions:
    """Runs functions on a database, each in a transaction.

    One thread writes. All functions that wait for it share one commit, because the commit is what takes long. They must
    change nothing before they raise, and must do no harm if they run twice: after a lost connection nobody knows
    whether the commit arrived.

    Raises StoreUnavailable if the database cannot be reached for some seconds, and DataError if it does not take a
    value, such as a text with U+0000: that is a bug of the function's, and harms no other.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._reading = engine.execution_options(reading=True)
        self._lasting = engine.execution_options(lasting=True)
        self._waiting: deque[_Write] = deque()
        self._taking = threading.Lock()
        self._writer = ThreadPoolExecutor(1, "store-writer")
        self._readers = ThreadPoolExecutor(READERS, "store-reader")

    def run_now(self, function: Callable[[sa.Connection], T]) -> T:
        """Run a function in a transaction of its own, in this thread. Raises SQLAlchemy's errors."""
        with self._engine.begin() as connection:
            return function(connection)

    async def write(
        self, function: Callable[[sa.Connection], T], *, lasting: bool = False, alone: bool = False, bulk: bool = False
    ) -> T:
        """Run a function that writes. What it wrote survives the end of this process.

        lasting: it also survives a power cut, which takes much longer, and with it all that was written before.
        alone: in a transaction of its own, for one that touches rows that other processes write too. Two transactions
            of many rows could each wait for the other.
        bulk: it may change many rows, or delete long ones, which are overwritten. Nobody else waits for the event loop
            meanwhile.
        """
        if alone or bulk:
            engine = self._lasting if lasting else self._engine
            return await self._in_writer(lambda: self._patiently(engine, function))
        future: Future[T] = Future()
        self._waiting.append(_Write(function, future, lasting))
        self._writer.submit(self._write_waiting)
        return await asyncio.wrap_future(future)

    async def _in_writer(self, work: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._writer.submit(work))

    async def _in_reader(self, work: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._readers.submit(work))

    async def read(self, function: Callable[[sa.Connection], T], *, brief: bool = False) -> T:
        """Run a function that reads. ``brief``: it finds its few rows by an index."""
        return await self._in_reader(lambda: self._patiently(self._reading, function))

    async def run_outside(self, function: Callable[[Any], T]) -> T:
        """Run a function on the driver's own connection, outside of any transaction, in the thread that writes."""
        return await self._in_writer(lambda: self._run_outside(function))

    def _run_outside(self, function: Callable[[Any], T]) -> T:
        connection = self._engine.raw_connection()
        try:
            return function(connection.driver_connection)
        finally:
            connection.close()

    async def close(self) -> None:
        """Finish what waits, and close the connections."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.shutdown()
        self._readers.shutdown()
        self._engine.dispose()

    def _write_waiting(self) -> None:
        with self._taking:
            batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        batch = [write for write in batch if write.future.set_running_or_notify_cancel()]
        if not batch:  # an earlier turn has taken what this one was submitted for
            return
        for write, (result, failed) in zip(batch, self._commit_together(batch), strict=True):
            if failed is None:
                write.future.set_result(result)
            else:
                write.future.set_exception(failed)

    def _commit_together(self, batch: Sequence["_Write"]) -> "list[_Outcome]":
        """What became of each function. If the database does not take a value of one, each has a commit of its own."""
        engine = self._lasting if any(write.lasting for write in batch) else self._engine
        try:
            return self._patiently(engine, lambda connection: _run_each(connection, batch))
        except DataError as error:
            if len(batch) == 1:
                return [(None, error)]
            return [outcome for write in batch for outcome in self._commit_together([write])]
        except Exception as error:  # noqa: BLE001 - each caller gets it
            return [(None, error)] * len(batch)

    def _patiently(self, engine: sa.Engine, function: Callable[[sa.Connection], T]) -> T:
        for attempt in range(TRIES):
            try:
                with engine.begin() as connection:
                    return function(connection)
            except DataError:  # another try would end alike
                raise
            except DBAPIError as error:
                if attempt == TRIES - 1:
                    raise StoreUnavailable("the service's database cannot be used") from error
                time.sleep(FIRST_PAUSE_SECONDS * 2**attempt)
        raise AssertionError("the last try returns or raises")


@dataclass(frozen=True, eq=False, slots=True)
class _Write:
    work: Work
    future: "Future[Any]"
    lasting: bool


_Outcome = tuple[Any, Exception | None]


def _run_each(connection: sa.Connection, batch: Sequence[_Write]) -> list[_Outcome]:
    """The result of each function, or what it raised; errors of the database end the whole batch."""
    outcomes: list[_Outcome] = []
    for write in batch:
        try:
            outcomes.append((write.work(connection), None))
        except DBAPIError:
            raise
        except Exception as error:  # noqa: BLE001 - its caller gets it
            outcomes.append((None, error))
    return outcomes
