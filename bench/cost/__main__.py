"""The most expensive requests that need no engine, found by searching: ``python -m bench.cost``.

A server of its own, with a scripted engine, is sent one request at a time. The search begins with every shape of
``shapes``, at its largest, and goes on by changing what was most expensive so far. Each request is measured by

* the CPU seconds of the event loop's thread, and of the whole process;
* the longest answer of ``/health/live`` while it runs, asked every 20 ms on connections of their own by a process of
  its own, against the longest while nothing else runs;
* how much the process's peak memory grows, divided by the bytes of the body.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from bench.cost.server import Idle, MeasuredServer, serving
from bench.cost.shapes import SHAPES, Attack
from bench.cost.trial import Trial, measure
from bench.origin import current_commit, origin
from bench.page import PERFORMANCE, markdown_table, publish
from service.cli.main import serve
from service.engines.scripted import Script, ScriptedEngine

LOOP_SECONDS = 1.0
LIVE_SECONDS = 0.1
MEMORY_RATIO = 20.0
SHOWN = 5
KEPT = 12
"""How many of the most expensive requests, by each measure, are worked on."""

MEASURES: Sequence[tuple[str, Callable[[Trial], float], float]] = (
    ("CPU of the loop's thread, s", lambda trial: trial.loop_seconds, LOOP_SECONDS),
    ("longest /health/live, s", lambda trial: trial.live_seconds, LIVE_SECONDS),
    ("peak memory / body", lambda trial: trial.memory_ratio, MEMORY_RATIO),
)


async def _start(*_: object) -> ScriptedEngine:
    return ScriptedEngine(Script(), model="scripted")


def search(server: MeasuredServer, idle: Idle, seconds: float, seed: int, only: str = "") -> list[Trial]:
    """Measure every shape once, then change the most expensive ones until the time is over.

    only: what the names of the shapes hold.
    """
    draws = random.Random(seed)  # noqa: S311 - nothing secret is drawn
    trials = []
    for attack in (attack for shape in SHAPES if only in (attack := shape(draws)).name):
        trials.append(measure(server, attack, idle))
        _say(trials[-1])
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        trials.append(measure(server, _successor(trials, draws), idle))
        _say(trials[-1])
    return trials


def _successor(trials: Sequence[Trial], draws: random.Random) -> Attack:
    _, value, _ = draws.choice(MEASURES)
    worst = sorted(trials, key=value, reverse=True)[:KEPT]
    return draws.choice(worst).attack.changed(draws)


def report(trials: Sequence[Trial], idle: Idle) -> str:
    parts = []
    for name, value, bar in MEASURES:
        worst = sorted(trials, key=value, reverse=True)[:SHOWN]
        rows = [
            [trial.attack.name, f"{len(trial.attack.body):,}", str(trial.status), f"{value(trial):.3f}", f"{bar:g}"]
            for trial in worst
        ]
        parts.append(markdown_table(("request", "bytes", "status", name, "bar"), rows))
    accepted = sum(trial.status == 200 for trial in trials)
    parts.append(
        f"{len(trials)} requests, {accepted} of them accepted. While nothing else ran, the longest /health/live took "
        f"{idle.longest:.3f} s."
    )
    return "\n\n".join(parts)


def _say(trial: Trial) -> None:
    print(trial, file=sys.stderr, flush=True)  # noqa: T201 - progress for who waits


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.cost")
    parser.add_argument("command", nargs="?", choices=["serve"], help="only serve, as the settings say")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long to go on searching")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="begin with the shapes whose names hold this text")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PERFORMANCE.name}")
    options = parser.parse_args()
    if options.command == "serve":
        return serve(_start)
    commit = current_commit()
    with serving() as server:
        idle = server.idle()
        trials = search(server, idle, options.seconds, options.seed, options.only)
    text = f"{report(trials, idle)}\n\n{origin('scripted', commit, datetime.now(UTC).date())}"
    publish("cost", text, write=options.write)
    return int(any(value(trial) > bar for trial in trials for _, value, bar in MEASURES))


if __name__ == "__main__":
    sys.exit(main())
