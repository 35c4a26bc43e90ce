"""One attempt at a job: its program, begun or taken up again, and what it tells."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import asdict, dataclass, replace

from service.engines.base import Engine
from service.errors import Cancelled, ModelNotFound, RedraftError, StoreUnavailable, Unavailable
from service.jobs.job import Claim, JobEvent, JobKind, JobState, JobTaken, Progress, name_program
from service.jobs.journal import Interrupted, Journal
from service.jobs.news import News
from service.jobs.orders import JobFormat, Orders
from service.jobs.recorded import RecordedEngine, record_evaluators
from service.jobs.replays import observe_new
from service.jobs.store import WorkStore
from service.programs.admission import Ticket
from service.programs.run import RequestInfo, Runner
from service.refinement.events import (
    CallEnded,
    CandidateAdded,
    CandidateEvaluated,
    Done,
    Event,
    Generated,
    Refined,
    RoundEnded,
)
from service.refinement.program import EvaluatedProgram, Program, Refine
from service.refinement.roles import Models
from service.refinement.scheduling import Lane
from service.wire.problems import make_public
from service.wire.responses import sse_event

log = logging.getLogger(__name__)

ENDPOINT = "/v1/jobs"
MOST_IDLE_ATTEMPTS = 10
"""A job is given up after this many attempts in a row that ended with their process before any step was recorded."""
RETRY_SECONDS = 5.0
"""How long a job rests if its engines cannot serve, unless they say how long."""
MODELS_KEY = "models"
"""The step that says which models a job's program has."""
LONGEST_REST_SECONDS = 86_400.0
"""A job that is older than this fails if its engines cannot serve."""
REPLAY_SECONDS = 2.0
"""What is left of a job's time, at least, when it is taken up again: its recorded steps pass in less."""


class GivenUp(RedraftError):
    """Every attempt at the job has ended with its process."""


@dataclass(frozen=True)
class Services:
    """What attempts work with: where they write, what runs programs and makes them, and who hears of it.

    lane: whose places the programs take. ``orders`` compiles them for the same lane.
    models_change: whether the weights that answer for a model's name may change, as of one that learns.
    on_end: called with the kind and the state of each job that has ended here.
    """

    store: WorkStore
    runner: Runner
    orders: Orders
    news: News
    lane: Lane = "interactive"
    models_change: bool = False
    on_end: Callable[[JobKind, JobState], None] = lambda kind, state: None


