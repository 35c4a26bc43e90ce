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

    An evaluator asks for what it needs by its type, so this file imports none of the tools:

    >>> Toolbox(Webhooks(), await Sandbox.find()).find(Sandbox)

    ``threads`` run the checks that take long. They are not those of the event loop, which decode requests, so that
    the checks of one caller do not delay the reading of another's request.
    """

    def __init__(self, *tools: object) -> None:
        self._tools = tuple(tool for tool in tools if tool is not None)
        self.threads: Executor = ThreadPoolExecutor(THREADS, thread_name_prefix="evaluator")

    def find(self, kind: type[T]) -> T | None:
        """The tool of this type, or None if the service does not have it."""
        return next((tool for tool in self._tools if isinstance(tool, kind)), None)

    async def close(self) -> None:
        """Drop the checks that are queued, and do not wait for those that are running."""
        self.threads.shutdown(wait=False, cancel_futures=True)
        for tool in self._tools:
            if isinstance(tool, Closable):
                await tool.close()
