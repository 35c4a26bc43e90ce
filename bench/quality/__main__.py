"""``python -m bench.quality``: make the runs that are not there yet, then write the table and the plot.

A benchmark that was cut goes on where it was. Runs of another commit, model or budget are not mixed in.
"""

import argparse
import asyncio
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from bench.quality import report
from bench.quality.arms import ARMS
from bench.quality.prompts import load_prompts
from bench.quality.runs import Bench, Cell, Origin, read_runs
from service.api.programs import Bounds, Programs
from service.app import open_toolbox, start_engine
from service.settings import Settings
from service.tasks.task import load_tasks

HEADROOM = 1.25
"""Runs may spend more than is reported on, so that no arm's last text falls behind the end of its curve."""
ROOT = Path(__file__).parents[2]
BOUNDS = Bounds(candidates=64, rounds=1_000, tokens=4_096, seconds=36_000.0)


def main() -> None:
    options = _options()
    if not options.report_only:
        asyncio.run(_run(options))
    prompts = load_prompts()
    made_by, made = read_runs(options.runs)
    runs = report.by_arm(made)
    made_on = datetime.fromtimestamp(options.runs.stat().st_mtime, UTC).date()
    origin = f"Model: {made_by.model}. Date: {made_on}. Commit: {made_by.commit}."
    options.out.mkdir(parents=True, exist_ok=True)
    instructed = report.of_prompts(runs, {prompt.id for prompt in prompts if not prompt.reveals_answer})
    report.plot(instructed, options.budget, options.out / "quality.svg")
    page = report.page(runs, prompts, options.budget, origin)
    options.out.joinpath("quality.md").write_text(page)
    print(page)  # noqa: T201


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.quality")
    parser.add_argument("--budget", type=int, default=1_000, help="prompt and completion tokens for each run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--every", type=int, default=1, help="only every n-th prompt")
    parser.add_argument("--runs", type=Path, default=ROOT / "bench" / "results" / "quality.jsonl")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of quality.md and quality.svg")
    parser.add_argument("--report-only", action="store_true", help="make no runs")
    return parser.parse_args()


async def _run(options: argparse.Namespace) -> None:
    settings = Settings()
    tools = await open_toolbox(settings)
    engine = await start_engine(settings)
    try:
        programs = Programs(load_tasks(tools=tools), BOUNDS, engine.model, tools=tools)
        origin = Origin(engine.model, int(options.budget * HEADROOM), _commit())
        await Bench(engine, programs, origin).complete(_cells(options), options.runs)
    finally:
        await engine.close()
        await tools.close()


def _cells(options: argparse.Namespace) -> Iterator[Cell]:
    """Seed by seed and prompt by prompt, so that what a cut leaves compares the arms evenly.

    Where a verifier gives the answer away, one seed is enough to see what that is worth.
    """
    for seed in range(options.seeds):
        for prompt in load_prompts()[:: options.every]:
            if seed == 0 or not prompt.reveals_answer:
                for arm in options.arms:
                    yield Cell(prompt, arm, seed)


def _commit() -> str:
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return described.stdout.strip()


if __name__ == "__main__":
    main()
