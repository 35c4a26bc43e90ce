"""An engine with a lifetime of its own."""

from typing import Protocol

from service.engines.base import Engine


class ServedEngine(Engine, Protocol):
    """An engine that somebody has to close."""

    async def close(self) -> None: ...
