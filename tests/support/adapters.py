"""Adapters for tests: in folders, as training leaves them, and in a scripted engine."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.calibration.identity import digest_of_folders
from service.engines.scripted import Script, ScriptedEngine
from service.engines.served import AdapterUnusable, ServedEngine
from service.learning.gate import Decision
from service.learning.manifest import Manifest, Verdict
from service.learning.recipe import load_recipe
from service.learning.registry import Registry

USUAL = ("q_proj", "v_proj")


@dataclass
class AdaptableEngine(ScriptedEngine):
    """A scripted engine with adapters, each of which writes its weights. It refuses those that are ``unusable``.

    inside: the models of the adapters that are loaded. most: how many there were at once.
    """

    inside: list[str] = field(default_factory=list)
    most: int = 0
    seconds_per_token: float = 0.0

    async def load_adapter(self, name: str, folder: Path) -> ServedEngine:
        weights = (folder / "adapter_model.safetensors").read_text()
        if weights == "unusable":
            raise AdapterUnusable("vLLM cannot load the adapter: its shapes do not fit")
        self.inside.append(name)
        self.most = max(self.most, len(self.inside))
        script = Script(reply=lambda call: f"{weights}, {weights}.", seconds_per_token=self.seconds_per_token)
        return AdaptableEngine(script, model=name)

    async def drop_adapter(self, adapter: ServedEngine) -> None:
        self.inside.remove(adapter.model)

    async def close(self) -> None:
        pass


def make_base(folder: Path) -> Path:
    """The folder of a base model, as far as its digest needs it."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def digest_of_base(folder: Path) -> str:
    return digest_of_folders([folder])[:16]


def add_adapter(
    registry: Registry,
    folder: Path,
    weights: str,
    *decisions: Decision,
    against: str = "",
    rank: int = 8,
    layers: Sequence[str] = USUAL,
    **fields: Any,
) -> str:
    """Add an adapter with an exam for each decision, and return its digest. ``fields``: of its manifest."""
    trained = folder / f"trained {weights}"
    trained.mkdir()
    (trained / "adapter_config.json").write_text(json.dumps({"r": rank, "target_modules": list(layers)}))
    (trained / "adapter_model.safetensors").write_text(weights)
    verdicts = tuple(make_verdict(decision, against) for decision in decisions)

    def describe(digest: str) -> Manifest:
        stated: dict[str, Any] = {
            "adapter": digest, "base": "b", "lessons": "l", "evaluators": "e", "recipe": load_recipe("quick"),
            "prompts": (), "texts": 1, "pairs": 1, "created": "2026-11-29T12:00:00+00:00", "seconds": 1.0,
            "versions": {}, "verdicts": verdicts,
        }  # fmt: skip
        return Manifest(**{**stated, **fields})

    return registry.add(trained, describe).adapter


def make_verdict(decision: Decision, against: str) -> Verdict:
    return Verdict(
        decision=decision,
        reasons=("because",),
        against=against,
        exam="x",
        attempt=1,
        evaluators="e",
        created="2026-11-29T12:00:00+00:00",
        figures={},
    )
