"""Whether jobs take notice when their service is killed: ``python -m bench.scenarios.kills``.

The real service, with the embedded model, works on 40 jobs of three rounds and is killed with all its processes at
random moments, ten times. It works on the same jobs in another store, where nobody disturbs it. One job at a time: what
else the engine computes in a step changes the last digits of its results.

Every job must end, with the text and the account of the one that was not disturbed, but for times and cached tokens.
Scores and probabilities count as the same within 0.01, because the engine's differ a little even in a job that nobody
disturbs: calls that are made side by side share its steps or not. No call whose result was recorded may be made again.
Calls that had ended but were not recorded yet are counted; there may be one for each kill.

The check resumes where it stopped. Its jobs are in its folder, or in the Postgres database that ``--store`` names.
"""

import asyncio
import json
import math
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import httpx
import sqlalchemy as sa

from bench.harness.counted import CountedEngine, open_calls
from bench.harness.results import RESULTS
from bench.harness.scenario import parse_options, say
from bench.harness.servers import Server, redraft
from service.cli.main import serve
from service.deliveries.database import DeliveryDatabase
from service.engines.remote.connect import Tokenizers
from service.fleet import start_engine
from service.jobs.database import JobDatabase, steps
from service.jobs.job import Job, Order
from service.programs.ids import make_id
from service.settings import Settings
from service.store.opening import open_database

CALLS_FILE = "KILLS_CALLS"
"""Names the file, in the environment, into which the service writes the keys of its engine's calls."""
CALLS_OF_A_JOB = 14
"""About as many as a job makes; kills are spread over the jobs by it."""
LONGEST_PAUSE = 0.5
"""Seconds between the end of a call and a kill, at most, so that calls are cut too."""
LEASE = 5.0
CHANGING = frozenset({"id", "timing", "seconds", "cached_tokens"})
"""What depends on the clock, on chance, or on what an engine has in its cache."""
TOLERANCE = 0.01
"""For scores and probabilities."""


@dataclass(frozen=True)
class Options:
    store: Annotated[str | None, "a Postgres database's URL; by default a SQLite file in the folder"] = None
    folder: Annotated[Path, "where it keeps what is needed to resume"] = RESULTS / "kills"
    jobs: Annotated[int, "that are disturbed"] = 40
    kills: Annotated[int, "of the service"] = 10
    seed: Annotated[int, "of the moments"] = 0
    seconds: Annotated[float, "after which it stops, to be resumed"] = math.inf


class OutOfTime(Exception):
    """The check has taken as long as it may."""


@dataclass(frozen=True)
class State:
    """How far the work on a store has come.

    ids: the jobs.
    kills: how many there were.
    recorded: the keys of the steps that were recorded when the service last ended, of jobs that had not ended.
    seen: how many calls had ended by then.
    repeated: recorded calls that were made again.
    """

    ids: Sequence[str]
    kills: int = 0
    recorded: Sequence[str] = ()
    seen: int = 0
    repeated: int = 0


