"""The engines of all models, from the start of their loading to their end."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack

from service.engines.served import ServedEngine
from service.errors import EngineDead, Starting

log = logging.getLogger(__name__)


class EngineLifetime:
    """A model's engine from the start of its loading to its end. Loading goes on beside the app, which answers
    meanwhile."""

    def __init__(
        self, model: str, start: Callable[[], Awaitable[ServedEngine]], on_failure: Callable[[BaseException], None]
    ) -> None:
        self._model = model
        self._start = start
        self._on_failure = on_failure
        self._loading: asyncio.Future[ServedEngine] | None = None

    async def __aenter__(self) -> "EngineLifetime":
        self._loading = asyncio.ensure_future(self._start())
        self._loading.add_done_callback(self._loaded)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._loading is None:
            return
        self._loading.cancel()
        await asyncio.wait([self._loading])
        if not self._loading.cancelled() and self._loading.exception() is None:
            await self._loading.result().close()

    def engine(self) -> ServedEngine:
        """The engine once it serves. Raises Starting before that, and EngineDead if it could not be started."""
        if self._loading is None or not self._loading.done():
            raise Starting(f"the engine of {self._model} is still loading", retry_after=5)
        if self._loading.cancelled() or self._loading.exception() is not None:
            raise EngineDead(f"the engine of {self._model} could not be started")
        return self._loading.result()

    async def loaded(self) -> ServedEngine:
        """Wait for the engine. EngineDead if it could not be started."""
        if self._loading is None:
            raise RuntimeError("loading begins when the lifetime is entered")
        await asyncio.wait([self._loading])
        return self.engine()

    def _loaded(self, loading: asyncio.Future[ServedEngine]) -> None:
        if not loading.cancelled() and (error := loading.exception()) is not None:
            log.error("the engine could not be started", extra={"model": self._model}, exc_info=error)
            self._on_failure(error)


class Fleet:
    """The engines by the names of their models, each with its own lifetime; they start side by side. The first is the
    last to be closed: others may be views of it."""

    def __init__(self, lifetimes: Mapping[str, EngineLifetime]) -> None:
        self._lifetimes = lifetimes
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Fleet":
        for lifetime in self._lifetimes.values():
            await self._stack.enter_async_context(lifetime)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def engine(self, model: str) -> ServedEngine:
        """The engine of a model. Raises what its lifetime raises while there is none."""
        return self._lifetimes[model].engine()
