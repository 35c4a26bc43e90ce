"""What it costs that a program survives its process: refines as jobs against the same refines as requests.

``python -m bench.scenarios.jobs`` starts one service with a SQLite file and sends it waves of refines, in turn as
requests and as jobs whose events are read while they run. The engine is a scripted one whose calls take 150 ms and
almost no work; with ``--real`` it is the embedded model's.

A *step* is measured without a service: eight jobs record steps of 2,000 characters, one after the other, in a database
next to the service's.
"""

import asyncio
import json
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Annotated, Any

import aiohttp

from bench.harness.open_loop import unlimited_client
from bench.harness.page import markdown_table
from bench.harness.scenario import Report, run_scenario, say, take_turns
from bench.harness.servers import Server, redraft
from bench.harness.spread import Spread, compare_pairs
from service.deliveries.database import DeliveryDatabase
from service.engines.base import PLAINLY, Choice, Choose, Completion, Piece, Reading, Sample, Usage
from service.engines.local import bundled
from service.engines.scripted import ScriptedEngine
from service.jobs.database import JobDatabase
from service.jobs.job import Claim, Job, Order
from service.jobs.store import Step
from service.programs.ids import make_id
from service.store.opening import open_database

SECONDS_PER_CALL = 0.150
STEP_CHARACTERS = 2_000
STEPS = 200
MOST_ADDED = 0.10
"""Of the time of a wave."""
MOST_STEP_SECONDS = 0.005


@dataclass(frozen=True)
class Options:
    programs: Annotated[int, "refines at once"] = 8
    waves: Annotated[int, "refines of each caller in a repetition"] = 3
    repetitions: Annotated[int, "of each arm"] = 5
    real: Annotated[bool, "the embedded model's engine in place of the scripted one"] = False


class SteadyEngine(ScriptedEngine):
    """Texts of a hundred words, each call in the same time."""

    async def sample(self, sample: Sample, priority: int) -> Completion:
        """A critic's remark."""
        await asyncio.sleep(SECONDS_PER_CALL)
        return Completion(json.dumps({"issues": ["Say which light is scattered most."]}), "stop", _usage(10))

    async def stream(
        self, sample: Sample, *, priority: int = 0, reading: Reading = PLAINLY
    ) -> AsyncGenerator[Piece, None]:
        draws = random.Random(f"{sample.sampling.seed} {sample.prompt}")  # noqa: S311 - nothing secret is drawn
        words = [f"{draws.choice('bdfklmnprst') + draws.choice('aeiou') * 2} " for _ in range(100)]
        pieces = ["".join(words[at : at + reading.interval]) for at in range(0, len(words), reading.interval)]
        for piece in pieces:
            await asyncio.sleep(SECONDS_PER_CALL / len(pieces))
            yield piece
        yield Completion("".join(words), "stop", _usage(len(words)))

    async def choose(self, choose: Choose, priority: int) -> Choice:
        """All options alike. But No rather than Yes, so that the critic has to say why."""
        await asyncio.sleep(SECONDS_PER_CALL)
        doubts = choose.options == ("Yes", "No")
        weights = (0.4, 0.6) if doubts else [1 / len(choose.options)] * len(choose.options)
        return Choice(tuple(map(math.log, weights)), _usage(1))


def _usage(written: int) -> Usage:
    return Usage(calls=1, prompt_tokens=100, completion_tokens=written)


async def _start(*_: object) -> SteadyEngine:
    return SteadyEngine()


