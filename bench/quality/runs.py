"""Runs every prompt by every arm and seed on the embedded model, and keeps what each run had reached by when.

A run is one line of a JSON Lines file. Runs that the file already has are not made again, so an interrupted benchmark
resumes where it stopped.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.harness.results import Results
from bench.harness.scenario import say
from bench.quality.arms import ARMS
from bench.quality.asking import ask_again
from bench.quality.prompts import BenchPrompt, StatedVerifier
from service.engines.base import Completion, Engine, Usage
from service.errors import EngineDead
from service.programs.compile import Programs
from service.refinement import policy
from service.refinement.candidate import Assessment
from service.refinement.events import (
    CallEnded,
    CandidateEvaluated,
    ConstraintFailed,
    Event,
    Refined,
    Reviewed,
    TextAborted,
)
from service.refinement.loop import refine
from service.refinement.program import Refine
from service.refinement.roles import Roles
from service.refinement.single import review
from service.wire.requests import CritiqueRequest, RefineRequest

AT_ONCE = 48
"""Programs at work at the same time, so that the engine's batch is full and few texts wait."""


@dataclass(frozen=True)
class Step:
    """The text that a run would have returned once ``tokens`` prompt and completion tokens were spent.

    visible, hidden: for each verifier that the search may see, and for the one that it may not, whether the text passes
    it.
    seconds: since the run began, on an engine that all runs share.
    text: as it would have been returned, and ``end`` why it ended.
    fluency: by the evaluator ``perplexity``, whose model writes freely; None if it abstained.
    """

    tokens: int
    visible: Sequence[bool]
    hidden: Sequence[bool]
    seconds: float | None = field(default=None, compare=False)
    text: str = ""
    end: str = ""
    fluency: float | None = None


@dataclass(frozen=True)
class Run:
    """``steps``: the first draft, then each text that displaced the best one. ``tokens``: all that were spent.

    candidates: the texts that were evaluated.
    ends: how many of the texts that the model wrote ended for each reason; "lost" are those that were given up.
    alarms: for each text that did not keep to what it was sampled under, why, and the rules.
    """

    prompt: str
    arm: str
    seed: int
    steps: Sequence[Step]
    tokens: int
    stop_reason: str
    calls: int
    candidates: int
    ends: Mapping[str, int] = field(default_factory=dict)
    alarms: Sequence[str] = ()


@dataclass(frozen=True)
class Origin:
    """What the runs of a file have in common. ``budget``: tokens that each run could spend."""

    model: str
    budget: int
    commit: str

    def __str__(self) -> str:
        return f"{self.model}, {self.budget} tokens a run, commit {self.commit}"


@dataclass(frozen=True)
class PlannedRun:
    prompt: BenchPrompt
    arm: str
    seed: int

    @property
    def key(self) -> tuple[str, str, int]:
        return self.prompt.id, self.arm, self.seed

    def request(self, budget: int) -> RefineRequest:
        """The request to the service, which may spend at most ``budget`` tokens."""
        arm = ARMS[self.arm]
        body = {
            **self.prompt.request(),
            **arm.request,
            "evaluators": self.prompt.evaluators if arm.verified else [],
            "sampling": {
                "max_tokens": self.prompt.max_tokens,
                "seed": self.seed * 1_000_000,
                "landing": arm.landing,
            },
            "stop": {"patience": 1_000},
            "budget": {"tokens": budget},
        }
        return RefineRequest.model_validate_json(json.dumps(body))


def open_results(file: Path) -> Results[Origin, Run]:
    return Results(file, Origin, Run)


