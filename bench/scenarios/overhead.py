"""What the service adds to its engine's time, under an open loop: ``python -m bench.scenarios.overhead``.

The server is a separate process that serves as ``python -m service serve`` does, except for its engine: a scripted one
whose calls take 20 ms and almost no work, for it shares the service's core, as a real engine's process does not. The
load is the refine that the API's documentation shows: a draft that breaks its length rule, a revision that keeps it,
a critique of three calls, a revision after that, and three judge calls at once for each text.

A request's *added* time is that from when it was due to the last byte of its answer, less the time in which any engine
call of its program was in progress. That time is measured where the calls are made: the engine notes when each began
and ended, under the text that its conversation begins with, which holds the request's number. The engine knows
nothing of programs, and needs to know nothing. A call whose timer fires late, because the service keeps the event loop
busy, has taken longer, though; so *added to 20 ms a call* takes each call to have ended 20 ms after it began. That row
holds the timers' rounding to whole milliseconds too.

The *gap* is the time from the end of the last call that its program had finished to the begin of a call.
"""

import asyncio
import gc
import itertools
import json
import math
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_lowercase
from typing import Annotated, Any

from bench.harness.open_loop import open_loop, poisson_arrivals, post, unlimited_client
from bench.harness.page import markdown_table
from bench.harness.scenario import Report, run_scenario
from bench.harness.servers import redraft
from service.engines.base import PLAINLY, Choice, Choose, Completion, Likelihood, Piece, Reading, Sample, Usage, Weigh
from service.engines.conversation import Conversation
from service.engines.scripted import ScriptedEngine
from service.wire.requests import RefineRequest

SECONDS_PER_CALL = 0.020
CALLS_FILE = "OVERHEAD_CALLS"
"""Names the file, in the environment, into which the server writes its engine's calls when it ends."""


@dataclass(frozen=True)
class Options:
    rate: Annotated[float, "requests a second"] = 100.0
    seconds: Annotated[float, "of arrivals"] = 120.0


Interval = tuple[float, float]
"""When an engine call began and ended, in seconds."""


def _texts(words: int) -> Iterator[str]:
    """Different texts, repeated without end."""
    draws = random.Random(words)  # noqa: S311 - nothing secret is drawn
    vocabulary = ["".join(draws.choices(ascii_lowercase, k=length)) for length in range(1, 10) for _ in range(20)]
    return itertools.cycle([" ".join(draws.choices(vocabulary, k=words)) for _ in range(100)])


@dataclass
class TimedEngine(ScriptedEngine):
    """Notes when each call of the refine loop began and ended, by the text that its conversation begins with."""

    intervals: dict[str, list[Interval]] = field(default_factory=lambda: defaultdict(list))
    drafts: Iterator[str] = field(default_factory=lambda: _texts(60))
    revisions: Iterator[str] = field(default_factory=lambda: _texts(30))

    async def sample(self, sample: Sample, priority: int) -> Completion:
        """A critic's remark."""
        async with self._timed(sample.conversation) as usage:
            await asyncio.sleep(SECONDS_PER_CALL)
            return Completion(json.dumps({"issues": ["Say which light is scattered most."]}), "stop", usage)

    async def stream(
        self, sample: Sample, *, priority: int = 0, reading: Reading = PLAINLY
    ) -> AsyncGenerator[Piece, None]:
        """A draft that breaks the rule of at most 40 words, or a revision that keeps it, in pieces of as many
        words as a piece may have. A critic's remark comes whole."""
        if sample.schema is not None:
            remark = await self.sample(sample, priority)
            yield remark.text
            yield remark
            return
        async with self._timed(sample.conversation) as usage:
            text = next(self.drafts if sample.conversation.before is None else self.revisions)
            words = re.findall(r"\S+\s*", text)
            pieces = ["".join(words[at : at + reading.interval]) for at in range(0, len(words), reading.interval)]
            for piece in pieces:
                await asyncio.sleep(SECONDS_PER_CALL / len(pieces))
                yield piece
        yield Completion(text, "stop", usage)

    async def choose(self, choose: Choose, priority: int) -> Choice:
        """All options alike. But No rather than Yes, so that the critic has to say why."""
        async with self._timed(choose.conversation) as usage:
            await asyncio.sleep(SECONDS_PER_CALL)
            weights = (0.4, 0.6) if len(choose.options) == 2 else [1 / len(choose.options)] * len(choose.options)
            return Choice(tuple(map(math.log, weights)), usage)

    async def weigh(self, weigh: Weigh, priority: int) -> Likelihood:
        async with self._timed(weigh.conversation):
            await asyncio.sleep(SECONDS_PER_CALL)
            return await super().weigh(weigh, priority)

    async def close(self) -> None:
        await super().close()
        Path(os.environ[CALLS_FILE]).write_text(json.dumps(self.intervals))  # noqa: ASYNC240 - nothing else runs now

    @asynccontextmanager
    async def _timed(self, conversation: Conversation) -> AsyncIterator[Usage]:
        began = time.perf_counter()
        yield Usage(calls=1, prompt_tokens=100, completion_tokens=50)
        self.intervals[next(conversation.turns()).text].append((began, time.perf_counter()))


