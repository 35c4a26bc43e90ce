"""An engine with a lifetime of its own."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from service.engines.base import Engine


class ServedEngine(Engine, Protocol):
    """An engine that somebody has to close."""

    async def close(self) -> None: ...


@runtime_checkable
class Adaptable(Protocol):
    """An engine that can put LoRA adapters on its model."""

    async def adapted(self, name: str, folder: Path) -> ServedEngine:
        """The engine with the adapter of a folder, as the model ``name``."""
