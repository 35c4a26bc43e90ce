"""The steps of learning over one folder, each of which leaves files that the next one reads:

    split.json              which prompts are for training and which for the exam, for ever
    prompts.jsonl           the practice prompts
    collected.jsonl         texts for those that are for training
    stored.jsonl            texts of stored traces (stored.py, lineage.py)
    imported.jsonl          texts of files (imported.py)
    lessons/<digest>/       best texts, pairs and exercises
    adapters/, current, …   registry.py
    runs/                   runs.py

A step that is killed leaves the files of the steps before it, and is done again. Steps change the folder one process at
a time: a second one is refused.
"""

import asyncio
import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel

from service.calibration.identity import digest_of_folders
from service.engines.base import Engine
from service.learning.collected import Collected, read_lines, write_lines
from service.learning.collecting import collect
from service.learning.exam import OnLook, Reads, agree, sit
from service.learning.exercises import Exercise, find_exercises
from service.learning.figures import figures_of
from service.learning.imported import read_rows
from service.learning.lessons import CLIENT_SHARE, BestText, LessonPair, Lessons, make_lessons
from service.learning.lineage import IDS, STORED, changing_texts, forget, withdrawn_traces, write_ids, write_stored
from service.learning.manifest import (
    Agreement,
    Manifest,
    Merged,
    Verdict,
    digest_of,
    digest_of_evaluators,
    installed_versions,
)
from service.learning.merger import Merger
from service.learning.paper import ExamFailed, Paper, make_paper
from service.learning.practice import make_prompts
from service.learning.process import Progress
from service.learning.prompts import Prompt
from service.learning.recipe import Recipe
from service.learning.registry import Refused, Registry
from service.learning.runs import take_folder
from service.learning.split import Split
from service.learning.stored import Gathered, gather_traces
from service.learning.trainer import ADAPTER, EXERCISES, GREEDY, PAIRS, TEXTS, Trainer, refuse_few
from service.whole_files import write_whole

if TYPE_CHECKING:  # nothing of it is imported where traces are off
    from service.traces.store import TraceStore

M = TypeVar("M", bound=BaseModel)

EVALUATORS = "evaluators.txt"
"""The file of a folder of lessons with the digest of the code that verified them."""


