"""Runs every prompt by every arm and seed on the embedded model, and keeps what each run had reached by when.

A run is one line of a JSON Lines file. Runs that the file has already are not done again, so a benchmark that was
cut goes on where it was.
"""

import asyncio
import json
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.quality.arms import ARMS
from bench.quality.prompts import BenchPrompt
from service.api.programs import Programs
from service.api.requests import CritiqueRequest, RefineRequest
from service.engines.base import Engine
from service.refinement.events import CallEnded, CandidateAdded, Refined, Reviewed, RoundEnded
from service.refinement.loop import refine
from service.refinement.single import review

AT_ONCE = 64
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
    """``steps``: the first draft, then what every round and the end left."""

    prompt: str
    arm: str
    seed: int
    steps: Sequence[Step]
    stop_reason: str
    calls: int
    candidates: int


@dataclass(frozen=True)
class Cell:
    """One run to be made."""

    prompt: BenchPrompt
    arm: str
    seed: int

    @property
    def key(self) -> tuple[str, str, int]:
        return self.prompt.id, self.arm, self.seed


def read_runs(file: Path) -> list[Run]:
    """The runs that a file has; a line that was cut while it was written is left out."""
    runs = []
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        runs.append(Run(**{**values, "steps": [Step(**step) for step in values["steps"]]}))
    return runs


@dataclass
class Bench:
    """``budget``: tokens that each run may spend. ``programs`` makes programs of requests, as the service does."""

    engine: Engine
    programs: Programs
    budget: int
    _verdicts: dict[tuple[str, str], tuple[Sequence[bool], Sequence[bool]]] = field(default_factory=dict)

    async def complete(self, cells: Iterable[Cell], file: Path) -> None:
        """Make the runs that ``file`` does not have yet, and append each once it is over."""
        done = {(run.prompt, run.arm, run.seed) for run in read_runs(file)}
        left = [cell for cell in cells if cell.key not in done]
        places = asyncio.Semaphore(AT_ONCE)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as output:
            if output.tell():
                output.write("\n")  # ends a line that was cut
            async with asyncio.TaskGroup() as group:
                for number, cell in enumerate(left, 1):
                    await places.acquire()
                    group.create_task(self._kept(cell, output, places, f"{number}/{len(left)}"))

    async def _kept(self, cell: Cell, output: Any, places: asyncio.Semaphore, progress: str) -> None:
        try:
            run = await self.run(cell)
        finally:
            places.release()
        output.write(json.dumps(asdict(run)) + "\n")
        output.flush()
        print(progress, *cell.key, run.stop_reason, f"{run.steps[-1].tokens} tokens", flush=True)  # noqa: T201

    async def run(self, cell: Cell) -> Run:
        program = self.programs.program(self._request(cell))
        tokens = calls = 0
        texts: dict[str, str] = {}
        reached: list[tuple[int, str]] = []
        stop_reason = ""
        async with aclosing(refine(program, self.engine)) as events:
            async for event in events:
                match event:
                    case CallEnded(usage=usage):
                        tokens += usage.prompt_tokens + usage.completion_tokens
                        calls += usage.calls
                    case CandidateAdded(candidate):
                        if not texts:
                            cost = candidate.completion.usage
                            reached.append((cost.prompt_tokens + cost.completion_tokens, candidate.id))
                        texts[candidate.id] = candidate.text
                    case RoundEnded(round):
                        reached.append((tokens, round.incumbent))
                    case Refined():
                        reached.append((tokens, event.selected.id))
                        stop_reason = event.stop_reason
        steps = [Step(spent, *await self._verdict(cell.prompt, texts[name])) for spent, name in reached]
        return Run(cell.prompt.id, cell.arm, cell.seed, steps, stop_reason, calls, len(texts))

    def _request(self, cell: Cell) -> RefineRequest:
        arm = ARMS[cell.arm]
        body = {
            **cell.prompt.request(),
            **arm.request,
            "evaluators": cell.prompt.evaluators if arm.verified else [],
            "sampling": {"max_tokens": cell.prompt.max_tokens, "seed": cell.seed * 1_000_000},
            "stop": {"patience": 1_000},
            "budget": {"tokens": self.budget},
        }
        return RefineRequest.model_validate_json(json.dumps(body))

    async def _verdict(self, prompt: BenchPrompt, text: str) -> tuple[Sequence[bool], Sequence[bool]]:
        """Whether a text passes each visible and each hidden verifier, whatever the arm was told."""
        known = self._verdicts.get((prompt.id, text))
        if known is None:
            body = {
                **prompt.request(),
                "candidate": text,
                "evaluators": [*prompt.evaluators, *prompt.hidden],
                "judge": False,
                "feedback": False,
            }
            program = self.programs.review(CritiqueRequest.model_validate_json(json.dumps(body)))
            *_, done = [event async for event in review(program, self.engine)]
            assert isinstance(done, Reviewed)  # noqa: S101 - a review's last event
            count = len(prompt.evaluators) + len(prompt.hidden)
            passed = [evaluation.passed is True for evaluation in done.assessment.evaluations[-count:]]
            known = passed[: len(prompt.evaluators)], passed[len(prompt.evaluators) :]
            self._verdicts[prompt.id, text] = known
        return known
