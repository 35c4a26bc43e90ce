"""Has a running service refine every prompt by every arm, and finds out whether first draft and result are right.

Runs that the file of results already has are not made again, so an interrupted benchmark resumes.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.harness.results import Results
from bench.harness.scenario import say
from bench.open.arms import ARMS
from bench.open.prompts import OpenPrompt
from redraft import AsyncRedraft


@dataclass(frozen=True)
class Origin:
    """What the runs of a file have in common. budget: prompt and completion tokens that each run could spend."""

    model: str
    budget: int
    commit: str

    def __str__(self) -> str:
        return f"{self.model}, {self.budget} tokens a run, commit {self.commit}"


@dataclass(frozen=True)
class Run:
    """One refine.

    first, last: whether its first draft and its result are right.
    complete: whether the first draft came to its end, and was not cut by ``max_tokens``.
    trust: the level of its judge.
    """

    prompt: str
    arm: str
    seed: int
    first: bool
    last: bool
    complete: bool
    tokens: int
    stop_reason: str
    trust: str


@dataclass(frozen=True)
class Planned:
    prompt: OpenPrompt
    arm: str
    seed: int


def open_results(file: Path) -> Results[Origin, Run]:
    return Results(file, Origin, Run)


async def refine_all(
    planned: Iterable[Planned], client: AsyncRedraft, results: Results[Origin, Run], *, budget: int, at_once: int
) -> None:
    """Make the runs that are not in the results yet."""
    known = {(run.prompt, run.arm, run.seed) for run in results.read()}
    missing = [each for each in planned if (each.prompt.id, each.arm, each.seed) not in known]
    slots = asyncio.Semaphore(at_once)

    async def make(number: int, each: Planned) -> None:
        async with slots:
            results.append(await run(each, client, budget))
        say(f"{number} of {len(missing)}")

    async with asyncio.TaskGroup() as group:
        for number, each in enumerate(missing, 1):
            group.create_task(make(number, each))


async def run(planned: Planned, client: AsyncRedraft, budget: int) -> Run:
    """Refine one prompt. The drafts of a prompt and a seed are the same in all arms."""
    prompt = planned.prompt
    result = await client.refine(
        **prompt.request(),
        **ARMS[planned.arm],
        sampling={"max_tokens": prompt.max_tokens, "seed": planned.seed * 1_000_000},
        budget={"tokens": budget},
    )
    assert result.rounds is not None  # noqa: S101 - a trace is returned unless it is declined
    first = result.rounds[0].candidates[0]
    return Run(
        prompt=prompt.id,
        arm=planned.arm,
        seed=planned.seed,
        first=await is_right(prompt, first.text, client),
        last=await is_right(prompt, result.text, client),
        complete=first.finish_reason == "stop",
        tokens=result.usage.total.prompt_tokens + result.usage.total.completion_tokens,
        stop_reason=result.stop_reason,
        trust=result.judge_trust.level,
    )


async def is_right(prompt: OpenPrompt, text: str, client: AsyncRedraft) -> bool:
    """Whether a text passes the prompt's key. Costs no engine call."""
    if not text.strip():
        return False
    found = await client.critique(
        **prompt.request(), candidate=text, evaluators=[dict(each) for each in prompt.key], judge=False, feedback=False
    )
    return found.passed is True