def default_folder() -> Path:
    """Where learning keeps its files by default."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(data, "redraft", "learning")


class Workshop:
    """Learning in a folder.

    base: the folder of the model's files. trainer, merger: for tests. holds_folder: whether this process has inherited
    the right to change the folder.
    """

    def __init__(
        self,
        folder: Path,
        base: Path,
        trainer: Trainer | None = None,
        merger: Merger | None = None,
        *,
        holds_folder: bool = False,
    ) -> None:
        self.registry = Registry(folder)
        self._holds_folder = holds_folder
        self._folder = folder
        self._base = base
        self._trainer = trainer or Trainer()
        self._merger = merger or Merger()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Work on the folder, in one step or in several inside each other. Raises Refused if another process does."""
        if self._holds_folder:
            yield
            return
        with take_folder(self._folder):
            self._holds_folder = True
            try:
                yield
            finally:
                self._holds_folder = False

    async def collect(self, engine: Engine, recipe: Recipe, on_progress: Callable[[int, int], None]) -> int:
        """Make practice prompts and have the model write texts for those that are for training; for how many it did."""
        prompts = make_prompts(recipe.practice.prompts, seed=recipe.practice.seed)
        parts, split = self._split().assign(prompts)
        kept_out = set(recipe.practice.kept_out)
        train = [each for each in prompts if parts[each.id] == "train" and not kept_out & set(each.kinds)]
        self._write_split(split)
        write_lines(self._folder / "prompts.jsonl", prompts)
        texts = await collect(
            engine, train, recipe.collecting, recipe.practice.seed, lambda done: on_progress(done, len(train))
        )
        write_lines(self._folder / "collected.jsonl", texts)
        return len(texts)

    async def collect_stored(
        self, store: "TraceStore", own: Collection[str], trusted: Collection[str] = ()
    ) -> Gathered:
        """Take the texts of a store's traces, in place of what was taken before. Raises Refused and StoreUnavailable.

        own, trusted: see gather_traces.
        """
        gathered = await gather_traces(store, own, trusted, withdrawn_traces(self._folder))
        if not gathered.collected:
            raise Refused(f"the store has no traces to learn from{_in_brackets(gathered.left_out)}")
        write_stored(self._folder, gathered.collected)
        return gathered

    def collect_files(self, paths: Sequence[Path]) -> int:
        """Take the texts of files, in place of what was taken before; how many rows. Raises DamagedFile."""
        rows = [row for path in paths for row in read_rows(path)]
        write_lines(self._folder / "imported.jsonl", rows)
        return len(rows)

    @property
    def uses_traces(self) -> bool:
        """Whether some of what was collected is from stored traces."""
        return (self._folder / STORED).exists()

    def make_lessons(self) -> tuple[Lessons, Path]:
        """The lessons of what was collected, and their folder. Raises Refused and DamagedFile."""
        practice, stored, imported = (
            _read_if_there(self._folder / name, Collected) for name in ("collected.jsonl", STORED, "imported.jsonl")
        )
        if not (practice or stored or imported):
            raise Refused(f"nothing was collected in {self._folder} yet")
        parts, split = self._split().assign(each.prompt for each in practice)
        others, split = split.assign((each.prompt for each in (*stored, *imported)), examinable=False)
        lessons = make_lessons([*practice, *stored, *imported], {**parts, **others})
        if not lessons.texts and not lessons.pairs:
            raise Refused(f"what was collected gives no lesson{_in_brackets(lessons.left_out, lessons.capped)}")
        self._write_split(split)
        exercises = list(find_exercises(practice, parts))
        digest = digest_of([*lessons.texts, *lessons.pairs, *exercises])[:16]
        folder = self._folder / "lessons" / digest
        with changing_texts(self._folder):
            write_ids(folder / IDS, lessons.traces)
            write_lines(folder / TEXTS, lessons.texts)
            write_lines(folder / PAIRS, lessons.pairs)
            write_lines(folder / EXERCISES, exercises)
        write_whole(folder / EVALUATORS, f"{digest_of_evaluators()}\n")
        write_whole(self._folder / "lessons" / "latest", f"{digest}\n")
        return lessons, folder

    async def train(self, recipe: Recipe, on_progress: Callable[[Progress], None]) -> Manifest:
        """Train an adapter on the latest lessons. Raises TrainingFailed, Refused and DamagedFile."""
        folder = self.lessons_folder()
        verified_by = _read_evaluators(folder)
        texts, pairs = read_lines(folder / TEXTS, BestText), read_lines(folder / PAIRS, LessonPair)
        exercises = read_lines(folder / EXERCISES, Exercise) if recipe.training.trying else []
        refuse_few(texts, exercises, recipe.training)
        lessons: Sequence[BestText | LessonPair] = [*texts, *pairs]
        learned = [each.prompt for each in (*lessons, *exercises)]
        begun, log = monotonic(), list[Mapping[str, float]]()

        def follow(progress: Progress) -> None:
            if progress.figures:
                log.append(progress.figures)
            on_progress(progress)

        trained = await self._trainer.train(self._base, folder, recipe.training, self._folder, follow)
        try:
            (trained / GREEDY).replace(trained / ADAPTER / GREEDY)
            manifest = self.registry.add(
                trained / ADAPTER,
                lambda digest: Manifest(
                    adapter=digest,
                    base=self.base_digest(),
                    lessons=folder.name,
                    evaluators=verified_by,
                    recipe=recipe,
                    prompts=tuple(sorted({digest_of([text]) for prompt in learned for text in prompt.passages})),
                    traces=tuple(sorted({lesson.trace for lesson in lessons if lesson.trace})),
                    texts=len(texts),
                    pairs=len(pairs),
                    exercises=len(exercises),
                    created=_now(),
                    seconds=round(monotonic() - begun, 1),
                    versions=installed_versions(),
                    log=tuple(log),
                ),
            )
        finally:
            await asyncio.to_thread(shutil.rmtree, trained, ignore_errors=True)
        forget(self._folder)  # what was withdrawn while it was trained
        return self.registry.manifest(manifest.adapter)

    def incumbent_of(self, adapter: str) -> str:
        """The digest of what an adapter has to be better than, which is what serves now; empty for the base. Raises
        Refused if an exam could say nothing, and DamagedFile."""
        manifest, incumbent = self.registry.manifest(adapter), self.registry.current
        if adapter == incumbent:
            raise Refused(f"{adapter} serves already: train another adapter, or roll back first")
        self._refuse_another_base(manifest)
        if manifest.evaluators != digest_of_evaluators():
            raise Refused(f"the evaluators have changed since the lessons of {adapter} were made: learn again")
        return incumbent

    async def examine(
        self,
        adapter: str,
        against: str,
        incumbent: Engine,
        candidate: Engine,
        reads: Reads,
        on_look: OnLook,
    ) -> Verdict:
        """Examine an adapter, and write the verdict into its manifest; the verdict.

        against: what ``incumbent_of`` says. incumbent, candidate: the models. reads: the engine that says which tokens
        prompts have.
        Raises ExamFailed, Refused and DamagedFile.
        """
        folder, manifest = self.registry.folder_of(adapter), self.registry.manifest(adapter)
        paper = self.paper(manifest)
        exam = digest_of(paper.prompts)[:16]
        attempt = self.registry.count_attempt(exam)
        learned = _prompts_of(self._folder / "lessons" / manifest.lessons)
        agreement = await agree(candidate, folder / GREEDY, reads, learned)
        sat = await sit(
            incumbent,
            candidate,
            paper,
            manifest.recipe.examining,
            attempt=attempt,
            agreement=agreement,
            on_look=on_look,
        )
        verdict = Verdict(
            decision=sat.judgement.decision,
            reasons=sat.judgement.reasons,
            against=against,
            exam=exam,
            attempt=attempt,
            evaluators=digest_of_evaluators(),
            created=_now(),
            figures=figures_of(sat, agreement),
        )
        self.registry.amend(adapter, lambda now: now.model_copy(update={"verdicts": (*now.verdicts, verdict)}))
        return verdict

    async def merge(self, adapter: str, target: Path, *, force: bool = False) -> Merged:
        """Write a checkpoint of the base with an adapter into a new folder.

        force: also of an adapter that neither serves nor has passed, which the checkpoint's manifest then says.
        Raises MergeFailed, Refused and DamagedFile.
        """
        folder, manifest = self.registry.folder_of(adapter), self.registry.manifest(adapter)
        serves = adapter == self.registry.current
        reason = manifest.tainted if serves else self.registry.obstacle(manifest)
        if reason and not force:
            raise Refused(f"{adapter} is not merged: {reason}")
        self._refuse_another_base(manifest)

        def describe(checkpoint: Path, agreement: Agreement) -> Merged:
            return Merged(
                checkpoint=digest_of_folders([checkpoint])[:16],
                base=manifest.base,
                adapter=adapter,
                learned=manifest,
                agreement=agreement,
                created=_now(),
                versions=installed_versions(),
                forced=reason,
            )

        return await self._merger.merge(self._base, folder, target, describe)

    def paper(self, manifest: Manifest) -> Paper:
        """What the exam of an adapter asks. Raises ExamFailed."""
        recipe = manifest.recipe
        prompts = make_prompts(recipe.practice.prompts, seed=recipe.practice.seed)
        parts, _ = self._split().assign(prompts)
        exam = [prompt for prompt in prompts if parts[prompt.id] == "exam"]
        paper = make_paper(exam, recipe.practice.kept_out, recipe.examining)
        asked = {digest_of([prompt.text]) for prompt in (*exam, *paper.prompts)}
        if leaked := asked & set(manifest.prompts):
            raise ExamFailed(f"{len(leaked)} prompts of the exam are among the adapter's lessons")
        return paper

    def adapters_of_base(self) -> Sequence[str]:
        """The adapters that were trained on the model that serves."""
        base = self.base_digest()
        return [manifest.adapter for manifest in self.registry.list() if manifest.base == base]

    def base_digest(self) -> str:
        """The digest of the model's files."""
        return digest_of_folders([self._base])[:16]

    def lessons_folder(self) -> Path:
        """The folder of the latest lessons. Raises Refused."""
        try:
            return self._folder / "lessons" / (self._folder / "lessons/latest").read_text(encoding="utf-8").strip()
        except FileNotFoundError as error:
            raise Refused("there are no lessons yet: make them first") from error

    def newest(self) -> str:
        """The digest of the adapter that was trained last. Raises Refused."""
        if not (found := self.registry.list()):
            raise Refused("there is no adapter yet: train one first")
        return found[-1].adapter

    def _refuse_another_base(self, manifest: Manifest) -> None:
        if manifest.base != self.base_digest():
            raise Refused(f"{manifest.adapter} was trained on another base than the model that serves")

    def _split(self) -> Split:
        path = self._folder / "split.json"
        return Split.model_validate_json(path.read_bytes()) if path.exists() else Split()

    def _write_split(self, split: Split) -> None:
        write_whole(self._folder / "split.json", split.model_dump_json() + "\n")


