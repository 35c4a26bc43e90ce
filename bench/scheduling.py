"""What the engine's order of calls does to whole programs under too much load: ``python -m bench.scheduling``.

Every arm is a service of its own, set the same but for what the arm states. The first arm is the baseline: the engine
takes calls as they come and knows nothing of programs (its policy ``fcfs`` does not look at priorities). The others
leave the engine its policy ``priority``, by the priorities that the service gives.

Programs come in *decks* of 20, each in its own random order, so that every load has the same mix:

- 16 short ones: 8 critiques of a given text (three judge calls, then one for feedback) and 8 refines whose draft often
  keeps its rule (one call or two),
- 3 medium ones: self-refine with a judge of one criterion and the model as critic, two rounds (eight calls),
- 1 long one: in turn a beam of three rounds or an adaptive search of six (about 30 calls).

Medium and long ones have a rule that no text keeps, so that they go on to their last round. All texts are short, so
that a program is as long as it has calls.

Capacity is measured once, by a closed loop on the baseline. Then each arm gets the same programs at the same
independent moments, more than capacity, and is waited for until the last is answered. All latencies are from when a
program was due. Admission lets all programs in, so that waiting happens in the engine's queue, which is compared.
"""

import argparse
import asyncio
import json
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from statistics import fmean
from typing import Any, Literal

import aiohttp
import numpy as np

from bench.open_loop import Answer, capacity, open_loop, poisson_arrivals, post, unlimited_client
from bench.origin import current_commit, origin
from bench.page import markdown_table, publish
from bench.servers import redraft
from service.settings import Settings

LEAST_LATENCY_RATIO = 1.5  # of the mean or of p95, the baseline's to the arm's
LEAST_THROUGHPUT_RATIO = 0.97  # the arm's to the baseline's
CAPACITY_PROGRAMS = 48  # under way in the closed loop: enough to keep the engine's batch full
CAPACITY_SEED, WARM_UP_SEED = 1_000_001, 1_000_002  # other programs than the load's, which none then has cached
SETTINGS: Mapping[str, str] = {"REDRAFT_MAX_PROGRAMS": "2048"}
"""Of every arm."""

Arm = Mapping[str, str]
"""What a service is told beside SETTINGS, as its environment; REDRAFT_ENGINE_ARGS adds to those of all arms."""

ARMS: Mapping[str, Arm] = {
    "calls first come, first served": {"REDRAFT_ENGINE_ARGS": '{"scheduling_policy": "fcfs"}'},
    "programs by priority": {},
}
"""By name, the baseline first."""

Size = Literal["short", "medium", "long"]
SIZES: Sequence[Size] = ("short", "medium", "long")


@dataclass(frozen=True)
class Program:
    size: Size
    path: str
    body: Mapping[str, Any]


def programs(seed: int) -> Iterator[Program]:
    """Deck after deck; of one seed always the same, and no two programs alike."""
    draws = random.Random(seed)  # noqa: S311 - nothing secret is drawn
    deck = 0
    while True:
        makers = [*[_critique] * 8, *[_short_refine] * 8, *[_medium] * 3, _adaptive if deck % 2 else _beam]
        draws.shuffle(makers)
        for make in makers:
            yield make(draws.randrange(10**6))
        deck += 1


CRITERION = {"name": "usefulness", "question": "Would the reply help a visitor of the town?"}


def _critique(number: int) -> Program:
    body = {
        "prompt": f"Guide {number}: what is there to see in the harbour?",
        "candidate": f"Boat {number} leaves at noon. There is an old crane, and a shop that sells fish and rope.",
        "sampling": {"max_tokens": 48},
    }
    return Program("short", "/v1/critique", body)


def _short_refine(number: int) -> Program:
    rule = {"type": "length", "unit": "words", "max": 25}
    return _refine("short", number, {"preset": "self_refine", "rounds": 1}, evaluators=[rule], judge=False)


def _medium(number: int) -> Program:
    return _long(number, {"preset": "self_refine", "rounds": 2, "critic": "model"}, "medium")


def _beam(number: int) -> Program:
    return _long(number, {"preset": "beam", "rounds": 3})


def _adaptive(number: int) -> Program:
    return _long(number, {"preset": "adaptive", "rounds": 6})


def _long(number: int, search: Mapping[str, Any], size: Size = "long") -> Program:
    never_kept = {"type": "keywords", "include": ["zeugma", "quokka", "syzygy"]}
    return _refine(size, number, search, criteria=[CRITERION], evaluators=[never_kept], stop={"patience": 10})


