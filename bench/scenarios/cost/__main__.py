"""The most expensive requests that need no engine, found by searching: ``python -m bench.scenarios.cost``.

A new server with a scripted engine is sent one request at a time. The search begins with every shape of ``shapes``, at
its largest, and continues by changing what was most expensive so far. Each request is measured by

* the CPU seconds of the event loop's thread, and of the whole process;
* the longest answer of ``/health/live`` while it runs, asked every 20 ms by another process on new connections,
  against the longest while nothing else runs;
* how much the process's peak memory grows, divided by the bytes of the body.
"""

import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from bench.harness.page import markdown_table
from bench.harness.scenario import Report, run_scenario, say
from bench.scenarios.cost.server import Idle, MeasuredServer, serve_scripted
from bench.scenarios.cost.shapes import SHAPES, Attack
from bench.scenarios.cost.trial import Trial, measure_request
from service.engines.scripted import Script, ScriptedEngine

LOOP_SECONDS = 1.0
LIVE_SECONDS = 0.1
MEMORY_RATIO = 20.0
SHOWN = 5
KEPT = 12
"""How many of the most expensive requests, by each measure, are changed further."""

MEASURES: Sequence[tuple[str, Callable[[Trial], float], float]] = (
    ("CPU of the loop's thread, s", lambda trial: trial.loop_seconds, LOOP_SECONDS),
    ("longest /health/live, s", lambda trial: trial.live_seconds, LIVE_SECONDS),
    ("peak memory / body", lambda trial: trial.memory_ratio, MEMORY_RATIO),
)


@dataclass(frozen=True)
class Options:
    seconds: Annotated[float, "how long to go on searching"] = 300.0
    seed: Annotated[int, "of the search"] = 0
    only: Annotated[str, "begin with the shapes whose names hold this text"] = ""


async def measure(options: Options) -> Report:
    async with serve_scripted() as server:
        idle = server.idle()
        trials = search(server, idle, options.seconds, options.seed, options.only)
    failed = any(value(trial) > bar for trial in trials for _, value, bar in MEASURES)
    accepted = sum(trial.status == 200 for trial in trials)
    setup = (
        f"{len(trials)} requests, {accepted} of them accepted. While nothing else ran, the longest /health/live took "
        f"{idle.longest:.3f} s."
    )
    return Report("scripted", setup, rank(trials), failed)


async def _start(*_: object) -> ScriptedEngine:
    return ScriptedEngine(Script(), model="scripted")


def search(server: MeasuredServer, idle: Idle, seconds: float, seed: int, only: str = "") -> list[Trial]:
    """Measure every shape once, then change the most expensive ones until the time is over.

    only: what the names of the shapes hold.
    """
    draws = random.Random(seed)  # noqa: S311 - nothing secret is drawn
    trials = []
    for attack in (attack for shape in SHAPES if only in (attack := shape(draws)).name):
        trials.append(measure_request(server, attack, idle))
        say(str(trials[-1]))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        trials.append(measure_request(server, _successor(trials, draws), idle))
        say(str(trials[-1]))
    return trials


def _successor(trials: Sequence[Trial], draws: random.Random) -> Attack:
    _, value, _ = draws.choice(MEASURES)
    worst = sorted(trials, key=value, reverse=True)[:KEPT]
    return draws.choice(worst).attack.changed(draws)


def rank(trials: Sequence[Trial]) -> Sequence[str]:
    """For each measure a table of the most expensive requests."""
    tables = []
    for name, value, bar in MEASURES:
        worst = sorted(trials, key=value, reverse=True)[:SHOWN]
        rows = [
            [trial.attack.name, f"{len(trial.attack.body):,}", str(trial.status), f"{value(trial):.3f}", f"{bar:g}"]
            for trial in worst
        ]
        tables.append(markdown_table(("request", "bytes", "status", name, "bar"), rows))
    return tables


if __name__ == "__main__":
    sys.exit(run_scenario("cost", Options, measure, _start))
