"""``python -m bench.critic``: ask a running service about every labelled reply, then write the page of results.

``python -m bench.critic --fetch-model FOLDER`` fetches a model that can criticise. See README.md in this folder.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from bench.critic import model, report
from bench.critic.asking import Origin, ask_about, open_results, replies
from bench.critic.labels import load_labels
from bench.harness.origin import current_commit
from bench.harness.page import PAGES
from bench.harness.results import RESULTS
from bench.harness.scenario import parse_options
from redraft import AsyncRedraft


@dataclass(frozen=True)
class Options:
    url: Annotated[str, "of the service"] = "http://127.0.0.1:8000"
    split: Annotated[str, "of the labels", {"choices": ("held", "tune")}] = "held"
    every: Annotated[int, "only every n-th request and pair"] = 1
    at_once: Annotated[int, "requests at work"] = 16
    answers: Annotated[Path, "the file of results", {"type": Path}] = RESULTS / "critic.jsonl"
    out: Annotated[Path, "the page", {"type": Path}] = PAGES / "critic.md"
    report_only: Annotated[bool, "ask nothing"] = False
    fetch_model: Annotated[Path | None, "folder to write the measured model to, and do nothing else"] = None


def main() -> None:
    options = parse_options("bench.critic", Options, __doc__)
    if options.fetch_model is not None:
        model.fetch(options.fetch_model)
        return
    if not options.report_only:
        asyncio.run(_ask(options))
    results = open_results(options.answers)
    made_on = datetime.fromtimestamp(options.answers.stat().st_mtime, UTC).date()
    text = report.page(load_labels(), results.read(), results.origin(), made_on)
    options.out.write_text(text, encoding="utf-8")
    print(text)  # noqa: T201


async def _ask(options: Options) -> None:
    wanted = list(replies(load_labels().of("held" if options.split == "held" else "tune").every(options.every)))
    async with AsyncRedraft(options.url, timeout=None) as client:
        [served, *_] = await client.models()
        results = open_results(options.answers)
        results.begin(Origin(served.id, options.split, current_commit()))
        await ask_about(wanted, client, results, at_once=options.at_once)


if __name__ == "__main__":
    main()
