"""What the operator gives the evaluators of this process, apart from the engine."""

from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Protocol, TypeVar, runtime_checkable

THREADS = 4

T = TypeVar("T")


@runtime_checkable
class Closable(Protocol):
    async def close(self) -> None: ...


class Toolbox:
    """The tools that this service has, at most one of each type; None is left out.

    An evaluator asks for what it needs by its type, so that this file need not know what there is:

    >>> Toolbox(Webhooks(), await Sandbox.found()).find(Sandbox)

    ``threads`` run the checks that take long. They are not the event loop's own, which decode requests: nobody's checks
    shall keep another's request from being read.
    """

    def __init__(self, *tools: object) -> None:
        self._tools = tuple(tool for tool in tools if tool is not None)
        self.threads: Executor = ThreadPoolExecutor(THREADS, thread_name_prefix="evaluator")

    def find(self, kind: type[T]) -> T | None:
        """The tool of this type, or None where the service has none."""
        return next((tool for tool in self._tools if isinstance(tool, kind)), None)

    async def close(self) -> None:
        """Checks that are queued are not begun; those at work are not waited for."""
        self.threads.shutdown(wait=False, cancel_futures=True)
        for tool in self._tools:
            if isinstance(tool, Closable):
                await tool.close()
