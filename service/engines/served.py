"""Engines that have to be closed, and what only some of them can do."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from service.engines.base import Engine
from service.errors import EngineUnavailable


class EngineMisconfigured(Exception):
    """The settings, or the environment, ask for what cannot be; only a new start mends it. The message is a sentence
    for the operator."""


class EngineUnusable(EngineUnavailable):
    """A server answers, but cannot serve as it is: its key, its model or its API is another. It may be set right while
    the service runs."""


class ServedEngine(Engine, Protocol):
    """An engine that somebody has to close."""

    async def close(self) -> None: ...


@runtime_checkable
class Adaptable(Protocol):
    """An engine that can put LoRA adapters on its model."""

    async def adapted(self, name: str, folder: Path) -> ServedEngine:
        """The engine with the adapter of a folder, as the model ``name``."""


@runtime_checkable
class Joining(Protocol):
    """An engine that is there before any of its servers is."""

    async def joined(self) -> None:
        """Return once it can serve. Raises what makes that impossible."""

    @property
    def missing(self) -> str:
        """Why it cannot serve yet; nothing while it is not known, or where it can."""