Send = Callable[[aiohttp.ClientSession, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""Sends a refine and gives its answer."""


async def send_request(client: aiohttp.ClientSession, body: Mapping[str, Any]) -> Mapping[str, Any]:
    async with client.post("/v1/refine", json=body, raise_for_status=True) as response:
        answer: Mapping[str, Any] = await response.json()
        return answer


async def send_job(client: aiohttp.ClientSession, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A job whose events are read as they come."""
    place = await _begin(client, body)
    async with client.get(f"{place}/events", raise_for_status=True) as response:
        async for line in response.content:
            if line.startswith(b"event: done"):
                answer: Mapping[str, Any] = json.loads((await response.content.readline()).removeprefix(b"data: "))
                return answer
    raise RuntimeError("the events of a job end with its result")


async def _begin(client: aiohttp.ClientSession, body: Mapping[str, Any]) -> str:
    headers = {"Prefer": "respond-async"}
    async with client.post("/v1/refine", json=body, headers=headers, raise_for_status=True) as response:
        return response.headers["Location"]


ARMS: Mapping[str, Send] = {"requests": send_request, "jobs": send_job}


@dataclass(frozen=True, slots=True)
class Wave:
    """``busy``: the service's processor seconds. ``calls``: those of one refine, on average."""

    programs: int
    seconds: float
    busy: float
    calls: float


async def run_wave(
    server: Server, client: aiohttp.ClientSession, send: Send, options: Options, repetition: int
) -> Wave:
    """Keep as many refines at once as the options say, until each caller has had as many as they say."""

    async def caller(number: int) -> list[Mapping[str, Any]]:
        numbers = range(number * options.waves, (number + 1) * options.waves)
        return [await send(client, make_program(each, repetition)) for each in numbers]

    began, busy = time.perf_counter(), _processor_seconds(server)
    answers = await asyncio.gather(*(caller(number) for number in range(options.programs)))
    seconds, busy = time.perf_counter() - began, _processor_seconds(server) - busy
    calls = [answer["usage"]["total"]["calls"] for of_caller in answers for answer in of_caller]
    return Wave(len(calls), seconds, busy, statistics.fmean(calls))


def _processor_seconds(server: Server) -> float:
    """Of the service's own process, without the engine's."""
    times = server.process.cpu_times()
    return times.user + times.system


def make_program(number: int, repetition: int) -> Mapping[str, Any]:
    """A draft and three revisions, each criticized and judged; the same for all arms in a repetition."""
    plainly = {"constraints": "off", "aborts": False, "repairs": False}
    return {
        "prompt": f"Describe the sky, in version {number} of {repetition}.",
        "search": {"preset": "self_refine", "rounds": 3, "critic": "model", **plainly},
        "stop": {"patience": 9, "target": 1.0},
        "sampling": {"seed": number, "max_tokens": 120},
    }


def busy_milliseconds(waves: Sequence[Wave]) -> float:
    """The service's processor time of a refine."""
    return 1000 * sum(wave.busy for wave in waves) / sum(wave.programs for wave in waves)


def programs_per_minute(waves: Sequence[Wave]) -> float:
    return 60 * sum(wave.programs for wave in waves) / sum(wave.seconds for wave in waves)


async def measure(options: Options) -> Report:
    step = await measure_steps(options.programs)
    waves = await measure_arms(options)
    ratios = {name: compare_pairs(waves["requests"], waves[name], programs_per_minute) for name in waves}
    calls = statistics.fmean(wave.calls for each in waves.values() for wave in each)
    setup = (
        f"{options.programs} refines at once of {calls:.0f} calls; {options.repetitions} repetitions of "
        f"{options.waves} refines of each caller, with minimum and maximum."
    )
    table = markdown_table(
        ("arm", "refines/min", "times slower than as requests", "processor ms a refine"),
        [
            [
                name,
                f"{Spread.of([programs_per_minute([wave]) for wave in each])}",
                f"{ratios[name]:.3f}",
                f"{Spread.of([busy_milliseconds([wave]) for wave in each])}",
            ]
            for name, each in waves.items()
        ],
    )
    steps = f"A step on SQLite takes {1000 * step.value:.2f} ms, median; the fastest {1000 * step.least:.2f} ms."
    met = step.value <= MOST_STEP_SECONDS and all(ratio.value <= 1 + MOST_ADDED for ratio in ratios.values())
    model = bundled.NAME if options.real else f"scripted, {1000 * SECONDS_PER_CALL:.0f} ms a call"
    return Report(model, setup, [table, steps], failed=not met)


async def measure_arms(options: Options) -> Mapping[str, Sequence[Wave]]:
    waves: dict[str, list[Wave]] = {name: [] for name in ARMS}
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        settings = {"REDRAFT_STORE": f"{folder}/jobs.db", "REDRAFT_MAX_JOBS": str(options.programs)}
        settings |= {} if options.real else {"REDRAFT_ENGINE": "scripted"}
        module = "service" if options.real else "bench.scenarios.jobs"
        server = await stack.enter_async_context(redraft(settings, module))
        client = await stack.enter_async_context(unlimited_client(server.url))
        for send in ARMS.values():  # what is made at first use is made now
            await send(client, make_program(0, -1))
        for repetition, name in take_turns(list(ARMS), options.repetitions):
            waves[name].append(await run_wave(server, client, ARMS[name], options, repetition))
            say(f"{name}: {programs_per_minute(waves[name][-1:]):.1f} refines/min")
    return waves


async def measure_steps(jobs: int) -> Spread:
    """The seconds that it takes to record a step, with so many jobs at it."""
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(f"{folder}/steps.db")
        try:
            store = JobDatabase(database, DeliveryDatabase(database), lease=15.0)
            return Spread.of([seconds for each in await _record_all(store, jobs) for seconds in each])
        finally:
            await database.close()


async def _record_all(store: JobDatabase, jobs: int) -> Sequence[Sequence[float]]:
    for number in range(jobs):
        order = Order("refine", "{}", "bench", "bench", "[fence]", seed=number)
        await store.add(Job(make_id("job"), "bench", "refine", "queued", time.time()), order)
    claims = [claim for _ in range(jobs) if (claim := await store.claim("bench", 15.0))]

    async def record(claim: Claim) -> Sequence[float]:
        seconds = []
        for number in range(STEPS):
            began = time.perf_counter()
            await store.record(claim, Step(str(number), 0, "x" * STEP_CHARACTERS, 1.0), worked=1.0)
            seconds.append(time.perf_counter() - began)
            await asyncio.sleep(0)
        return seconds

    return await asyncio.gather(*(record(claim) for claim in claims))


if __name__ == "__main__":
    sys.exit(run_scenario("jobs", Options, measure, _start))