class Work:
    """The jobs in one store, and the service that works on them from time to time.

    folder: where the state and the calls are kept.
    place: the store.
    deadline: when to stop, by ``time.monotonic``.
    """

    def __init__(self, folder: Path, place: str, deadline: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._place = place
        self._deadline = deadline
        self._calls_file = folder / "calls"
        self._state_file = folder / "state.json"

    def calls(self) -> Sequence[str]:
        """The keys of the calls that have ended, in their order."""
        return self._calls_file.read_text().splitlines() if self._calls_file.exists() else []

    async def begin(self, jobs: int) -> State:
        """The state, after the jobs were put into the store if they are not there."""
        if self._state_file.exists():
            return State(**json.loads(self._state_file.read_text()))
        async with self._opened() as store:
            ids = []
            for number in range(jobs):
                # The judge reads the delimiter, so it is always the same one.
                order = Order("refine", json.dumps(make_request(number)), "anonymous", "check", "[fence]", seed=1)
                job = Job(make_id("job"), "anonymous", "refine", "queued", time.time())
                await store.add(job, order)
                ids.append(job.id)
                await asyncio.sleep(0.002)  # ids sort by milliseconds
        return self._write(State(ids))

    async def kill_once(self, state: State, options: Options) -> State:
        """Start the service, let it work for a while, and kill it with all its processes."""
        draws = random.Random(f"{options.seed} {state.kills}")  # noqa: S311 - nothing secret is drawn
        more = draws.randint(1, 2 * options.jobs * CALLS_OF_A_JOB // (options.kills + 2))
        async with self._serving() as server:
            while len(self.calls()) < state.seen + more and await self._ended(server, state) < len(state.ids):
                self._check_time()
                await asyncio.sleep(0.05)
            await asyncio.sleep(draws.uniform(0, LONGEST_PAUSE))
            os.killpg(server.process.pid, signal.SIGKILL)
        state = await self._note(replace(state, kills=state.kills + 1))
        say(f"kill {state.kills}: {state.seen} calls, {len(state.recorded)} of them of jobs that have not ended")
        return state

    async def finish(self, state: State) -> State:
        """Start the service and wait until all jobs have ended."""
        async with self._serving() as server:
            while (ended := await self._ended(server, state)) < len(state.ids):
                self._check_time()
                await asyncio.sleep(0.5)
        say(f"{ended} jobs have ended")
        return await self._note(state)

    async def outcomes(self, state: State) -> Sequence[Job]:
        async with self._opened() as store:
            return [job for each in state.ids if (job := await store.get(each))]

    async def has_ended(self, state: State) -> bool:
        return all(job.has_ended for job in await self.outcomes(state))

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[JobDatabase, None]:
        database = open_database(self._place)
        try:
            yield JobDatabase(database, DeliveryDatabase(database), LEASE)
        finally:
            await database.close()

    @asynccontextmanager
    async def _serving(self) -> AsyncGenerator[Server, None]:
        settings = {
            "REDRAFT_STORE": self._place,
            "REDRAFT_MAX_JOBS": "1",
            "REDRAFT_JOB_LEASE_SECONDS": f"{LEASE:g}",
            CALLS_FILE: str(self._calls_file),
            "VLLM_CPU_KVCACHE_SPACE": "1",  # gigabytes, for one job
        }
        async with redraft(settings, "bench.scenarios.kills") as server:
            yield server

    async def _ended(self, server: Server, state: State) -> int:
        """How many of the jobs have ended."""
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            page = (await client.get("/v1/jobs", params={"limit": len(state.ids)})).raise_for_status().json()
        return sum(job["finished_at"] is not None for job in page["jobs"])

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise OutOfTime

    async def _note(self, state: State) -> State:
        """What the calls since the service last ended were, and what is recorded now."""
        calls = self.calls()
        repeated = (Counter(calls[state.seen :]) & Counter(state.recorded)).total()
        database = open_database(self._place)
        try:
            recorded = await database.read(lambda c: list(c.execute(sa.select(steps.c.key)).scalars()))
        finally:
            await database.close()
        return self._write(replace(state, recorded=recorded, seen=len(calls), repeated=state.repeated + repeated))

    def _write(self, state: State) -> State:
        aside = self._state_file.with_suffix(".new")
        aside.write_text(json.dumps(asdict(state)))
        aside.replace(self._state_file)
        return state


def make_request(number: int) -> Mapping[str, Any]:
    """A refine whose verifier no text passes, so that it makes all rounds; every text is written to its end."""
    plainly = {"constraints": "off", "aborts": False, "repairs": False}
    return {
        "prompt": f"Describe the sea, in version {number}.",
        "search": {"preset": ("self_refine", "reflexion")[number % 2], "rounds": 3, "critic": "model", **plainly},
        "stop": {"patience": 9},
        "evaluators": [
            {"type": "keywords", "include": ["a word that no text has"]},
            {"type": "judge", "criteria": [{"name": "calm", "question": "Is it calm?"}]},
        ],
        "sampling": {"seed": number, "max_tokens": 24},
    }


def comparable(value: Any) -> Any:
    """A result without what changes from run to run."""
    if isinstance(value, Mapping):
        return {name: comparable(item) for name, item in value.items() if name not in CHANGING}
    return [comparable(item) for item in value] if isinstance(value, list) else value


def alike(one: Any, other: Any) -> bool:
    """Whether two results are the same, but for small differences of scores and probabilities."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, abs_tol=TOLERANCE)
    return bool(one == other)


async def run(options: Options) -> tuple[Sequence[Job], Sequence[Job], Work, State]:
    """Work on the jobs without and with kills. Raises OutOfTime."""
    deadline = time.monotonic() + options.seconds
    calm = options.folder / "undisturbed"
    undisturbed = Work(calm, str(calm / "jobs.db"), deadline)
    state = await undisturbed.begin(options.jobs)
    if not await undisturbed.has_ended(state):
        state = await undisturbed.finish(state)
    expected = await undisturbed.outcomes(state)

    folder = options.folder / ("postgres" if options.store else "sqlite")
    killed = Work(folder, options.store or str(folder / "jobs.db"), deadline)
    state = await killed.begin(options.jobs)
    while state.kills < options.kills:
        state = await killed.kill_once(state, options)
    if not await killed.has_ended(state):
        state = await killed.finish(state)
    return expected, await killed.outcomes(state), killed, state


async def check(options: Options) -> int:
    """Work on the jobs and print what came of them. Returns 1 if one took notice, and 2 if there is more to do."""
    try:
        expected, found, work, state = await run(options)
    except OutOfTime:
        say("There is more to do: run it again.")
        return 2
    completed = sum(job.state == "completed" for job in found)
    pairs = [(comparable(one.outcome), comparable(other.outcome)) for one, other in zip(expected, found, strict=True)]
    exact = sum(one == other for one, other in pairs)
    equal = sum(alike(one, other) for one, other in pairs)
    texts = sum(one.get("text") == other.get("text") for one, other in pairs if one and other)
    needed = sum(job.outcome["usage"]["total"]["calls"] for job in found if job.outcome and job.state == "completed")
    lost = len(work.calls()) - needed
    print(  # noqa: T201 - it is what the check is run for
        f"{state.kills} kills: {completed} of {len(found)} jobs completed, {texts} with the same text and {equal} with "
        f"the same account as undisturbed, {exact} to the last digit.\nOf {needed} calls, {state.repeated} were "
        f"made again although they were recorded, and {lost} because they had ended just before a kill."
    )
    return int(completed < len(found) or equal < len(found) or state.repeated > 0 or lost > state.kills)


async def _start(settings: Settings, tokenizers: Tokenizers) -> CountedEngine:
    return CountedEngine(await start_engine(settings, tokenizers), open_calls(os.environ[CALLS_FILE]))


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        sys.exit(serve(_start))
    sys.exit(asyncio.run(check(parse_options("bench.scenarios.kills", Options, __doc__))))
