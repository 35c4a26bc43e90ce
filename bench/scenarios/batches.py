"""What a batch costs the requests that somebody waits for: ``python -m bench.scenarios.batches``.

Refine requests arrive at independent moments, at a share of what the service can take, in waves that differ in one
thing: in every second one a batch is sent as the wave begins. Each wave has the same arrivals and the same
prompts as the one before it, so that a ratio compares like with like. A wave's latencies are those of the requests due
after its warm-up, from when they were due. The batch outlasts its wave, and what is left of it is then awaited alone.
"""

import asyncio
import itertools
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

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
from bench.harness.page import tabulate, tabulate_bars
from bench.harness.scenario import Report, run_scenario, say, take_turns
from bench.harness.servers import redraft
from bench.harness.spread import Spread, compare_pairs
from bench.scenarios.overload import make_program
from service.settings import Settings

MOST_TIMES = 1.3  # the p95 with a batch over that without
SHORT = {"max_tokens": 40}


@dataclass(frozen=True)
class Options:
    load: Annotated[float, "of capacity, for the interactive requests"] = 0.5
    lines: Annotated[int, "of a batch"] = 500
    seconds: Annotated[float, "of arrivals in a wave"] = 150
    warm_up: Annotated[float, "seconds of each that do not count"] = 15
    repetitions: Annotated[int, "pairs of waves"] = 2
    at_once: Annotated[int, "programs that run at once while capacity is measured"] = 16
    capacity_seconds: Annotated[float, "of the closed loop, after its warm-up"] = 30


def make_line(number: int) -> Mapping[str, Any]:
    """One of three kinds of small requests, different for every number."""
    prompt = f"{number}. Write a sentence about a town by the sea."
    kinds: Sequence[tuple[str, Mapping[str, Any]]] = (
        ("generate", {"prompt": prompt, "sampling": SHORT}),
        ("critique", {"prompt": prompt, "candidate": f"Town {number} smells of salt.", "feedback": False}),
        (
            "refine",
            {
                "prompt": prompt,
                "evaluators": [{"type": "length", "unit": "words", "max": 15}],
                "judge": False,
                "search": {"rounds": 1},
                "sampling": SHORT,
                "trace": False,
            },
        ),
    )
    endpoint, body = kinds[number % len(kinds)]
    return {"custom_id": str(number), "url": f"/v1/{endpoint}", "body": body}


@dataclass(frozen=True)
class Batch:
    """What came of a batch of ``lines``: when each result came, in seconds since it was sent, and their statuses."""

    lines: int
    seconds: Sequence[float]
    statuses: Mapping[int, int]

    @property
    def complete(self) -> bool:
        return self.statuses == {200: self.lines}

    @property
    def results(self) -> str:
        """How many lines had which status."""
        return ", ".join(f"{count} of {status}" for status, count in sorted(self.statuses.items()))

    def finished_by(self, seconds: float) -> int:
        """How many lines were answered by then."""
        return sum(each <= seconds for each in self.seconds)


@dataclass(frozen=True)
class Wave:
    """Interactive requests due after the warm-up, and the batch sent with them, if any."""

    answers: Sequence[Answer]
    seconds: float
    batch: Batch | None

    @property
    def latencies(self) -> Sequence[float]:
        return [answer.seconds for answer in self.answers if answer.status == 200]

    def latency(self, rank: float) -> float:
        return float(np.percentile(self.latencies, rank))


async def measure(options: Options) -> Report:
    async with redraft({}) as server, unlimited_client(server.url) as client:
        programs = (("/v1/refine", make_program(number)) for number in itertools.count(1_000_001))
        rate = await capacity(options.at_once, options.warm_up, options.capacity_seconds, send_next(client, programs))
        say(f"capacity {rate:.2f} programs/s")
        waves = []
        for number, (_, with_batch) in enumerate(take_turns((False, True), options.repetitions)):
            waves.append(await run_wave(client, options, rate * options.load, number, with_batch=with_batch))
            say(tabulate(COLUMNS, waves[-1:]))
    setup = (
        f"{os.cpu_count()} cores. Capacity is {rate:.2f} programs/s, of which {options.load:g} arrive; "
        f"a batch has {options.lines} lines. A wave takes {options.seconds:g} s, the first {options.warm_up:g} of them "
        "do not count. Ratios pool all waves; in brackets, the minimum and maximum of a pair."
    )
    return Report(Settings().model_name, setup, [tabulate(COLUMNS, waves), check_bars(waves)])


async def run_wave(
    client: aiohttp.ClientSession, options: Options, rate: float, number: int, *, with_batch: bool
) -> Wave:
    clock = asyncio.get_running_loop().time
    started = clock()
    first = 100_000 * number  # so that no wave finds another's texts in the cache
    batch = asyncio.create_task(send_batch(client, options.lines, first)) if with_batch else None

    async def send(index: int, due: float) -> Answer:
        return await post(client, "/v1/refine", make_program(first + index), due)

    answers = await open_loop(poisson_arrivals(rate, options.seconds, number // 2), send)
    due = [answer for answer in answers if answer.due - started >= options.warm_up]
    return Wave(due, options.seconds, await batch if batch else None)


async def send_batch(client: aiohttp.ClientSession, lines: int, first: int) -> Batch:
    body = "\n".join(json.dumps(make_line(first + index)) for index in range(lines))
    clock = asyncio.get_running_loop().time
    started = clock()
    seconds, statuses = [], Counter[int]()
    async with client.post("/v1/batch", data=body, headers={"Content-Type": "application/jsonl"}) as response:
        response.raise_for_status()
        async for text in response.content:
            if text.strip():
                seconds.append(clock() - started)
                statuses[json.loads(text)["status"]] += 1
    return Batch(lines, seconds, statuses)


COLUMNS: Mapping[str, Callable[[Wave], str]] = {
    "wave": lambda wave: "with a batch" if wave.batch else "without",
    "requests": lambda wave: str(len(wave.answers)),
    "failed": lambda wave: str(len(wave.answers) - len(wave.latencies)),
    "p50 s": lambda wave: f"{wave.latency(50):.2f}",
    "p95 s": lambda wave: f"{wave.latency(95):.2f}",
    "batch: results": lambda wave: wave.batch.results if wave.batch else "",
    "during the wave": lambda wave: str(wave.batch.finished_by(wave.seconds)) if wave.batch else "",
    "seconds": lambda wave: f"{max(wave.batch.seconds):.0f}" if wave.batch else "",
}


def ratio(waves: Sequence[Wave], rank: float) -> Spread:
    """Latencies at a percentile, with a batch over without."""
    with_batch, without = ([wave for wave in waves if bool(wave.batch) == batch] for batch in (True, False))
    return compare_pairs(
        with_batch, without, lambda waves: float(np.percentile([s for wave in waves for s in wave.latencies], rank))
    )


def check_bars(waves: Sequence[Wave]) -> str:
    """What the waves are held to, and the ratio of medians, which has no bar."""
    p95 = ratio(waves, 95)
    batches = [wave.batch for wave in waves if wave.batch]
    complete = sum(batch.complete for batch in batches)
    bars = [
        (f"p95 with a batch is at most {MOST_TIMES} times", f"{p95:.2f}", p95.value <= MOST_TIMES),
        ("every line of a batch is answered 200", f"{complete} of {len(batches)} batches", complete == len(batches)),
    ]
    return f"{tabulate_bars(bars)}\n\nThe median is {ratio(waves, 50):.2f} times the median without a batch."


if __name__ == "__main__":
    sys.exit(run_scenario("batches", Options, measure))
