"""Running calls side by side."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def gather(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run ``calls`` concurrently and give their results in order.

    The first failure, or a cancellation, cancels the others and waits until they have ended, so that no call
    outlives this one. A failure is raised as itself, not inside an ExceptionGroup.
    """
    return await _gather(calls, return_exceptions=False)


async def settle(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Like ``gather``, but a failure lets the others finish before it is raised: what has begun is not wasted."""
    results = await _gather(calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


async def _gather(calls: Iterable[Coroutine[Any, Any, T]], *, return_exceptions: bool) -> list[Any]:
    calls = list(calls)
    if len(calls) == 1:  # needs no task of its own
        return [await calls[0]]
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks, return_exceptions=return_exceptions)
    finally:
        if unfinished := [task for task in tasks if not task.done()]:
            for task in unfinished:
                task.cancel()
            await asyncio.wait(unfinished)