def count_kinds(texts: Sequence[BestText]) -> Mapping[str, int]:
    """How many best texts follow each kind of rule."""
    return dict(sorted(Counter(kind for text in texts for kind in text.prompt.kinds).items()))


def _read_evaluators(lessons: Path) -> str:
    """The digest of the code that verified lessons. Raises Refused."""
    try:
        return (lessons / EVALUATORS).read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        raise Refused("the latest lessons do not say which evaluators verified them: make them again") from error


def _prompts_of(lessons: Path) -> Sequence[Prompt]:
    """The prompts of lessons, among them those of the trainer's greedy texts."""
    texts = read_lines(lessons / TEXTS, BestText)
    exercises = _read_if_there(lessons / EXERCISES, Exercise)
    return [*(each.prompt for each in texts), *(each.prompt for each in exercises)]


def _read_if_there(path: Path, kind: type[M]) -> Sequence[M]:
    return read_lines(path, kind) if path.exists() else []


def _in_brackets(left_out: Mapping[str, int], capped: int = 0) -> str:
    reasons = [f"{count} prompts: {reason}" for reason, count in left_out.items()]
    if capped:
        reasons.append(f"{capped} lessons: more than {CLIENT_SHARE:.0%} from one caller")
    return f" ({'; '.join(reasons)})" if reasons else ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
