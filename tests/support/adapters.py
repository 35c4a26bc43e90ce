"""Adapters for tests: in folders, as training leaves them, and in a scripted engine."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service.calibration.identity import digest_of_folders
from service.engines.scripted import EngineCall, Script, ScriptedEngine
from service.engines.served import AdapterUnusable, ServedEngine
from service.errors import EngineUnavailable
from service.learning.gate import Decision
from service.learning.launching import Launcher
from service.learning.manifest import Agreement, Manifest, Merged, Verdict
from service.learning.recipe import load_recipe
from service.learning.registry import Registry
from tests.support.serving import Served, serving

USUAL = ("q_proj", "v_proj")


@dataclass
class AdaptableEngine(ScriptedEngine):
    """A scripted engine with adapters, each of which writes its weights. It refuses those that are ``unusable``, and
    fails at every text of those that are ``failing``.

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
        script = Script(
            reply=lambda call: f"{weights}, {weights}.",
            fault=fail if weights == "failing" else lambda call: None,
            seconds_per_token=self.seconds_per_token,
        )
        return AdaptableEngine(script, model=name)

    async def drop_adapter(self, adapter: ServedEngine) -> None:
        self.inside.remove(adapter.model)

    async def close(self) -> None:
        pass


def fail(call: EngineCall) -> None:
    raise EngineUnavailable("the adapter is gone")


def make_base(folder: Path) -> Path:
    """The folder of a base model, as far as its digest needs it."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def make_merged(checkpoint: Path, agreement: Agreement) -> Merged:
    """The manifest of a merged checkpoint."""
    learned = make_manifest("a")
    return Merged(
        checkpoint="c", base="b", adapter="a", learned=learned, agreement=agreement, created="now", versions={}
    )


def make_manifest(digest: str, **fields: Any) -> Manifest:
    stated: dict[str, Any] = {
        "adapter": digest, "base": "b", "lessons": "l", "evaluators": "e", "recipe": load_recipe("quick"),
        "prompts": (), "texts": 1, "pairs": 1, "created": "2026-11-29T12:00:00+00:00", "seconds": 1.0, "versions": {},
    }  # fmt: skip
    return Manifest(**{**stated, **fields})


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
    return registry.add(trained, lambda digest: make_manifest(digest, **{"verdicts": verdicts, **fields})).adapter


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


def launch(monkeypatch: pytest.MonkeyPatch, *command: str) -> None:
    """Have services start a command in place of ``learn run``, as if the extra ``learn`` was installed."""
    monkeypatch.setattr("service.learning.process.find_spec", lambda name: object())
    monkeypatch.setattr("service.fleet.Launcher", partial(Launcher, command=command))


@dataclass
class Shop:
    """A folder of learning, and the base that its adapters are for."""

    folder: Path
    base: Path

    @property
    def registry(self) -> Registry:
        return Registry(self.folder)

    @property
    def digest(self) -> str:
        """The base's."""
        return digest_of_folders([self.base])[:16]

    def add(self, weights: str, **fields: Any) -> str:
        """Add an adapter that has passed against what is current."""
        stated = {"against": self.registry.current, "base": self.digest, **fields}
        return add_adapter(self.registry, self.folder, weights, "promote", **stated)

    def promote(self, weights: str) -> str:
        """Add an adapter that has passed, and let it serve, as the command line does."""
        digest = self.add(weights)
        self.registry.promote(digest)
        return digest

    @asynccontextmanager
    async def serving(self, seconds_per_token: float = 0.0, secret: str = "", **settings: Any) -> AsyncIterator[Served]:
        """A service whose learned model serves what is current. ``secret``: the key with which its client asks."""
        engine = AdaptableEngine(model=self.base.name, seconds_per_token=seconds_per_token)

        async def start(*_: object) -> ServedEngine:
            return engine

        stated: dict[str, Any] = {
            "engine": "vllm", "model": str(self.base), "learning_dir": self.folder, "judge_check": False, **settings
        }  # fmt: skip
        async with serving(start=start, **stated) as served:
            if secret:
                served.client.headers["Authorization"] = f"Bearer {secret}"
            await answers_as(served, self.registry.current)
            while (await served.client.get("/v1/adapters")).json().get("ready") is False:
                await asyncio.sleep(0.02)
            yield served


async def answers_as(served: Served, digest: str) -> None:
    """Return once new programs have the weights."""
    model = f"learned@{digest}" if digest else "base"
    short = {"prompt": "Write.", "model": "learned", "sampling": {"max_tokens": 1}}
    async with asyncio.timeout(30):
        while True:
            response = await served.post("/v1/generate", short)
            if response.status_code == 200 and response.json()["model"] == model:
                return
            await asyncio.sleep(0.02)