class Attempt:
    """An attempt at a claimed job."""

    def __init__(self, services: Services, claim: Claim) -> None:
        self._services = services
        self._claim = claim
        self.is_ending = False
        self._withdrawn = claim.job.cancelling
        self._journal: Journal | None = None
        self._progress = Progress()
        self._scores: dict[str, float | None] = {}
        self._events = claim.events

    def withdraw(self) -> None:
        """End the program with the best that it has: its caller has cancelled the job."""
        self._withdrawn = True
        if self._journal is not None:
            self._journal.withdraw()

    def count_lost(self) -> None:
        """Count the calls in progress as lost, before ``run`` is cancelled."""
        if self._journal is not None:
            self._journal.count_lost()

    async def run(self) -> None:
        """Work until the job has ended, was taken by another process, or cannot go on for now. If this is cancelled,
        the job goes on in a later attempt."""
        try:
            await self._run()
        except JobTaken:
            log.warning("another process has taken a job", extra={"job": self._claim.job.id})
        except StoreUnavailable as error:  # its lease ends, and somebody claims it again
            log.warning("a job is left to its lease", extra={"job": self._claim.job.id, "reason": str(error)})
        finally:
            self._services.news.tell(self._claim.job.id)

    async def _run(self) -> None:
        try:
            await self._work()
        except Interrupted as interrupted:
            await self._rest(interrupted.cause)
        except StoreUnavailable as error:
            await self._rest(error)
        except JobTaken:
            raise
        except asyncio.CancelledError:
            await self._release(delay=0.0)
            raise
        except Exception as error:  # noqa: BLE001 - make_public logs it
            await self._fail(error)

    async def _work(self) -> None:
        services, claim = self._services, self._claim
        if claim.idle_attempts > MOST_IDLE_ATTEMPTS:
            raise GivenUp(f"the job was begun {MOST_IDLE_ATTEMPTS} times, and each time the service ended")
        steps = await services.store.steps(claim.job.id)
        self._journal = journal = Journal(services.store, claim, steps, services.runner.metrics.count_step)
        if self._withdrawn:
            journal.withdraw()
        async with self._place():
            program, form = await self._compile(journal)
            # Its end may be that of a program that goes on in a later attempt, so the trace is stored below.
            candidate = program.models.candidate
            runner = replace(services.runner, engine=lambda model: self._engine(model, journal, candidate), keeper=None)
            try:
                await runner.roles(program.models).check()
            except Unavailable as error:
                raise Interrupted(error) from error
            queued = (claim.job.started or claim.job.created) - claim.job.created
            info = RequestInfo(claim.order.request_id, claim.job.caller, ENDPOINT, _arrival(claim))

            def observe(task: str, event: Event) -> None:
                observe_new(services.runner.metrics, task, event, journal.replays, claim.keys)

            async with aclosing(runner.run(program, info, Ticket(queued), observe)) as events:
                async for event in events:
                    if journal.interrupted is not None:  # what still comes is the end of a program that goes on later
                        raise journal.interrupted
                    if isinstance(event, Done) and (kept := services.runner.keep(program, info, event)):
                        await asyncio.shield(kept)
                    await self._tell(event, form)

    def _place(self) -> AbstractAsyncContextManager[object]:
        """A place at work."""
        runner = self._services.runner
        if self._services.lane == "batch":
            return runner.background.place()
        return runner.admission.hold(self._claim.job.caller)

    async def _compile(self, journal: Journal) -> tuple[Program, JobFormat]:
        """The same program as in every other attempt, for the time that is left of it."""
        order = self._claim.order
        program, form = await self._services.orders.compile(self._claim)
        deadline = program.budget.deadline
        if self._claim.worked:
            soonest = asyncio.get_running_loop().time() + REPLAY_SECONDS
            deadline = max(deadline - self._claim.worked, min(soonest, deadline))
        program = replace(
            program,
            id=name_program(self._claim.job.id, program.id),
            budget=replace(program.budget, deadline=deadline),
        )
        if isinstance(program, EvaluatedProgram):
            evaluators = record_evaluators(program.evaluators, journal)
            program = replace(program, fence=order.fence, evaluators=evaluators)
        if isinstance(program, Refine) and program.sampling.seed is None:
            program = replace(program, sampling=replace(program.sampling, seed=order.seed))
        if self._services.models_change:
            program = replace(program, models=await self._models(program.models, journal))
        return program, form

    async def _models(self, now: Models, journal: Journal) -> Models:
        """The models that the first attempt had, or those of ``now`` if one of them is gone."""
        with journal.place(MODELS_KEY) as place:
            if place.recorded is None:
                await journal.record(place, asdict(now), 0.0)
                return now
            first = Models(**json.loads(place.recorded.result))
        try:
            self._services.runner.roles(first)
        except ModelNotFound:
            return now
        except Unavailable:  # for now
            pass
        return first if first.candidate is None else self._with_candidate(first, first.candidate)

    def _with_candidate(self, models: Models, candidate: str) -> Models:
        """The models as they were, or without a candidate that is gone. Raises Interrupted while it cannot serve."""
        try:
            self._services.runner.engine(candidate)
        except ModelNotFound:
            return replace(models, candidate=None)
        except Unavailable as error:
            raise Interrupted(error) from error
        return models

    def _engine(self, model: str, journal: Journal, candidate: str | None) -> Engine:
        return RecordedEngine(self._services.runner.engine(model), journal, interrupts=model != candidate)

    async def _tell(self, event: Event, form: JobFormat) -> None:
        """Note how far the program has come, and keep the event for its caller."""
        self._note(event)
        if isinstance(event, Done):
            state: JobState = "cancelled" if _is_cancelled(event) else "completed"
            await self._finish(state, "done", form.response(event).model_dump(mode="json"))
            return
        shown = sse_event(event, reasoning=form.reasoning)
        if shown is None:
            return
        told = JobEvent(self._events + 1, *shown)
        if told.key in self._claim.keys:  # by an earlier attempt
            return
        await self._services.store.append(self._claim, told, self._progress)
        self._events += 1
        self._services.news.tell(self._claim.job.id)

    def _note(self, event: Event) -> None:
        match event:
            case CallEnded(usage=usage):
                self._progress = replace(self._progress, tokens=self._progress.tokens + usage.tokens)
            case CandidateAdded():
                self._progress = replace(self._progress, candidates=self._progress.candidates + 1)
            case CandidateEvaluated(candidate, assessment):
                self._scores[candidate.id] = assessment.score
            case RoundEnded(ended):
                score = self._scores.get(ended.incumbent)
                self._progress = replace(self._progress, round=ended.number, score=score)
            case _:
                pass

    async def _fail(self, error: Exception) -> None:
        known = make_public(error, self._claim.order.request_id)
        state: JobState = "cancelled" if isinstance(error, Cancelled) else "failed"
        await self._finish(state, "error", self._services.orders.describe(known, self._claim))

    async def _finish(self, state: JobState, name: str, outcome: Mapping[str, object]) -> None:
        self.is_ending = True
        last = JobEvent(self._events + 1, name, outcome)
        await self._services.store.finish(self._claim, state, last, self._progress)
        self._services.on_end(self._claim.job.kind, state)
        log.info("job ended", extra={"job": self._claim.job.id, "state": state, "attempt": self._claim.attempt})

    async def _rest(self, cause: Exception) -> None:
        """Let the job go on later, unless it is too old for that."""
        if isinstance(cause, JobTaken):
            raise cause
        if time.time() - self._claim.job.created > LONGEST_REST_SECONDS:
            await self._fail(cause)
            return
        log.warning("a job rests", extra={"job": self._claim.job.id, "reason": str(cause)})
        retry_after = cause.retry_after if isinstance(cause, RedraftError) else None
        await self._release(RETRY_SECONDS if retry_after is None else retry_after)

    async def _release(self, delay: float) -> None:
        worked = self._claim.worked if self._journal is None else self._journal.worked
        await self._services.store.release(self._claim, worked, delay)


def _is_cancelled(done: Done) -> bool:
    match done.outcome:
        case Refined(stop_reason=reason):
            return reason == "cancelled"
        case Generated(completions=answers):
            return any(completion.finish_reason == "cancelled" for siblings in answers for completion in siblings)
        case _:
            return False


def _arrival(claim: Claim) -> float:
    """When the job's request arrived, by ``time.perf_counter``."""
    return time.perf_counter() - (time.time() - claim.job.created)
