"""``python -m bench.quality``: make the runs that are not there yet, then write the table and the plot.

A benchmark that was cut goes on where it was. Runs of another commit, model or budget are not mixed in.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

from bench.origin import current_commit
from bench.quality import report
from bench.quality.arms import ARMS
from bench.quality.prompts import load_prompts
from bench.quality.runs import Bench, Origin, OtherOrigin, PlannedRun, read_runs
from service.app import open_toolbox, start_engine
from service.programs.compile import Programs, RequestLimits
from service.programs.models import ServedModels
from service.settings import Settings
from service.tasks.task import load_tasks

HEADROOM = 1.25
"""Runs may spend more than is reported on, so that no arm's last text falls behind the end of its curve."""
ROOT = Path(__file__).parents[2]
BOUNDS = RequestLimits(candidates=64, rounds=1_000, tokens=4_096, seconds=36_000.0)


def main() -> None:
    options = _options()
    try:
        if not options.report_only:
            asyncio.run(_run(options))
        _report(options)
    except (OtherOrigin, report.NothingToCompare) as error:
        sys.exit(str(error))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.quality")
    parser.add_argument("--budget", type=int, default=1_000, help="prompt and completion tokens for each run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--every", type=int, default=1, help="only every n-th prompt")
    parser.add_argument("--runs", type=Path, default=ROOT / "bench" / "results" / "quality.jsonl")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results", help="folder of quality.md and quality.svg")
    parser.add_argument("--report-only", action="store_true", help="make no runs")
    return parser.parse_args()


async def _run(options: argparse.Namespace) -> None:
    settings = Settings()
    async with AsyncExitStack() as resources:
        tools = await open_toolbox(settings)
        resources.push_async_callback(tools.close)
        engine = await start_engine(settings)
        resources.push_async_callback(engine.close)
        programs = Programs(load_tasks(tools=tools), BOUNDS, ServedModels((engine.model,)), tools=tools)
        origin = Origin(engine.model, int(options.budget * HEADROOM), current_commit())
        await Bench(engine, programs, origin).complete(_planned(options), options.runs)


def _planned(options: argparse.Namespace) -> Iterator[PlannedRun]:
    """Seed by seed and prompt by prompt, so that what a cut leaves compares the arms evenly.

    Where a verifier gives the answer away, one seed is enough to see what that is worth.
    """
    prompts = load_prompts()[:: options.every]
    for seed in range(options.seeds):
        for prompt in prompts:
            if seed == 0 or not prompt.reveals_answer:
                for arm in options.arms:
                    yield PlannedRun(prompt, arm, seed)


def _report(options: argparse.Namespace) -> None:
    prompts = load_prompts()
    made_by, runs = read_runs(options.runs)
    made_on = datetime.fromtimestamp(options.runs.stat().st_mtime, UTC).date()
    comparison = report.by_arm(runs)
    options.out.mkdir(parents=True, exist_ok=True)
    report.plot(report.instructed(comparison.runs, prompts), options.budget, options.out / "quality.svg")
    page = report.page(comparison, prompts, options.budget, made_by, made_on)
    options.out.joinpath("quality.md").write_text(page)
    print(page)  # noqa: T201


if __name__ == "__main__":
    main()