async def _start(*_: object) -> TimedEngine:
    return TimedEngine()


@dataclass(frozen=True, slots=True)
class Answer:
    """``seconds``: from when the request was due to the end of its answer."""

    prompt: str
    status: int | None
    seconds: float


@dataclass(frozen=True)
class Overhead:
    """Seconds; ``added`` and ``added_to_script`` of each request without error, ``gaps`` of each call but the first.

    ``rate``: requests answered a second.
    """

    added: Sequence[float]
    added_to_script: Sequence[float]
    gaps: Sequence[float]
    errors: int
    rate: float

    @classmethod
    def of(cls, answers: Sequence[Answer], calls: Mapping[str, Sequence[Interval]], seconds: float) -> "Overhead":
        good = [answer for answer in answers if answer.status == 200]
        scripted = {
            prompt: [(began, began + SECONDS_PER_CALL) for began, _ in intervals] for prompt, intervals in calls.items()
        }
        return cls(
            added=[answer.seconds - covered_seconds(calls[answer.prompt]) for answer in good],
            added_to_script=[answer.seconds - covered_seconds(scripted[answer.prompt]) for answer in good],
            gaps=[gap for answer in good for gap in gaps(calls[answer.prompt])],
            errors=len(answers) - len(good),
            rate=len(answers) / seconds,
        )

    def table(self) -> str:
        rows = [
            _row("added to the engine's calls", self.added),
            _row("added to 20 ms a call", self.added_to_script),
            _row("gap between calls", self.gaps),
        ]
        return markdown_table(("milliseconds", "p50", "p95", "p99", "most"), rows)


def covered_seconds(intervals: Sequence[Interval]) -> float:
    """How long at least one of the intervals lasts."""
    total, reached = 0.0, -float("inf")
    for began, ended in sorted(intervals):
        total += max(0.0, ended - max(began, reached))
        reached = max(reached, ended)
    return total


def gaps(intervals: Sequence[Interval]) -> Sequence[float]:
    """From the last end before each begin to that begin; nothing for the calls before which none had ended."""
    ends = [ended for _, ended in intervals]
    before = [(began, [end for end in ends if end <= began]) for began, _ in intervals]
    return [began - max(earlier) for began, earlier in before if earlier]


def _row(name: str, seconds: Sequence[float]) -> Sequence[str]:
    ranks = statistics.quantiles(seconds, n=100, method="inclusive")
    return [name, *(f"{1000 * value:.2f}" for value in (ranks[49], ranks[94], ranks[98], max(seconds)))]


async def measure(options: Options) -> Report:
    overhead = await measure_overhead(options.rate, options.seconds)
    setup = (
        f"{options.rate:g} requests a second for {options.seconds:g} s by a Poisson process, {overhead.rate:.1f} a "
        f"second answered, {overhead.errors} errors."
    )
    return Report("scripted, 20 ms a call", setup, [overhead.table()], failed=overhead.errors > 0)


async def measure_overhead(rate: float, seconds: float) -> Overhead:
    """Serve, load and count."""
    with tempfile.TemporaryDirectory() as folder:
        calls = Path(folder) / "calls.json"
        async with redraft(
            {"REDRAFT_ENGINE": "scripted", CALLS_FILE: str(calls)}, "bench.scenarios.overhead"
        ) as server:
            began = time.perf_counter()
            gc.disable()  # a collection among the client's thousands of tasks would hold up its requests
            try:
                answers = await _answers(server.url, poisson_arrivals(rate, seconds, seed=0))
            finally:
                gc.enable()
            took = time.perf_counter() - began
        return Overhead.of(answers, json.loads(calls.read_text()), took)


async def _answers(url: str, arrivals: Sequence[float]) -> Sequence[Answer]:
    [example] = _examples()
    async with unlimited_client(url) as client:

        async def send(number: int, due: float) -> Answer:
            prompt = f"{example['prompt']} ({number})"
            answer = await post(client, "/v1/refine", {**example, "prompt": prompt}, due)
            return Answer(prompt, answer.status, answer.seconds)

        return await open_loop(arrivals, send)


def _examples() -> Sequence[Mapping[str, Any]]:
    """What the API's documentation shows of refine, with every text written to its end and revised by the model."""
    extra: Any = RefineRequest.model_config["json_schema_extra"]
    examples: Sequence[Mapping[str, Any]] = extra["examples"]
    plainly = {"constraints": "off", "aborts": False, "repairs": False}
    return [{**example, "search": {**example.get("search", {}), **plainly}} for example in examples]


if __name__ == "__main__":
    sys.exit(run_scenario("overhead", Options, measure, _start))
