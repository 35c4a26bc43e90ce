"""``python -m bench.open``: have a running service refine open requests, then write the page of results."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from bench.harness.origin import current_commit
from bench.harness.page import PAGES
from bench.harness.results import RESULTS
from bench.harness.scenario import parse_options
from bench.open.arms import ARMS
from bench.open.asking import Origin, Planned, open_results, refine_all
from bench.open.prompts import load_prompts
from bench.open.report import page
from redraft import AsyncRedraft


@dataclass(frozen=True)
class Options:
    url: Annotated[str, "of the service"] = "http://127.0.0.1:8000"
    budget: Annotated[int, "prompt and completion tokens for each run"] = 3_000
    seeds: Annotated[int, "runs of each prompt and arm"] = 1
    arms: Annotated[Sequence[str], "that run", {"nargs": "+", "choices": ARMS}] = tuple(ARMS)
    every: Annotated[int, "only every n-th prompt"] = 1
    at_once: Annotated[int, "refines at work"] = 16
    runs: Annotated[Path, "the file of results", {"type": Path}] = RESULTS / "open.jsonl"
    out: Annotated[Path, "the page", {"type": Path}] = PAGES / "open.md"
    report_only: Annotated[bool, "make no runs"] = False


def main() -> None:
    options = parse_options("bench.open", Options, __doc__)
    if not options.report_only:
        asyncio.run(_run(options))
    results = open_results(options.runs)
    made_on = datetime.fromtimestamp(options.runs.stat().st_mtime, UTC).date()
    text = page(results.read(), results.origin(), made_on)
    options.out.write_text(text, encoding="utf-8")
    print(text)  # noqa: T201


async def _run(options: Options) -> None:
    async with AsyncRedraft(options.url, timeout=None) as client:
        [served, *_] = await client.models()
        results = open_results(options.runs)
        results.begin(Origin(served.id, options.budget, current_commit()))
        await refine_all(_plan(options), client, results, budget=options.budget, at_once=options.at_once)


def _plan(options: Options) -> Iterator[Planned]:
    """Seed by seed and prompt by prompt, so that what an interruption leaves compares the arms evenly."""
    for seed in range(options.seeds):
        for prompt in load_prompts()[:: options.every]:
            for arm in options.arms:
                yield Planned(prompt, arm, seed)


if __name__ == "__main__":
    main()
