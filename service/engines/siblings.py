"""Several completions of one sample: the only place where calls fan out into siblings.

Each sibling is a separate call, so that it has its own seed and reports its own cached tokens.
"""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol, TypeVar

from service.concurrency import gather
from service.engines.base import Completion, Engine, Sample

T = TypeVar("T")


class Together(Protocol):
    """``gather`` or ``settle`` of service.concurrency: whether the first failure cancels the other calls."""

    async def __call__(self, calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]: ...


async def fan_out(
    sample: Sample, n: int, run: Callable[[int, Sample], Coroutine[Any, Any, T]], together: Together = gather
) -> list[T]:
    """Run each of ``n`` siblings of ``sample`` side by side and give the results in order.

    ``run``: is given a sibling's index and its sample. ``together``: with ``gather`` the first failure cancels the
    others; with ``settle`` they finish before it is raised. For example, keep each reply as soon as it is finished::

        async def write(index: int, sibling: Sample) -> None:
            completions[index] = await engine.call(sibling)

        await fan_out(Sample(conversation, Sampling(seed=1)), 3, write, settle)
    """
    return await together(run(index, sample.sibling(index)) for index in range(n))


async def sample_siblings(engine: Engine, sample: Sample, n: int, *, priority: int = 0) -> list[Completion]:
    """Sample ``n`` replies side by side. The first failure cancels the others."""

    async def call(_: int, sibling: Sample) -> Completion:
        return await engine.call(sibling, priority=priority)

    return await fan_out(sample, n, call)