def _refine(size: Size, number: int, search: Mapping[str, Any], **fields: Any) -> Program:
    body = {
        "prompt": f"Guide {number}: describe the market of a small town in one sentence.",
        "search": search,
        "sampling": {"max_tokens": 48, "seed": number},
        "trace": False,
        **fields,
    }
    return Program(size, "/v1/refine", body)


@dataclass(frozen=True)
class Outcome:
    """``seconds``: from when the program was due to its answer. ``calls``: of the engine."""

    size: Size
    seconds: float
    calls: int


@dataclass(frozen=True)
class Run:
    """One load on one arm. ``seconds``: from its begin to its last answer. ``failed``: programs without a result."""

    arm: str
    seconds: float
    outcomes: Sequence[Outcome]
    failed: int

    @property
    def throughput(self) -> float:
        """Programs a second."""
        return len(self.outcomes) / self.seconds


async def measured_capacity(arm: Arm, options: argparse.Namespace) -> float:
    """Programs a second."""
    async with (
        redraft(environment(arm, options.max_num_seqs)) as server,
        unlimited_client(server.url) as client,
    ):
        asked = programs(CAPACITY_SEED)

        async def send(number: int, due: float) -> Answer:
            program = next(asked)
            return await post(client, program.path, program.body, due)

        return await capacity(CAPACITY_PROGRAMS, options.warm_up, options.capacity_seconds, send)


async def run(name: str, arm: Arm, rate: float, seed: int, options: argparse.Namespace) -> Run:
    """The load of ``seed`` on a service of its own."""
    arrivals = poisson_arrivals(rate, options.seconds, seed)
    async with (
        redraft(environment(arm, options.max_num_seqs)) as server,
        unlimited_client(server.url) as client,
    ):
        await _load(client, WARM_UP_SEED, [0.0] * 20)  # what is done once is done before
        began = asyncio.get_running_loop().time()
        answers = await _load(client, seed, arrivals)
    return made(name, began, list(zip((program.size for program in programs(seed)), answers, strict=False)))


async def _load(client: aiohttp.ClientSession, seed: int, arrivals: Sequence[float]) -> Sequence[Answer]:
    drawn = programs(seed)
    asked = [next(drawn) for _ in arrivals]
    return await open_loop(arrivals, lambda number, due: post(client, asked[number].path, asked[number].body, due))


def made(arm: str, began: float, answers: Sequence[tuple[Size, Answer]]) -> Run:
    """The run that these answers make, which are those to programs of such sizes."""
    outcomes = [
        Outcome(size, answer.seconds, calls_of(answer.body))
        for size, answer in answers
        if answer.status == HTTPStatus.OK
    ]
    last = max(answer.ended for _, answer in answers)
    return Run(arm, last - began, outcomes, failed=len(answers) - len(outcomes))


def calls_of(body: bytes) -> int:
    """The engine calls that an answer tells of, a critique's or a refine's."""
    usage = json.loads(body)["usage"]
    calls: int = usage.get("total", usage)["calls"]
    return calls


def environment(arm: Arm, max_num_seqs: int) -> Mapping[str, str]:
    """What a service of that arm is told."""
    arguments = {"max_num_seqs": max_num_seqs, **json.loads(arm.get("REDRAFT_ENGINE_ARGS", "{}"))}
    return {**SETTINGS, **arm, "REDRAFT_ENGINE_ARGS": json.dumps(arguments)}


def order(arms: Sequence[str], repetition: int) -> Sequence[str]:
    """Backwards every second time, so that no arm always goes first."""
    return arms[::-1] if repetition % 2 else arms


COLUMNS = ("arm", "programs", "number", "calls", "mean, s", "p50, s", "p95, s", "p99, s", "programs/s", "failed")


def table(runs: Sequence[Run]) -> str:
    """Each arm's runs together, whole and by size, as a Markdown table."""
    rows = []
    for arm, of_arm in by_arm(runs).items():
        for size in ("all", *SIZES):
            chosen = [outcome for outcome in outcomes(of_arm) if size in ("all", outcome.size)]
            if chosen:
                seconds = [outcome.seconds for outcome in chosen]
                found = (fmean(seconds), *np.percentile(seconds, (50, 95, 99)))
                times = [f"{value:.1f}" for value in found]
                calls = f"{fmean(outcome.calls for outcome in chosen):.1f}"
                rate = [f"{mean_throughput(of_arm):.2f}", f"{sum(run.failed for run in of_arm)}"]
                rows.append([arm, size, f"{len(chosen)}", calls, *times, *(rate if size == "all" else ("", ""))])
    return markdown_table(COLUMNS, rows)


