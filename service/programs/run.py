"""Running a program: a place at work, the engines of its roles, and its events, which feed the metrics and the log.

Nothing here knows HTTP, so a request, a line of a batch and a test run a program in the same way.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, aclosing, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from service.engines.base import Engine
from service.errors import ModelNotFound, Unavailable
from service.metrics import Metrics
from service.programs.admission import Admission, Ticket
from service.programs.background import Background
from service.refinement.events import (
    CandidateFailed,
    Done,
    Event,
    Outcome,
    Refined,
    Reviewed,
    Started,
    Timing,
    Tried,
)
from service.refinement.loop import refine
from service.refinement.program import Generate, Program, Refine, Review, ToolChat
from service.refinement.roles import Models, Roles
from service.refinement.single import generate, relay, review
from service.wire.responses import total

log = logging.getLogger(__name__)

Observe = Callable[[str, Event], None]
"""Counts an event of a program of a task."""


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """The request that a program comes from.

    id: its id, for the log.
    caller: the name of the caller's key.
    endpoint: where it was sent, for the metrics.
    arrived: when it arrived, by ``time.perf_counter``.
    """

    id: str
    caller: str
    endpoint: str
    arrived: float

    def seconds_since_arrival(self) -> float:
        return time.perf_counter() - self.arrived


class Keeper(Protocol):
    """Stores the traces of programs whose requests ask for it."""

    async def check(self, caller: str) -> None:
        """Raise StorageFull if no further trace of the caller's can be stored. Raises StoreUnavailable."""

    def keep(self, program: Program, info: RequestInfo, done: Done) -> "asyncio.Future[None]":
        """Begin to store the whole account of a program. The future is done once it is stored, or cannot be; it never
        has an exception. A program is stored once, however often this is called."""


@dataclass(frozen=True)
class Runner:
    """Runs programs.

    engine: gives a model's engine once it serves; before that it raises Starting, or EngineDead if it never will.
    admission: the places of the interactive lane.
    background: the places and the gate of the batch lane.
    metrics: what every event is counted in.
    keeper: stores traces, if there are any.
    hold: keeps the weights of a program's models in their engines while it runs.
    note_trial: told what became of a program's candidate, with the program's id.

    >>> async with aclosing(runner.run(program, info)) as events:  # doctest: +SKIP
    ...     async for event in events:
    ...         print(event)
    """

    engine: Callable[[str], Engine]
    admission: Admission
    background: Background
    metrics: Metrics
    keeper: Keeper | None = None
    hold: Callable[[Models], AbstractContextManager[None]] = lambda models: nullcontext()
    note_trial: Callable[[str, Tried | CandidateFailed], None] = lambda program, event: None

    def roles(self, models: Models) -> Roles:
        """The engines of a program's models. Raises what ``engine`` raises, but no program fails for want of a
        candidate."""
        candidate = None
        if models.candidate is not None:
            try:
                candidate = self.engine(models.candidate)
            except (ModelNotFound, Unavailable) as error:
                log.warning("a program has no candidate", extra={"model": models.candidate, "reason": error.detail})
        return Roles(self.engine(models.writer), self.engine(models.critic), self.engine(models.judge), candidate)

    async def run(
        self,
        program: Program,
        info: RequestInfo,
        ticket: Ticket | None = None,
        observe: Observe | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Run the program and yield its events; the last one is Done. Closing the generator cancels the work.

        program: what to run. In the batch lane its calls pass the gate.
        info: the request that it comes from.
        ticket: a place that the caller holds already. Without one the program is admitted first.
        observe: counts the events of a program that nobody waits for; by default the metrics count them.

        The place is held until the generator is closed. Raises what Admission.admit, Roles.check, Keeper.check and the
        program raise.
        """
        if self.keeper is not None and program.to_store is not None:
            await self.keeper.check(info.caller)
        with self.hold(program.models):
            roles = self.roles(program.models)
            if program.lane == "batch":
                roles = self.background.roles(roles)
            if ticket is None:
                await roles.check()
            place = self._admit(program, info.caller) if ticket is None else nullcontext(ticket)
            begun = program.lane == "batch" or observe is not None  # nobody waits for the first event
            async with place as held, aclosing(_work(program, roles)) as events:
                async for event in events:
                    (observe or self.metrics.observe)(program.task, event)
                    if isinstance(event, Tried | CandidateFailed):
                        self.note_trial(program.id, event)
                    if isinstance(event, Outcome):
                        event = Done(event, Timing(held.queued_seconds, info.seconds_since_arrival()))
                        log.info("program ended", extra={"request_id": info.id, **_summarize(event, program)})
                        self.keep(program, info, event)
                    if not begun and not isinstance(event, Started):
                        begun = True
                        self.metrics.observe_first_event(info.endpoint, info.seconds_since_arrival())
                    yield event

    def keep(self, program: Program, info: RequestInfo, done: Done) -> "asyncio.Future[None] | None":
        """Begin to store the program's trace, if that is asked for."""
        return None if self.keeper is None or program.to_store is None else self.keeper.keep(program, info, done)

    def _admit(self, program: Program, caller: str) -> AbstractAsyncContextManager[Ticket]:
        """A place in the program's lane."""
        if program.lane == "batch":
            return self.background.admit(caller, deadline=program.budget.deadline)
        return self.admission.admit(caller, deadline=program.budget.deadline)


def _work(program: Program, roles: Roles) -> AsyncGenerator[Event, None]:
    match program:
        case Generate():
            return generate(program, roles)
        case Review():
            return review(program, roles)
        case Refine():
            return refine(program, roles)
        case ToolChat():
            return relay(program, roles)
    raise TypeError(f"{type(program).__name__} is not a kind of program that can be run")


async def read_done(events: AsyncGenerator[Event, None]) -> Done:
    """Read a program's events up to the last. The generator is left open, and so the program keeps its place."""
    async for event in events:
        if isinstance(event, Done):
            return event
    raise RuntimeError("a program ends with Done")


def _summarize(done: Done, program: Program) -> Mapping[str, Any]:
    """What the log says of a program: sizes and outcomes, and the caller's metadata, but no text."""
    outcome = done.outcome
    summary = {
        "program": outcome.program,
        "task": program.task,
        "model": outcome.models.writer if isinstance(outcome, Reviewed) else outcome.model,
        **asdict(total(outcome.usage)),
        **asdict(done.timing),
    }
    if isinstance(outcome, Refined | Reviewed):
        summary |= {"models": outcome.models.by_role()}
    if isinstance(outcome, Refined):
        rounds = len(outcome.rounds) - 1
        summary |= {"stop_reason": outcome.stop_reason, "rounds": rounds, "selected": outcome.selected.id}
    return summary | ({"metadata": dict(program.metadata)} if program.metadata else {})
