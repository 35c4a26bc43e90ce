"""What the engine's order of calls does to whole programs under too much load.

Every arm is a separate service. All have the same settings except for those that the arm states. The first arm is the
baseline: the engine takes calls as they come and knows nothing of programs (its policy ``fcfs`` does not look at
priorities). The others leave the engine its policy ``priority``, by the priorities that the service gives.

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

import asyncio
import json
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from statistics import fmean
from typing import Annotated, Any, Literal

import aiohttp
import numpy as np

from bench.harness.open_loop import (
    Answer,
    capacity,
    open_loop,
    poisson_arrivals,
    post,
    send_next,
    unlimited_client,
)
from bench.harness.page import markdown_table, yes_or_no
from bench.harness.scenario import Report, run_scenario, say, take_turns
from bench.harness.servers import redraft
from bench.harness.spread import compare_pairs
from service.settings import Settings

LEAST_LATENCY_RATIO = 1.5  # of the mean or of p95, the baseline's to the arm's
LEAST_THROUGHPUT_RATIO = 0.97  # the arm's to the baseline's
CAPACITY_PROGRAMS = 48  # that run at once in the closed loop: enough to keep the engine's batch full
CAPACITY_SEED, WARM_UP_SEED = 1_000_001, 1_000_002  # other programs than the load's, which none then has cached
SETTINGS: Mapping[str, str] = {"REDRAFT_MAX_PROGRAMS": "2048"}
"""Of every arm."""

Arm = Mapping[str, str]
"""A service's environment, added to SETTINGS; REDRAFT_ENGINE_ARGS adds to those of all arms."""

ARMS: Mapping[str, Arm] = {
    "calls first come, first served": {"REDRAFT_ENGINE_ARGS": '{"scheduling_policy": "fcfs"}'},
    "programs by priority": {},
}
"""By name, the baseline first."""


@dataclass(frozen=True)
class Options:
    factor: Annotated[float, "of capacity"] = 1.5
    seconds: Annotated[float, "of arrivals in each run"] = 120
    repetitions: Annotated[int, "of each arm"] = 3
    max_num_seqs: Annotated[int, "calls in the engine's batch"] = 32
    capacity: Annotated[float | None, "programs/s, where it was measured before"] = None
    warm_up: Annotated[float, "seconds of the closed loop that do not count"] = 30
    capacity_seconds: Annotated[float, "of the closed loop, after its warm-up"] = 60
    arm: Annotated[
        Sequence[tuple[str, str]],
        "another arm: its environment as a JSON object of strings",
        {"nargs": 2, "action": "append", "metavar": ("NAME", "JSON")},
    ] = ()


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


async def measure(options: Options) -> Report:
    arms = {**ARMS, **{name: json.loads(settings) for name, settings in options.arm}}
    rate = options.capacity or await measure_capacity(next(iter(arms.values())), options)
    say(f"capacity {rate:.2f} programs/s")
    runs = []
    for repetition, name in take_turns(list(arms), options.repetitions):
        runs.append(await run_arm(name, arms[name], options.factor * rate, repetition, options))
        say(table(runs[-1:]))
    setup = (
        f"{os.cpu_count()} cores, {options.max_num_seqs} calls in the engine's batch. Capacity is {rate:.2f} "
        f"programs/s; {options.repetitions} times {options.seconds:g} s of arrivals at {options.factor:g} times that. "
        f"The bar: mean or p95 {LEAST_LATENCY_RATIO:g} times shorter, {LEAST_THROUGHPUT_RATIO:g} times the programs/s. "
        "Ratios pool all repetitions; in brackets, the minimum and maximum of one."
    )
    return Report(Settings().model_name, setup, [compare_arms(runs), table(runs)])


async def measure_capacity(arm: Arm, options: Options) -> float:
    """Programs a second."""
    settings = environment(arm, options.max_num_seqs)
    async with redraft(settings) as server, unlimited_client(server.url) as client:
        send = send_next(client, ((program.path, program.body) for program in programs(CAPACITY_SEED)))
        return await capacity(CAPACITY_PROGRAMS, options.warm_up, options.capacity_seconds, send)


async def run_arm(name: str, arm: Arm, rate: float, seed: int, options: Options) -> Run:
    """The load of ``seed`` on a new service."""
    arrivals = poisson_arrivals(rate, options.seconds, seed)
    settings = environment(arm, options.max_num_seqs)
    async with redraft(settings) as server, unlimited_client(server.url) as client:
        await _load(client, WARM_UP_SEED, [0.0] * 20)  # so that work done only once is done before
        began = asyncio.get_running_loop().time()
        answers = await _load(client, seed, arrivals)
    return make_run(name, began, list(zip((program.size for program in programs(seed)), answers, strict=False)))


async def _load(client: aiohttp.ClientSession, seed: int, arrivals: Sequence[float]) -> Sequence[Answer]:
    drawn = programs(seed)
    asked = [next(drawn) for _ in arrivals]
    return await open_loop(arrivals, lambda number, due: post(client, asked[number].path, asked[number].body, due))


def make_run(arm: str, began: float, answers: Sequence[tuple[Size, Answer]]) -> Run:
    """The run that answers to programs of these sizes make."""
    outcomes = [
        Outcome(size, answer.seconds, count_calls(answer.body))
        for size, answer in answers
        if answer.status == HTTPStatus.OK
    ]
    last = max(answer.ended for _, answer in answers)
    return Run(arm, last - began, outcomes, failed=len(answers) - len(outcomes))


def count_calls(body: bytes) -> int:
    """The engine calls that an answer reports, a critique's or a refine's."""
    usage = json.loads(body)["usage"]
    calls: int = usage.get("total", usage)["calls"]
    return calls


def environment(arm: Arm, max_num_seqs: int) -> Mapping[str, str]:
    """The environment of that arm's service."""
    arguments = {"max_num_seqs": max_num_seqs, **json.loads(arm.get("REDRAFT_ENGINE_ARGS", "{}"))}
    return {**SETTINGS, **arm, "REDRAFT_ENGINE_ARGS": json.dumps(arguments)}


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


def mean_seconds(runs: Sequence[Run]) -> float:
    return fmean(outcome.seconds for outcome in outcomes(runs))


def p95_seconds(runs: Sequence[Run]) -> float:
    return float(np.percentile([outcome.seconds for outcome in outcomes(runs)], 95))


def mean_throughput(runs: Sequence[Run]) -> float:
    return fmean(run.throughput for run in runs)


def compare_arms(runs: Sequence[Run]) -> str:
    """Every other arm against the first, as a Markdown table."""
    (baseline, before), *others = by_arm(runs).items()
    rows = []
    for arm, after in others:
        mean, p95 = compare_pairs(before, after, mean_seconds), compare_pairs(before, after, p95_seconds)
        throughput = compare_pairs(after, before, mean_throughput)
        met = max(mean.value, p95.value) >= LEAST_LATENCY_RATIO and throughput.value >= LEAST_THROUGHPUT_RATIO
        rows.append([arm, f"{mean:.2f}", f"{p95:.2f}", f"{throughput:.2f}", yes_or_no(met)])
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


if __name__ == "__main__":
    sys.exit(run_scenario("scheduling", Options, measure))
