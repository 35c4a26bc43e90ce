"""Engines that have to be closed, and what only some of them can do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from service.engines.base import Engine
from service.errors import EngineUnavailable


class EngineMisconfigured(Exception):
    """The settings or the environment cannot work; only a restart with others helps. The message is a sentence for the
    operator."""


class EngineUnusable(EngineUnavailable):
    """A server answers but cannot serve: it has another key, model or API. That may be fixed while the service runs."""


class AdapterUnusable(Exception):
    """The engine cannot take an adapter. The message is a sentence for the operator."""


class ServedEngine(Engine, Protocol):
    """An engine that its owner has to close."""

    async def close(self) -> None: ...


@runtime_checkable
class Adaptable(Protocol):
    """An engine that can put LoRA adapters on its model."""

    async def load_adapter(self, name: str, folder: Path) -> ServedEngine:
        """The engine with the adapter of a folder, as the model ``name``. Raises AdapterUnusable and EngineDead."""

    async def drop_adapter(self, adapter: ServedEngine) -> None:
        """Take out an adapter that ``load_adapter`` gave and that no call uses any more. Raises EngineDead."""


@dataclass(frozen=True, slots=True)
class AdapterRoom:
    """What an engine prepares for adapters that come while it serves.

    places: how many it can hold at once.
    rank: the largest that they may have.
    layers: which ones they may change.
    """

    places: int
    rank: int
    layers: frozenset[str]


@runtime_checkable
class DeferredEngine(Protocol):
    """An engine that exists before any of its servers can serve."""

    async def wait_until_serving(self) -> None:
        """Return once it can serve; raise what makes that impossible."""

    @property
    def missing(self) -> str:
        """Why it cannot serve yet; empty if that is not known, or if it can."""