@dataclass(frozen=True)
class Ratio:
    """``pooled``: of all runs together. ``least``, ``most``: of the repetitions."""

    pooled: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.pooled:.2f} ({self.least:.2f} to {self.most:.2f})"


def ratio(above: Sequence[Run], below: Sequence[Run], value: Callable[[Sequence[Run]], float]) -> Ratio:
    """Of the values of two arms, whose runs are in the order of their repetitions."""
    each = [value([one]) / value([other]) for one, other in zip(above, below, strict=True)]
    return Ratio(value(above) / value(below), min(each), max(each))


def mean_seconds(runs: Sequence[Run]) -> float:
    return fmean(outcome.seconds for outcome in outcomes(runs))


def p95_seconds(runs: Sequence[Run]) -> float:
    return float(np.percentile([outcome.seconds for outcome in outcomes(runs)], 95))


def mean_throughput(runs: Sequence[Run]) -> float:
    return fmean(run.throughput for run in runs)


def comparison(runs: Sequence[Run]) -> str:
    """Every other arm against the first, as a Markdown table."""
    (baseline, before), *others = by_arm(runs).items()
    rows = []
    for arm, after in others:
        mean, p95 = ratio(before, after, mean_seconds), ratio(before, after, p95_seconds)
        throughput = ratio(after, before, mean_throughput)
        met = max(mean.pooled, p95.pooled) >= LEAST_LATENCY_RATIO and throughput.pooled >= LEAST_THROUGHPUT_RATIO
        rows.append([arm, str(mean), str(p95), str(throughput), "yes" if met else "**no**"])
    columns = (f"against {baseline}", "mean, times shorter", "p95, times shorter", "programs/s, times", "bar met")
    return markdown_table(columns, rows)


def by_arm(runs: Sequence[Run]) -> Mapping[str, Sequence[Run]]:
    """The runs of each arm, in the order of the first repetition: the baseline first."""
    found: dict[str, list[Run]] = {}
    for each in runs:
        found.setdefault(each.arm, []).append(each)
    return found


def outcomes(runs: Sequence[Run]) -> Sequence[Outcome]:
    return [outcome for run in runs for outcome in run.outcomes]


async def measured(options: argparse.Namespace) -> tuple[float, Sequence[Run]]:
    """The baseline's capacity in programs a second, and the runs of all arms."""
    arms = {**ARMS, **{name: json.loads(settings) for name, settings in options.arm}}
    rate = options.capacity or await measured_capacity(next(iter(arms.values())), options)
    print(f"capacity {rate:.2f} programs/s", flush=True)  # noqa: T201
    runs = []
    for repetition in range(options.repetitions):
        for name in order(list(arms), repetition):
            runs.append(await run(name, arms[name], options.factor * rate, repetition, options))
            print(table(runs[-1:]), flush=True)  # noqa: T201
    return rate, runs


def main() -> None:
    options = _options()
    commit = current_commit()  # that which runs
    rate, runs = asyncio.run(measured(options))
    source = origin(Settings().model_name, commit, datetime.now(UTC).date())
    told = (
        f"{source} {os.cpu_count()} cores, {options.max_num_seqs} calls in the engine's batch. Capacity is {rate:.2f} "
        f"programs/s; {options.repetitions} times {options.seconds:g} s of arrivals at {options.factor:g} times that. "
        f"The bar: mean or p95 {LEAST_LATENCY_RATIO:g} times shorter, {LEAST_THROUGHPUT_RATIO:g} times the programs/s. "
        "Ratios pool all repetitions; in brackets, the minimum and maximum of one."
    )
    text = "\n\n".join([told, comparison(runs), table(runs)])
    publish("scheduling", text, write=options.write)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.scheduling")
    parser.add_argument("--factor", type=float, default=1.5, help="of capacity")
    parser.add_argument("--seconds", type=float, default=120, help="of arrivals in each run")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--max-num-seqs", type=int, default=32, help="calls in the engine's batch")
    parser.add_argument("--capacity", type=float, help="programs/s, where it was measured before")
    parser.add_argument("--warm-up", type=float, default=30, help="seconds of the closed loop that do not count")
    parser.add_argument("--capacity-seconds", type=float, default=60, help="of the closed loop, after its warm-up")
    parser.add_argument(
        "--arm",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "JSON"),
        help="one arm more: its environment as a JSON object of strings",
    )
    parser.add_argument("--write", action="store_true", help="put the result into docs/results/performance.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
