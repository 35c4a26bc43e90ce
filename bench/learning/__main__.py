"""``python -m bench.learning``: learn with several seeds, examine each adapter, and write the page of results.

Each seed is a whole pipeline, ``learn run``, in a folder of its own: other practice prompts, other texts, another
training. Then the base and the adapter answer prompts that the adapter has not learned from. What is there already is
not made again, so an interrupted benchmark resumes.
"""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from bench.harness.origin import current_commit
from bench.harness.page import PAGES
from bench.harness.results import RESULTS, Records, Results
from bench.harness.scenario import parse_options, say
from bench.harness.workshop import engine_for, open_workshop
from bench.learning.asking import Answer, Origin, ask, choose_questions, missing_models
from bench.learning.report import page
from bench.scenarios.adapters import Options as BadOptions
from bench.scenarios.adapters import Outcome
from service.learning.manifest import Manifest
from service.settings import Settings


@dataclass(frozen=True)
class Options:
    folder: Annotated[Path, "where the pipelines keep their files; delete it to start over", {"type": Path}] = (
        RESULTS / "learning"
    )
    recipe: Annotated[str, "a built-in recipe or a TOML file"] = "quick"
    seeds: Annotated[Sequence[int], "of the pipelines"] = (0, 1, 2)
    prompts: Annotated[int, "of single drafts, for each pipeline"] = 240
    refined: Annotated[int, "prompts of the loop, for each pipeline"] = 90
    out: Annotated[Path, "the page", {"type": Path}] = PAGES / "learning.md"
    report_only: Annotated[bool, "make nothing"] = False


def main() -> None:
    options = parse_options("bench.learning", Options, __doc__)
    results: Results[Origin, Answer] = Results(options.folder / "answers.jsonl", Origin, Answer)
    pipelines = [_Pipeline(options, seed) for seed in options.seeds]
    if not options.report_only:
        results.begin(Origin(Settings().model_name, options.recipe, current_commit()))
        for pipeline in pipelines:
            pipeline.learn()
            asyncio.run(pipeline.ask(results))
    manifests = {pipeline.seed: manifest for pipeline in pipelines if (manifest := pipeline.examined())}
    bad: Records[Outcome] = Records(BadOptions().folder / "outcomes.jsonl", Outcome)
    made_on = datetime.fromtimestamp(results.file.stat().st_mtime, UTC).date()
    text = page(manifests, results.read(), bad.read(), results.origin(), made_on, seeds=options.seeds)
    options.out.write_text(text, encoding="utf-8")
    print(text)  # noqa: T201 - it is what the benchmark is run for


class _Pipeline:
    def __init__(self, options: Options, seed: int) -> None:
        self.seed = seed
        self._options = options
        self._folder = (options.folder / f"seed-{seed}").absolute()
        self._shop = open_workshop(self._folder)

    def examined(self) -> Manifest | None:
        """The manifest of the adapter, if it has sat its exam."""
        return next((manifest for manifest in self._shop.registry.list() if manifest.verdicts), None)

    def learn(self) -> None:
        if self.examined() is None:
            say(f"seed {self.seed}: learning")
            step = ["exam"] if self._shop.registry.list() else ["run", "--recipe", self._options.recipe]
            seed = [] if step == ["exam"] else ["--seed", str(self.seed)]
            command = [sys.executable, "-m", "service", "learn", *step, *seed, "--folder", str(self._folder)]
            subprocess.run(command, check=True)  # noqa: S603 - this project's own command

    async def ask(self, results: Results[Origin, Answer]) -> None:
        """Ask the models that have not answered yet."""
        models = missing_models(self.seed, results)
        if not models:
            return
        manifest = self.examined()
        if manifest is None:
            raise RuntimeError(f"{self._folder} has no adapter that has sat its exam")
        paper = self._shop.paper(manifest)
        questions = choose_questions(
            self.seed, manifest, paper, prompts=self._options.prompts, refined=self._options.refined
        )
        async with engine_for(self._folder) as engine:
            adapter = await engine.load_adapter(manifest.adapter, self._shop.registry.folder_of(manifest.adapter))
            for model in models:
                say(f"seed {self.seed}: asking the {model}")
                await ask(engine if model == "base" else adapter, model, questions, results)


if __name__ == "__main__":
    main()
