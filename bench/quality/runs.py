"""Runs every prompt by every arm and seed on the embedded model, and keeps what each run had reached by when.

A run is one line of a JSON Lines file. Runs that the file already has are not made again, so an interrupted benchmark
resumes where it stopped.
"""

import asyncio
import json
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from bench.harness.results import Results
from bench.harness.scenario import say
from bench.quality.arms import ARMS
from bench.quality.prompts import BenchPrompt
from service.engines.base import Engine, Usage
from service.errors import EngineDead
from service.programs.compile import Programs
from service.refinement import policy
from service.refinement.candidate import Assessment
from service.refinement.events import CallEnded, CandidateEvaluated, Refined, Reviewed
from service.refinement.loop import refine
from service.refinement.roles import Roles
from service.refinement.single import review
from service.wire.requests import CritiqueRequest, RefineRequest

AT_ONCE = 120
"""Programs at work at the same time, so that the engine's batch is full."""


@dataclass(frozen=True)
class Step:
    """The text that a run would have returned once ``tokens`` prompt and completion tokens were spent.

    ``visible`` and ``hidden``: for each verifier that the search may see, and for the one that it may not, whether
    the text passes it.
    """

    tokens: int
    visible: Sequence[bool]
    hidden: Sequence[bool]


@dataclass(frozen=True)
class Run:
    """``steps``: the first draft, then each text that displaced the best one. ``tokens``: all that were spent.

    ``candidates``: the texts that were evaluated.
    """

    prompt: str
    arm: str
    seed: int
    steps: Sequence[Step]
    tokens: int
    stop_reason: str
    calls: int
    candidates: int


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
            "sampling": {"max_tokens": self.prompt.max_tokens, "seed": self.seed * 1_000_000},
            "stop": {"patience": 1_000},
            "budget": {"tokens": budget},
        }
        return RefineRequest.model_validate_json(json.dumps(body))


def open_results(file: Path) -> Results[Origin, Run]:
    return Results(file, Origin, Run)


@dataclass
class Bench:
    """``programs`` makes programs of requests, as the service does."""

    engine: Engine
    programs: Programs
    origin: Origin
    _verdicts: dict[tuple[str, str], tuple[Sequence[bool], Sequence[bool]]] = field(default_factory=dict)

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
        program = self.programs.compile_refine(planned.request(self.origin.budget))
        overhead = paid = 0  # of judges and critics, and of the candidates evaluated so far
        best: Assessment | None = None
        reached: list[tuple[int, str]] = []
        evaluated = set()
        async with aclosing(refine(program, Roles.single(self.engine))) as events:
            async for event in events:
                match event:
                    case CallEnded("critique" | "judge", usage):
                        overhead += usage.tokens
                    case CandidateEvaluated(candidate, assessment):
                        evaluated.add(candidate.id)
                        paid += candidate.completion.usage.tokens
                        if best is None or policy.displaces(assessment, best, program.stop.min_gain):
                            best = assessment
                            reached.append((overhead + paid, candidate.text))
        assert isinstance(event, Refined)  # noqa: S101 - a program's last event
        if event.stop_reason == "engine_failed":
            raise EngineDead("the engine died while the benchmark ran")
        spent = sum(event.usage.values(), Usage())
        if not reached:  # nothing was left to evaluate the first draft with
            reached = [(spent.tokens, event.selected.text)]
        steps = [Step(tokens, *await self._verdict(planned.prompt, text)) for tokens, text in reached]
        return Run(*planned.key, steps, spent.tokens, event.stop_reason, spent.calls, len(evaluated))

    async def _verdict(self, prompt: BenchPrompt, text: str) -> tuple[Sequence[bool], Sequence[bool]]:
        """Whether a text passes each visible and each hidden verifier, whatever the arm saw of them."""
        known = self._verdicts.get((prompt.id, text))
        if known is None:
            body = {
                **prompt.request(),
                "candidate": text,
                "evaluators": [*prompt.evaluators, *prompt.hidden],
                "judge": False,
                "feedback": False,
            }
            program = self.programs.compile_review(CritiqueRequest.model_validate_json(json.dumps(body)))
            *_, done = [event async for event in review(program, Roles.single(self.engine))]
            assert isinstance(done, Reviewed)  # noqa: S101 - a review's last event
            count = len(prompt.evaluators) + len(prompt.hidden)
            passed = [evaluation.passed is True for evaluation in done.assessment.evaluations[-count:]]
            known = passed[: len(prompt.evaluators)], passed[len(prompt.evaluators) :]
            self._verdicts[prompt.id, text] = known
        return known