@dataclass
class Bench:
    """``programs`` makes programs of requests, as the service does. ``weighs``: whether fluency is looked at."""

    engine: Engine
    programs: Programs
    origin: Origin
    weighs: bool = True
    _known: dict[tuple[str, str], tuple[Sequence[bool], float | None]] = field(default_factory=dict)
    """Which verifiers each text of a prompt passes, and how fluent it is."""

    async def complete(self, planned: Iterable[PlannedRun], results: Results[Origin, Run]) -> None:
        """Make the runs that the results do not have yet, and add each once it is over. Raises OtherOrigin."""
        results.begin(self.origin)
        done = {(run.prompt, run.arm, run.seed) for run in results.read()}
        left = [run for run in planned if run.key not in done]
        places = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for number, run in enumerate(left, 1):
                await places.acquire()
                group.create_task(self._make(run, results, places, f"{number}/{len(left)}"))

    async def _make(
        self, planned: PlannedRun, results: Results[Origin, Run], places: asyncio.Semaphore, progress: str
    ) -> None:
        try:
            run = await self.run(planned)
        finally:
            places.release()
        results.append(run)
        say(f"{progress} {' '.join(map(str, planned.key))} {run.stop_reason} {run.tokens} tokens")

    async def run(self, planned: PlannedRun) -> Run:
        """One run. What a candidate costs counts when it is evaluated, so that texts which are sampled side by side
        count one after the other, as they would be paid for. EngineDead if the engine died: that is no result."""
        arm = ARMS[planned.arm]
        program = replace(self.programs.compile_refine(planned.request(self.origin.budget)), judge_trust=arm.trust)
        if arm.asks_again:
            return await self._ask_again(planned, program)
        account = _Account(program)
        async with aclosing(refine(program, Roles.single(self.engine))) as events:
            async for event in events:
                account.add(event)
        assert isinstance(event, Refined)  # noqa: S101 - a program's last event
        if event.stop_reason == "engine_failed":
            raise EngineDead("the engine died while the benchmark ran")
        spent = sum(event.usage.values(), Usage())
        if not account.reached:  # nothing was left to evaluate the first draft with
            account.reach(spent.tokens, event.selected.completion)
        return await self._finish(planned, account, spent, event.stop_reason)

    async def _ask_again(self, planned: PlannedRun, program: Refine) -> Run:
        account, spent, reason = _Account(program), Usage(), "budget"
        prompt = planned.prompt

        async def assess(text: str) -> Assessment:
            return await self._assess(prompt, text, prompt.evaluators)

        async for reply in ask_again(program, self.engine, assess):
            spent += reply.completion.usage
            account.evaluate(reply.completion, replace(reply.assessment, complete=reply.completion.is_complete))
            reason = reply.reason or reason
        return await self._finish(planned, account, spent, reason)

    async def _finish(self, planned: PlannedRun, account: "_Account", spent: Usage, reason: str) -> Run:
        steps = [await self._judge(planned.prompt, *reached) for reached in account.reached]
        return Run(
            *planned.key,
            steps,
            spent.tokens,
            reason,
            spent.calls,
            account.evaluated,
            dict(account.ends),
            account.alarms,
        )

    async def _judge(self, prompt: BenchPrompt, tokens: int, seconds: float, completion: Completion) -> Step:
        """Whether a text passes each visible and each hidden verifier, whatever the arm saw of them."""
        shown, text = len(prompt.evaluators), completion.text
        if (prompt.id, text) not in self._known:
            weigher = [{"type": "perplexity"}] if self.weighs else []
            stated = [*prompt.evaluators, *prompt.hidden, *weigher]
            found = (await self._assess(prompt, text, stated)).evaluations[-len(stated) :]
            verdicts = [each.passed is True for each in found[: len(stated) - len(weigher)]]
            self._known[prompt.id, text] = verdicts, found[-1].score if weigher else None
        passed, fluency = self._known[prompt.id, text]
        return Step(tokens, passed[:shown], passed[shown:], seconds, text, completion.finish_reason, fluency)

    async def _assess(self, prompt: BenchPrompt, text: str, evaluators: Sequence[StatedVerifier]) -> Assessment:
        body = {
            **prompt.request(),
            "candidate": text,
            "evaluators": evaluators,
            "judge": False,
            "feedback": False,
        }
        program = self.programs.compile_review(CritiqueRequest.model_validate_json(json.dumps(body)))
        *_, done = [event async for event in review(program, Roles.single(self.engine))]
        assert isinstance(done, Reviewed)  # noqa: S101 - a review's last event
        return done.assessment


class _Account:
    """What a run has spent and reached, event by event."""

    def __init__(self, program: Refine) -> None:
        self.reached: list[tuple[int, float, Completion]] = []
        self.ends: Counter[str] = Counter()
        self.alarms: list[str] = []
        self._program = program
        self._spent = 0
        self._best: Assessment | None = None
        self.evaluated = 0
        self._began = time.monotonic()

    def add(self, event: Event) -> None:
        match event:
            case CallEnded("critique" | "judge", usage):
                self._spent += usage.tokens
            case TextAborted(lost=True, usage=usage):
                self._spent += usage.tokens
                self.ends["lost"] += 1
            case CandidateEvaluated(candidate, assessment):
                self.evaluate(candidate.completion, assessment, written=candidate.form != "repair")
            case ConstraintFailed(cause, rules):
                self.alarms.append(f"{cause}: {', '.join(rules)}")

    def evaluate(self, completion: Completion, assessment: Assessment, *, written: bool = True) -> None:
        self.evaluated += 1
        self._spent += completion.usage.tokens
        if written:
            self.ends[completion.finish_reason] += 1
        stop, trust = self._program.stop, self._program.judge_trust
        if self._best is None or policy.displaces(assessment, self._best, stop.min_gain, trust):
            self._best = assessment
            self.reach(self._spent, completion)

    def reach(self, tokens: int, completion: Completion) -> None:
        self.reached.append((tokens, time.monotonic() - self._began, completion))
