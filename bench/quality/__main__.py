"""``python -m bench.quality``: make the runs that are not there yet, then write the table and the plot.

An interrupted benchmark resumes where it stopped. Runs of another commit, model or budget are not mixed in.
"""

import asyncio
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from bench.harness.origin import current_commit
from bench.harness.page import PAGES
from bench.harness.results import RESULTS, OtherOrigin
from bench.harness.scenario import parse_options
from bench.quality import report
from bench.quality.arms import ARMS, COMPARED
from bench.quality.prompts import load_prompts
from bench.quality.runs import Bench, Origin, PlannedRun, open_results
from service.app import open_toolbox
from service.fleet import start_engine
from service.programs.compile import Programs, RequestLimits
from service.programs.models import ServedModels
from service.settings import Settings
from service.tasks.task import load_tasks

HEADROOM = 1.25
"""Runs may spend more than is reported on, so that no arm's last text falls behind the end of its curve."""
BOUNDS = RequestLimits(candidates=64, rounds=1_000, tokens=4_096, seconds=36_000.0)


@dataclass(frozen=True)
class Options:
    budget: Annotated[int, "prompt and completion tokens for each run"] = 1_000
    seeds: Annotated[int, "runs of each prompt and arm"] = 3
    arms: Annotated[Sequence[str], "that run", {"nargs": "+", "choices": ARMS}] = COMPARED
    every: Annotated[int, "only every n-th prompt"] = 1
    runs: Annotated[Path, "the file of results"] = RESULTS / "quality.jsonl"
    out: Annotated[Path, "folder of quality.md and quality.svg"] = PAGES
    report_only: Annotated[bool, "make no runs"] = False


def main() -> None:
    options = parse_options("bench.quality", Options)
    try:
        if not options.report_only:
            asyncio.run(_run(options))
        _report(options)
    except (OtherOrigin, report.NothingToCompare) as error:
        sys.exit(str(error))


async def _run(options: Options) -> None:
    settings = Settings()
    async with AsyncExitStack() as resources:
        tools = await open_toolbox(settings)
        resources.push_async_callback(tools.close)
        engine = await start_engine(settings)
        resources.push_async_callback(engine.close)
        programs = Programs(load_tasks(tools=tools), BOUNDS, ServedModels((engine.model,)), tools=tools)
        origin = Origin(engine.model, int(options.budget * HEADROOM), current_commit())
        await Bench(engine, programs, origin).complete(_plan_runs(options), open_results(options.runs))


def _plan_runs(options: Options) -> Iterator[PlannedRun]:
    """Seed by seed and prompt by prompt, so that what a cut leaves compares the arms evenly. The prompts come in an
    order by chance, always the same, so that it is also a fair sample of them.

    Where a verifier gives the answer away, one seed is enough to see what that is worth, and it comes last.
    """
    prompts = list(load_prompts()[:: options.every])
    random.Random(0).shuffle(prompts)  # noqa: S311 - nothing secret is drawn
    prompts.sort(key=lambda prompt: prompt.reveals_answer)
    for seed in range(options.seeds):
        for prompt in prompts:
            if seed == 0 or not prompt.reveals_answer:
                for arm in options.arms:
                    yield PlannedRun(prompt, arm, seed)


def _report(options: Options) -> None:
    prompts = load_prompts()
    results = open_results(options.runs)
    made_on = datetime.fromtimestamp(options.runs.stat().st_mtime, UTC).date()
    comparison = report.by_arm(results.read())
    options.out.mkdir(parents=True, exist_ok=True)
    report.plot(report.instructed(comparison.runs, prompts), options.budget, options.out / "quality.svg")
    page = report.page(comparison, prompts, options.budget, results.origin(), made_on)
    options.out.joinpath("quality.md").write_text(page)
    print(page)  # noqa: T201


if __name__ == "__main__":
    main()
