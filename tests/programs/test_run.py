"""A program runs without an HTTP request: admitted or with a place of its own, counted, logged, and ended."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from service.engines.conversation import Conversation, Turn
from service.engines.scripted import ScriptedEngine
from service.errors import DeadlineExceeded, EngineDead, Overloaded
from service.metrics import READY, Metrics
from service.programs.admission import Admission, Ticket
from service.programs.background import Background
from service.programs.run import RequestInfo, Runner, read_done
from service.refinement.events import Done, Event, Generated, Refined, Relayed, Reviewed
from service.refinement.program import Generate, Program, Review
from service.refinement.scheduling import Lane
from tests.support.scripts import FENCE, JUDGE, PROMPTS, REQUEST, engine, program, settled, stall

INFO = RequestInfo("r-1", "anna", "/v1/refine", time.perf_counter())


@dataclass(frozen=True)
class Running:
    runner: Runner
    engine: ScriptedEngine

    async def events(self, program: Program, ticket: Ticket | None = None) -> list[Event]:
        async with aclosing(self.runner.run(program, INFO, ticket)) as events:
            return [event async for event in events]

    def page(self) -> str:
        return self.runner.metrics.page(READY).decode()


def running() -> Running:
    """One place, and no queue."""
    scripted = engine()
    metrics = Metrics()
    admission = Admission(1, 0, on_shed=metrics.count_shed)
    background = Background(admission, max_programs=1)
    return Running(Runner(lambda model: scripted, admission, background, metrics), scripted)


def generate_program(lane: Lane = "interactive") -> Generate:
    made = program()
    requests = [Conversation(Turn("user", "Why?"))]
    return Generate(id="gen-1", task="general", models=made.models, budget=made.budget, requests=requests, lane=lane)


def review_program() -> Review:
    made = program(JUDGE)
    return Review(
        id="crit-1",
        task="general",
        models=made.models,
        budget=made.budget,
        request=REQUEST,
        prompts=PROMPTS,
        fence=FENCE,
        evaluators=(JUDGE,),
        candidate="Sand.",
    )


@asynccontextmanager
async def held(runner: Runner) -> AsyncIterator[None]:
    """Hold the only place."""
    async with runner.admission.admit("ben"):
        yield


async def test_the_last_event_of_every_kind_is_done_with_its_outcome() -> None:
    for made, kind in ((program(), Refined), (generate_program(), Generated), (review_program(), Reviewed)):
        *events, last = await running().events(made)
        assert isinstance(last, Done)
        assert isinstance(last.outcome, kind)
        assert not any(isinstance(event, Done | Generated | Refined | Relayed | Reviewed) for event in events)


async def test_a_program_that_finds_no_place_is_refused_before_any_work() -> None:
    ran = running()
    async with held(ran.runner):
        with pytest.raises(Overloaded):
            await ran.events(program())
    assert ran.engine.calls == []


async def test_a_dead_engine_is_reported_though_every_place_is_taken() -> None:
    ran = running()
    ran.engine.kill()
    async with held(ran.runner):
        with pytest.raises(EngineDead):
            await ran.events(program())


async def test_with_a_ticket_no_place_is_taken() -> None:
    ran = running()
    async with held(ran.runner):
        *_, last = await ran.events(program(), Ticket(queued_seconds=7.0))
    assert isinstance(last, Done)
    assert last.timing.queued_seconds == 7.0
    assert last.timing.total_seconds > 0


async def test_the_place_is_held_until_the_events_are_closed() -> None:
    ran = running()
    async with aclosing(ran.runner.run(program(), INFO)) as events:
        await read_done(events)
        assert ran.runner.admission.in_progress == 1
    assert ran.runner.admission.in_progress == 0


async def test_closing_the_events_cancels_the_engines_calls() -> None:
    ran = running()
    reached = asyncio.Event()
    stall(ran.engine, lambda call: True, reached.set)
    reading = asyncio.create_task(ran.events(program()))
    await reached.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await settled(ran.engine)
    assert ran.runner.admission.in_progress == 0


async def test_an_end_is_logged_once_with_the_request_it_came_from(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await running().events(program())
    [record] = [record for record in caplog.records if record.getMessage() == "program ended"]
    assert vars(record)["request_id"] == "r-1"
    assert vars(record)["program"] == "ref-1"
    assert vars(record)["stop_reason"] == "rounds"


async def test_what_ends_in_an_error_is_not_logged_as_ended(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(DeadlineExceeded):
        await running().events(replace(program(), budget=replace(program().budget, deadline=0.0)))
    assert [record for record in caplog.records if record.getMessage() == "program ended"] == []


@pytest.mark.parametrize(("lane", "counted"), [("interactive", True), ("batch", False)])
async def test_only_what_somebody_waits_for_has_a_first_event(lane: Lane, counted: bool) -> None:
    ran = running()
    await ran.events(generate_program(lane), Ticket(0.0))
    assert ('redraft_first_event_seconds_count{endpoint="/v1/refine"} 1.0' in ran.page()) is counted


async def test_a_stream_that_ends_without_done_is_a_bug() -> None:
    async def nothing() -> AsyncGenerator[Event, None]:
        for event in list[Event]():
            yield event

    with pytest.raises(RuntimeError, match="ends with Done"):
        await read_done(nothing())
