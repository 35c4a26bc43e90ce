"""Runs calls concurrently."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


async def gather(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run ``calls`` concurrently and return their results in order.

    The first failure, or a cancellation, cancels the others and waits until they have ended, so that no call outlives
    this one. The failure is raised itself, not inside an ExceptionGroup.

    >>> first, second = await gather([engine.call(one), engine.call(other)])
    """
    return await _gather(calls, return_exceptions=False)


async def settle(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Like ``gather``, but after a failure the others finish before it is raised, so that their work is not wasted."""
    results = await _gather(calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


async def _gather(calls: Iterable[Coroutine[Any, Any, T]], *, return_exceptions: bool) -> list[Any]:
    calls = list(calls)
    if len(calls) == 1:  # does not need a task
        return [await calls[0]]
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks, return_exceptions=return_exceptions)
    finally:
        if unfinished := [task for task in tasks if not task.done()]:
            for task in unfinished:
                task.cancel()
            await asyncio.wait(unfinished)


class SerialThread:
    """Runs functions in threads of ``executor``, by default the event loop's, one at a time.

    Functions that are submitted together run in one turn, so that many short ones cost little. A turn ends after 50 ms,
    and another SerialThread may get the thread. A function whose caller is cancelled before its turn does not run.

    >>> await SerialThread().run(sorted, [2, 1])
    [1, 2]
    """

    def __init__(self, executor: Executor | None = None) -> None:
        self._executor = executor
        self._waiting: deque[_Job] = deque()
        self._running = False

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a function in a thread. Returns its result, or raises what it raises."""
        loop = asyncio.get_running_loop()
        job = _Job(partial(function, *arguments), loop.create_future())
        self._waiting.append(job)
        if not self._running:
            self._running = True
            loop.call_soon(self._start)  # functions that are submitted until then run in the same turn
        result: T = await job.outcome
        return result

    def _start(self) -> None:
        try:
            running = asyncio.get_running_loop().run_in_executor(self._executor, self._work)
        except RuntimeError:  # the executor has been shut down
            self._give_up()
        else:
            running.add_done_callback(self._deliver)

    def _work(self) -> "Sequence[_Done]":
        done = []
        end = time.monotonic() + _TURN_SECONDS
        while self._waiting and time.monotonic() < end:
            job = self._waiting.popleft()
            if not job.outcome.cancelled():
                done.append((job.outcome, *job.attempt()))
        return done

    def _deliver(self, running: "asyncio.Future[Sequence[_Done]]") -> None:
        if running.cancelled():
            self._give_up()
            return
        for outcome, result, error in running.result():
            if outcome.cancelled():
                continue
            if error is None:
                outcome.set_result(result)
            else:
                outcome.set_exception(error)
        self._running = bool(self._waiting)
        if self._running:
            self._start()

    def _give_up(self) -> None:
        for job in self._waiting:
            job.outcome.cancel()
        self._waiting.clear()
        self._running = False


_TURN_SECONDS = 0.05


@dataclass(frozen=True, eq=False, slots=True)
class _Job:
    function: Callable[[], Any]
    outcome: "asyncio.Future[Any]"

    def attempt(self) -> "tuple[Any, Exception | None]":
        """The function's result, or what it raised; a RuntimeError for an exception that a future cannot hold."""
        try:
            return self.function(), None
        except BaseException as error:  # noqa: BLE001 - its caller gets it
            if isinstance(error, Exception) and not isinstance(error, StopIteration):
                return None, error
            failed = RuntimeError(f"a function in a thread raised {type(error).__name__}")
            failed.__cause__ = error
            return None, failed


_Done = tuple["asyncio.Future[Any]", Any, Exception | None]
