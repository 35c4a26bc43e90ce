"""What a batch costs the requests that somebody waits for: ``python -m bench.batches``.

Refine requests arrive at independent moments, at a share of what the service can take, in waves that are alike but for
one thing: beside every second one a batch is sent as the wave begins. Each wave has the same arrivals and the same
prompts as the one before it, so that a ratio compares like with like. A wave's latencies are those of the requests due
after its warm-up, from when they were due. The batch outlasts its wave, and what is left of it is then awaited alone.
"""

import argparse
import asyncio
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
import numpy as np

from bench.open_loop import Answer, capacity, open_loop, poisson_arrivals, post, unlimited_client
from bench.origin import current_commit, origin
from bench.overload import program
from bench.page import markdown_table, publish
from bench.servers import redraft
from service.settings import Settings

MOST_TIMES = 1.3  # the p95 with a batch over that without
SHORT = {"max_tokens": 40}


def line(number: int) -> Mapping[str, Any]:
    """One of three kinds of small requests, unlike that of any other number."""
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


@dataclass(frozen=True)
class Wave:
    """Interactive requests due after the warm-up, and the batch beside them, if any."""

    answers: Sequence[Answer]
    seconds: float
    batch: Batch | None

    @property
    def latencies(self) -> Sequence[float]:
        return [answer.seconds for answer in self.answers if answer.status == 200]

    def latency(self, rank: float) -> float:
        return float(np.percentile(self.latencies, rank))


async def run(options: argparse.Namespace) -> tuple[float, Sequence[Wave]]:
    """Capacity in programs a second, and the waves."""
    async with redraft({}) as server, unlimited_client(server.url) as client:
        sent = 0

        async def closed(number: int, due: float) -> Answer:
            nonlocal sent
            sent += 1
            return await post(client, "/v1/refine", program(1_000_000 + sent), due)

        rate = await capacity(options.at_once, options.warm_up, options.capacity_seconds, closed)
        print(f"capacity {rate:.2f} programs/s", flush=True)  # noqa: T201
        waves = []
        for number in range(2 * options.repetitions):
            repetition, second = divmod(number, 2)
            with_batch = (repetition + second) % 2 == 1  # each comes first as often
            waves.append(await wave(client, options, rate * options.load, number, with_batch=with_batch))
            print(table(waves[-1:]), flush=True)  # noqa: T201
        return rate, waves


async def wave(
    client: aiohttp.ClientSession, options: argparse.Namespace, rate: float, number: int, *, with_batch: bool
) -> Wave:
    clock = asyncio.get_running_loop().time
    started = clock()
    first = 100_000 * number  # so that no wave finds another's texts in the cache
    batch = asyncio.create_task(sent_batch(client, options.lines, first)) if with_batch else None

    async def send(index: int, due: float) -> Answer:
        return await post(client, "/v1/refine", program(first + index), due)

    answers = await open_loop(poisson_arrivals(rate, options.seconds, number // 2), send)
    due = [answer for answer in answers if answer.due - started >= options.warm_up]
    return Wave(due, options.seconds, await batch if batch else None)


async def sent_batch(client: aiohttp.ClientSession, lines: int, first: int) -> Batch:
    body = "\n".join(json.dumps(line(first + index)) for index in range(lines))
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


COLUMNS = ("wave", "requests", "failed", "p50 s", "p95 s", "batch: results", "during the wave", "seconds")


def table(waves: Sequence[Wave]) -> str:
    """The waves as a Markdown table."""
    rows = []
    for found in waves:
        beside = ["", "", ""]
        if batch := found.batch:
            statuses = ", ".join(f"{count} of {status}" for status, count in sorted(batch.statuses.items()))
            during = sum(seconds <= found.seconds for seconds in batch.seconds)
            beside = [statuses, str(during), f"{max(batch.seconds):.0f}"]
        rows.append(
            [
                "with a batch" if found.batch else "without",
                str(len(found.answers)),
                str(len(found.answers) - len(found.latencies)),
                f"{found.latency(50):.2f}",
                f"{found.latency(95):.2f}",
                *beside,
            ]
        )
    return markdown_table(COLUMNS, rows)


def ratio(waves: Sequence[Wave], rank: float) -> tuple[float, float, float]:
    """With a batch over without: of all latencies together, and the least and the greatest of a repetition."""
    with_batch, without = ([w for w in waves if (w.batch is not None) == batch] for batch in (True, False))
    each = [b.latency(rank) / a.latency(rank) for a, b in zip(without, with_batch, strict=True)]
    together = [float(np.percentile([s for w in arm for s in w.latencies], rank)) for arm in (with_batch, without)]
    return together[0] / together[1], min(each), max(each)


def bars(waves: Sequence[Wave]) -> str:
    p95 = ratio(waves, 95)
    batches = [found.batch for found in waves if found.batch]
    complete = sum(batch.complete for batch in batches)
    rows = [
        (f"p95 with a batch is at most {MOST_TIMES} times", _told(p95), p95[0] <= MOST_TIMES),
        ("every line of a batch is answered 200", f"{complete} of {len(batches)} batches", complete == len(batches)),
    ]
    lines = [(bar, found, "yes" if met else "**no**") for bar, found, met in rows]
    medians = f"The median is {_told(ratio(waves, 50))} times the median without a batch."
    return f"{markdown_table(('bar', 'measured', 'met'), lines)}\n\n{medians}"


def _told(found: tuple[float, float, float]) -> str:
    return "{:.2f} ({:.2f} to {:.2f})".format(*found)


def main() -> None:
    options = _options()
    commit = current_commit()  # that which runs
    rate, waves = asyncio.run(run(options))
    source = origin(Settings().model_name, commit, datetime.now(UTC).date())
    told = (
        f"{source} {os.cpu_count()} cores. Capacity is {rate:.2f} programs/s, of which {options.load:g} arrive; "
        f"a batch has {options.lines} lines. A wave takes {options.seconds:g} s, the first {options.warm_up:g} of them "
        "do not count. Ratios pool all waves; in brackets, the minimum and maximum of a pair."
    )
    publish("batches", "\n\n".join([told, table(waves), bars(waves)]), write=options.write)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.batches")
    parser.add_argument("--load", type=float, default=0.5, help="of capacity, for the interactive requests")
    parser.add_argument("--lines", type=int, default=500, help="of a batch")
    parser.add_argument("--seconds", type=float, default=150, help="of arrivals in a wave")
    parser.add_argument("--warm-up", type=float, default=15, help="seconds of each that do not count")
    parser.add_argument("--repetitions", type=int, default=2, help="pairs of waves")
    parser.add_argument("--at-once", type=int, default=16, help="programs under way while capacity is measured")
    parser.add_argument("--capacity-seconds", type=float, default=30, help="of the closed loop, after its warm-up")
    parser.add_argument("--write", action="store_true", help="put the result into docs/results/performance.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
