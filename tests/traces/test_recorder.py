"""Traces are stored in the background, and whatever goes wrong there costs nothing but the trace."""

import asyncio
import sys
import threading
import time
from pathlib import Path

from service.engines.base import Completion, Usage
from service.engines.conversation import Conversation, Turn
from service.errors import StoreUnavailable
from service.programs.run import RequestInfo
from service.programs.storage import Storage
from service.refinement.events import Done, Generated, Timing
from service.refinement.program import Budget, Generate
from service.refinement.roles import Models
from service.traces import recorder as module
from service.traces.database import TraceDatabase
from service.traces.recorder import Recorder
from service.traces.store import EVERYTHING
from service.traces.trace import Trace
from tests.support.stored_traces import trace_store


def program(number: int) -> Generate:
    asked = [Conversation(Turn("user", "Write."))]
    models = Models.single("m")
    return Generate(
        id=f"gen-{number}", task="general", models=models, budget=Budget(1.0), requests=asked, to_store={"prompt": "W"}
    )


def keep(recorder: Recorder, number: int) -> "asyncio.Future[None]":
    completion = Completion("Waves.", "stop", Usage())
    done = Done(Generated(f"gen-{number}", "m", [[completion]], {}), Timing(0.0, 1.0))
    return recorder.keep(program(number), RequestInfo("r", "ann", "/v1/generate", time.perf_counter() - 1.0), done)


async def test_a_trace_that_waits_delays_nobody_and_is_stored_before_the_end(tmp_path: Path) -> None:
    outcomes: list[str] = []
    go_on = threading.Event()

    def slow(text: str) -> str:
        go_on.wait(10)
        return text

    async with trace_store(tmp_path / "store.db") as store:
        recorder = Recorder(store, Storage({}, sys.maxsize), slow, outcomes.append)
        kept = [keep(recorder, number) for number in (1, 2, 1)]  # the last is of the same program
        assert not any(one.done() for one in kept)
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        await recorder.close()
        found = await store.list("ann", EVERYTHING, 10)

    assert [one.id for one in found] == ["gen-2", "gen-1"]
    assert 0.5 < time.time() - found[0].created < 60  # when the request arrived
    assert outcomes == ["stored", "stored"]


async def test_a_database_that_is_away_costs_the_trace(tmp_path: Path) -> None:
    outcomes: list[str] = []

    class Away(TraceDatabase):
        async def add(self, trace: Trace) -> bool:
            raise StoreUnavailable("away")

    async with trace_store(tmp_path / "store.db") as store:
        recorder = Recorder(Away(store._database), Storage({}, sys.maxsize), str, outcomes.append)
        await keep(recorder, 1)
        await recorder.close()

    assert outcomes == ["failed"]


async def test_no_more_traces_wait_than_fit(tmp_path: Path) -> None:
    outcomes: list[str] = []
    async with trace_store(tmp_path / "store.db") as store:
        recorder = Recorder(store, Storage({}, sys.maxsize), str, outcomes.append)
        waiting = [keep(recorder, number) for number in range(module.MOST_WAITING + 2)]
        await asyncio.gather(*waiting)
        await recorder.close()

    assert (outcomes.count("dropped"), outcomes.count("stored")) == (2, module.MOST_WAITING)
