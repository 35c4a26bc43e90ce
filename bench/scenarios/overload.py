"""What the service does with more work than it can do: ``python -m bench.scenarios.overload``.

Capacity is measured first, by a closed loop with as many programs as the service takes at once. Then each level sends
programs at independent moments, a multiple of capacity on average, and ends once all of them are answered.

A level's rates and the waits of accepted programs are those of its *window*, from the end of its warm-up to the end of
its arrivals: before, the queue still fills, and afterwards it empties. Goodput counts the programs answered 200 within
the window. Time to refusal is from when the request was sent, and has all refusals of the level.

The client shares the machine's cores with the service, so that what it costs counts against the service.
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count, product
from typing import Annotated, Any

import numpy as np

from bench.harness.open_loop import (
    Answer,
    Send,
    capacity,
    goodput,
    open_loop,
    poisson_arrivals,
    send_next,
    unlimited_client,
)
from bench.harness.page import tabulate, tabulate_bars
from bench.harness.scenario import Report, run_scenario, say
from bench.harness.servers import Server, redraft
from service.settings import Settings

LEAST_GOODPUT = 0.90  # of the best level's, at the highest level
LONGEST_REFUSAL_SECONDS = 0.050  # p99
MOST_GROWTH = 0.10  # of memory, over the highest level's window
SAMPLE_SECONDS = 3.0
IDLE_SECONDS = 60.0
"""The longest that the service may take to be at rest once all its answers are there."""
LIMITS = Settings.model_fields
REFUSALS = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)

FORMS = "story", "letter", "speech", "article", "tale", "report"
ABOUT = "bridge", "library", "ferry", "market", "bakery", "museum", "tram", "garden", "harbour", "school", "theatre"


@dataclass(frozen=True)
class Options:
    levels: Annotated[Sequence[float], "multiples of capacity"] = (0.5, 1, 2, 4)
    seconds: Annotated[float, "of arrivals at each level"] = 120
    soak_seconds: Annotated[float, "of arrivals at the highest level"] = 600
    warm_up: Annotated[float, "seconds of each that do not count"] = 30
    capacity_seconds: Annotated[float, "of the closed loop, after its warm-up"] = 45
    max_programs: Annotated[int, "programs that the service runs at once"] = LIMITS["max_programs"].default
    max_queued: Annotated[int, "programs that it lets wait"] = LIMITS["max_queued"].default


def make_program(number: int) -> Mapping[str, Any]:
    """A small refine request, different for every number: a draft and usually a revision, because it is too long."""
    form, about = list(product(FORMS, ABOUT))[number % (len(FORMS) * len(ABOUT))]
    return {
        "prompt": f"{number}. Write a long {form} about the {about} of a small town.",
        "evaluators": [{"type": "length", "unit": "words", "max": 60}],
        "judge": False,
        "search": {"preset": "self_refine", "rounds": 1},
        "sampling": {"max_tokens": 160},
    }


@dataclass(frozen=True)
class Load:
    """``factor`` times capacity, which makes ``rate`` programs a second, for ``seconds`` with a ``warm_up``."""

    factor: float
    rate: float
    seconds: float
    warm_up: float


@dataclass(frozen=True)
class Sample:
    """Memory at a time of the event loop."""

    time: float
    size: int


@dataclass(frozen=True)
class Level:
    """What came of a load that began at ``started``, a time of the event loop."""

    load: Load
    started: float
    answers: Sequence[Answer]
    samples: Sequence[Sample]

    @property
    def window(self) -> tuple[float, float]:
        return self.started + self.load.warm_up, self.started + self.load.seconds

    @property
    def due(self) -> Sequence[Answer]:
        """Those of requests that were due in the window."""
        begin, end = self.window
        return [answer for answer in self.answers if begin <= answer.due < end]

    @property
    def offered(self) -> float:
        """Programs a second."""
        return len(self.due) / (self.load.seconds - self.load.warm_up)

    @property
    def goodput(self) -> float:
        """Programs a second."""
        return goodput(self.answers, *self.window)

    @property
    def shed(self) -> float:
        """The share of the programs due in the window that was refused."""
        return sum(answer.status in REFUSALS for answer in self.due) / max(len(self.due), 1)

    @property
    def accepted(self) -> Sequence[Answer]:
        """Those of the programs due in the window that were answered 200."""
        return [answer for answer in self.due if answer.status == HTTPStatus.OK]

    @property
    def refused(self) -> Sequence[Answer]:
        return [answer for answer in self.answers if answer.status in REFUSALS]

    @property
    def unannounced(self) -> int:
        """Refusals that do not say when to come again."""
        return sum("Retry-After" not in answer.headers for answer in self.refused)

    @property
    def failures(self) -> Mapping[str, int]:
        """Answers that are neither a result nor a refusal, by status."""
        expected = (HTTPStatus.OK, *REFUSALS)
        return Counter(str(answer.status or "no answer") for answer in self.answers if answer.status not in expected)

    @property
    def memory(self) -> tuple[int, int, int]:
        """Bytes at the start and at the end of the window, and the maximum of the level."""
        begin, end = self.window
        inside = [sample.size for sample in self.samples if begin <= sample.time < end]
        return inside[0], inside[-1], max(sample.size for sample in self.samples)

    @property
    def growth(self) -> float:
        """Of memory, over the window."""
        before, after, _ = self.memory
        return (after - before) / before


async def measure(options: Options) -> Report:
    settings = {
        "REDRAFT_MAX_PROGRAMS": str(options.max_programs),
        "REDRAFT_MAX_QUEUED": str(options.max_queued),
    }
    async with redraft(settings) as server, unlimited_client(server.url) as client:
        send = send_next(client, (("/v1/refine", make_program(number)) for number in count(1)))
        rate = await capacity(options.max_programs, options.warm_up, options.capacity_seconds, send)
        say(f"capacity {rate:.2f} programs/s")
        levels = []
        for seed, factor in enumerate(options.levels):
            seconds = options.soak_seconds if factor == max(options.levels) else options.seconds
            load = Load(factor, factor * rate, seconds, options.warm_up)
            levels.append(await run_level(server, load, send, seed))
            say(tabulate(COLUMNS, levels[-1:]))
            await wait_until_idle(server)
    setup = (
        f"{os.cpu_count()} cores. {options.max_programs} programs running, {options.max_queued} waiting. "
        f"Capacity is {rate:.2f} programs/s. The first {options.warm_up:g} s of a level are warm-up."
    )
    return Report(Settings().model_name, setup, [tabulate(COLUMNS, levels), check_bars(levels)])


async def run_level(server: Server, load: Load, send: Send[Answer], seed: int) -> Level:
    async with take_samples(server.resident_bytes, SAMPLE_SECONDS) as samples:
        started = asyncio.get_running_loop().time()
        answers = await open_loop(poisson_arrivals(load.rate, load.seconds, seed), send)
    return Level(load, started, answers, samples)


@asynccontextmanager
async def take_samples(size: Callable[[], int], every: float) -> AsyncGenerator[Sequence[Sample], None]:
    """Take a sample now and ``every`` so many seconds, until the block ends; samples are added as they come."""
    samples: list[Sample] = []
    clock = asyncio.get_running_loop().time

    async def sample() -> None:
        while True:
            samples.append(Sample(clock(), await asyncio.to_thread(size)))
            await asyncio.sleep(every)

    taking = asyncio.create_task(sample())
    try:
        yield samples
    finally:
        taking.cancel()
        with suppress(asyncio.CancelledError):
            await taking


async def wait_until_idle(server: Server) -> None:
    """Return once nothing runs and nothing waits. TimeoutError if a place is never given back."""
    async with asyncio.timeout(IDLE_SECONDS):
        while True:
            counters = await server.counters()
            if not counters["redraft_requests_in_progress"] and not counters["redraft_requests_queued"]:
                return
            await asyncio.sleep(1.0)


def _format_failures(level: Level) -> str:
    return ", ".join(f"{number} of {status}" for status, number in sorted(level.failures.items())) or "0"


def _format_quantiles(values: Sequence[float], ranks: Sequence[int], form: str) -> str:
    return ", ".join(form.format(value) for value in np.percentile(values, ranks)) if values else ""


COLUMNS: Mapping[str, Callable[[Level], str]] = {
    "load": lambda level: f"{level.load.factor:g} times, {level.load.seconds:g} s",
    "offered/s": lambda level: f"{level.offered:.2f}",
    "goodput/s": lambda level: f"{level.goodput:.2f}",
    "shed": lambda level: f"{level.shed:.0%}",
    "accepted: p50, p95": lambda level: _format_quantiles([a.seconds for a in level.accepted], (50, 95), "{:.1f} s"),
    "refusals": lambda level: f"{len(level.refused)}",
    "refused after: p50, p99": lambda level: _format_quantiles(
        [1000 * (answer.ended - answer.sent) for answer in level.refused], (50, 99), "{:.1f} ms"
    ),
    "from due: p50, p99": lambda level: _format_quantiles(
        [1000 * answer.seconds for answer in level.refused], (50, 99), "{:.1f} ms"
    ),
    "without Retry-After": lambda level: f"{level.unannounced}",
    "failures": _format_failures,
    "memory: begin, end, most": lambda level: ", ".join(f"{size / 2**20:.0f}" for size in level.memory) + " MiB",
    "growth": lambda level: f"{level.growth:+.1%}",
}


def check_bars(levels: Sequence[Level]) -> str:
    """The bars that the highest level has to meet, as a Markdown table."""
    highest = max(levels, key=lambda level: level.load.factor)
    best = max(level.goodput for level in levels)
    share = highest.goodput / best if best else 0.0
    refused = [answer.ended - answer.sent for answer in highest.refused]
    p99 = float(np.percentile(refused, 99)) if refused else None
    announced = not any(level.unannounced or level.failures for level in levels)
    name = f"{highest.load.factor:g} times"
    bars = [
        (
            f"goodput at {name} is at least {LEAST_GOODPUT:.0%} of the best level's",
            f"{share:.1%}",
            share >= LEAST_GOODPUT,
        ),
        (
            f"99 % of refusals at {name} come within {1000 * LONGEST_REFUSAL_SECONDS:.0f} ms",
            "none came" if p99 is None else f"{1000 * p99:.1f} ms",
            p99 is not None and p99 <= LONGEST_REFUSAL_SECONDS,
        ),
        (
            f"memory grows by at most {MOST_GROWTH:.0%} at {name}",
            f"{highest.growth:+.1%} in {highest.load.seconds - highest.load.warm_up:g} s",
            highest.growth <= MOST_GROWTH,
        ),
        ("every other answer is a 429 or 503 with Retry-After", "yes" if announced else "no", announced),
    ]
    return tabulate_bars(bars)


if __name__ == "__main__":
    sys.exit(run_scenario("overload", Options, measure))
