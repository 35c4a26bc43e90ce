"""``python -m service learn …``: learn from graded texts, on this machine and with the model that the settings name.

Each step leaves files in the folder, and the next one reads them. Exit codes: 0 if the step was done, whatever the
gate's verdict; 1 for a failure; 2 for wrong usage; 143 if it was cancelled.
"""

import argparse
import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import ValidationError
from rich.console import Console

from service.cli.early_end import work
from service.cli.exam_table import describe
from service.cli.learn_arguments import MEANINGS
from service.cli.learning_lines import adapter_line, canary_line
from service.cli.server import configure_logging
from service.cli.standard_streams import Output
from service.engines.local.bundled import WeightsMissing
from service.engines.served import Adaptable, EngineMisconfigured, ServedEngine
from service.errors import RedraftError
from service.fleet import start_engine, weights_of
from service.learning.collected import DamagedFile, read_lines
from service.learning.exam import Reads
from service.learning.exercises import Exercise
from service.learning.gate import PARTS, Decision, Judgement
from service.learning.launching import Source
from service.learning.lessons import CLIENT_SHARE, BestText, LessonPair
from service.learning.lineage import follow_deletions, forget, named_traces, withdraw
from service.learning.merger import MergeFailed
from service.learning.paper import ExamFailed
from service.learning.process import Progress
from service.learning.recipe import Recipe, RecipeError, load_recipe
from service.learning.registry import Refused
from service.learning.rows import FORMATS
from service.learning.runs import RunRecord, Step, record_run
from service.learning.trainer import EXERCISES, PAIRS, TEXTS, TrainingFailed
from service.learning.workshop import Workshop, count_kinds, default_folder
from service.models import LEARNED, Adapter
from service.settings import PREFIX, Settings
from service.store.errors import StoreMisconfigured
from service.stores import open_traces_to_read

if TYPE_CHECKING:  # nothing of it is imported where traces are off
    from service.traces.store import TraceStore

RECORDED = ("collect", "lessons", "train", "exam", "run")
"""The steps that a running service shows."""
CANDIDATE, CURRENT = "candidate", "current"
"""The names of the models in the exam's engine."""
PROMPTS_BETWEEN = 20
"""After how many prompts of collecting a line is printed."""
MEMORY = "It needs memory of its own, next to that of a service on the same machine or GPU"

FAILURES = (
    DamagedFile,
    EngineMisconfigured,
    ExamFailed,
    MergeFailed,
    RecipeError,
    RedraftError,
    Refused,
    StoreMisconfigured,
    TrainingFailed,
    WeightsMissing,
)


def run(arguments: argparse.Namespace) -> int:
    """Do one step."""
    try:
        settings = Settings()
        if settings.engine != "vllm":
            _tell("Cannot learn: adapters need the engine vllm in this process")
            return 1
        configure_logging("warning")
        arguments.folder = arguments.folder or settings.learning_dir or default_folder()
        desk, step = _Desk(settings, arguments), _STEPS[arguments.step]
        if arguments.step in RECORDED:
            recipe, begun = getattr(arguments, "recipe", None), arguments.begun
            with record_run(arguments.folder, Path(recipe).stem if recipe else None, begun=begun) as desk.record:
                asyncio.run(work(step(desk), for_service=begun is not None))
        else:
            asyncio.run(step(desk))
        return int(desk.output.closed)
    except asyncio.CancelledError:
        _tell(f"Cannot {arguments.step}: it was cancelled")
        return 128 + signal.SIGTERM
    except ValidationError as error:
        _tell(f"Cannot learn: {error.errors(include_url=False, include_input=False)[0]['msg']}")
        return 1
    except FAILURES as error:
        _tell(f"Cannot {arguments.step}: {error}")
        return 1
    except OSError as error:
        _tell(f"Cannot {arguments.step}: {error.filename or arguments.folder}: {error.strerror}")
        return 1


@runtime_checkable
class _Model(ServedEngine, Adaptable, Reads, Protocol):
    """A model that can be examined."""


class _Desk:
    """The steps as the operator sees them."""

    def __init__(self, settings: Settings, arguments: argparse.Namespace) -> None:
        self._settings = settings
        self._arguments = arguments
        self.output = Output()
        self.shop = Workshop(arguments.folder, _base_of(settings), holds_folder=arguments.begun is not None)
        self.record: RunRecord | None = None
        self._adapter: str | None = getattr(arguments, "adapter", None)

    async def collect(self) -> None:
        if self._arguments.from_store:
            await self._collect_stored()
        elif self._arguments.files:
            await self._collect_files(self._arguments.files)
        else:
            await self._practise()

    async def _practise(self) -> None:
        self._begin("collect")
        recipe = self._recipe()
        with self.shop.alone():
            async with self._engine() as engine:
                count = await self.shop.collect(engine, recipe, self._show_collecting)
        self._print(f"Collected texts for {count} prompts.")

    async def _collect_files(self, files: Sequence[Path]) -> None:
        self._begin("collect")
        with self.shop.alone():
            count = await asyncio.to_thread(self.shop.collect_files, files)
        self._print(f"Took texts for {count} prompts from {len(files)} files.")

    async def _collect_stored(self) -> None:
        self._begin("collect")
        with self.shop.alone():
            async with self._traces() as traces, self._following(traces):
                found = await self.shop.collect_stored(traces, self._own_models(), self._arguments.trust)
        callers = sorted({each.client for each in found.collected} - {""})
        self._print(f"Took texts for {len(found.collected)} prompts from stored traces.")
        for model, count in found.foreign.items():
            self._print(f"  {count:4} traces of another model, {model}: their texts are tokenized again")
        for reason, count in found.left_out.items():
            self._print(f"  {count:4} prompts left out: {reason}")
        if callers:
            self._print(f"  each of {', '.join(callers)} gives at most {CLIENT_SHARE:.0%} of the lessons")

    async def lessons(self) -> None:
        self._begin("lessons")
        with self.shop.alone():
            if self.shop.uses_traces:
                async with self._traces() as traces, self._following(traces):
                    lessons, folder = self.shop.make_lessons()
            else:
                lessons, folder = self.shop.make_lessons()
        exercises = read_lines(folder / EXERCISES, Exercise)
        self._print(
            f"{len(lessons.texts)} best texts, {len(lessons.pairs)} pairs and {len(exercises)} exercises, in {folder}"
        )
        for kind, count in count_kinds(lessons.texts).items():
            self._print(f"  {count:4} {kind}")
        for reason, count in lessons.left_out.items():
            self._print(f"  {count:4} prompts without a lesson: {reason}")
        if lessons.capped:
            self._print(f"  {lessons.capped:4} lessons left out: more than {CLIENT_SHARE:.0%} from one caller")

    async def train(self) -> None:
        self._begin("train")
        recipe = self._recipe()
        with self.shop.alone():
            await self._follow()
            manifest = await self.shop.train(recipe, self._show_training)
            await self._follow()
        self._adapter = manifest.adapter
        self._give(manifest.adapter)
        self._print(f"Trained the adapter {manifest.adapter} in {manifest.seconds:.0f} s.")

    async def exam(self) -> None:
        self._begin("exam")
        shop = self.shop
        with shop.alone():
            await self._follow()
            adapter = self._adapter or shop.newest()
            candidate, current = shop.registry.folder_of(adapter), shop.incumbent_of(adapter)
            folders = {CANDIDATE: candidate} | ({CURRENT: shop.registry.folder_of(current)} if current else {})
            async with self._engine(folders) as engine:
                examined = await engine.load_adapter(CANDIDATE, candidate)
                incumbent = await engine.load_adapter(CURRENT, folders[CURRENT]) if current else engine
                verdict = await shop.examine(adapter, current, incumbent, examined, engine, self._show_look)
        self._give(adapter, verdict.decision)
        for line in describe(adapter, verdict):
            self._print(line)

    async def promote(self) -> None:
        await self._follow()
        adapter = self._adapter or self.shop.newest()
        self.shop.registry.promote(adapter, force=self._arguments.force)
        self._print(f"{adapter} serves from now on")

    async def rollback(self) -> None:
        digest = self.shop.registry.rollback()
        self._print(f"{digest or 'the base alone'} serves from now on")

    async def withdraw(self) -> None:
        marked = withdraw(self._arguments.folder, self._arguments.traces)
        self._print(f"No lesson is from them any more. Adapters that were marked: {marked}")

    async def canary(self) -> None:
        registry, asked = self.shop.registry, self._arguments
        if asked.stop:
            self._print(f"the canary of {registry.stop_canary(self._adapter).candidate} has ended")
            return
        await self._follow()
        adapter = self._adapter or self.shop.newest()
        registry.start_canary(adapter, asked.share, promotes=asked.promote, force=asked.force)
        self._print(
            f"{adapter} writes every second first draft for {asked.share:.0%} of the requests that can be compared"
        )

    async def merge(self) -> None:
        await self._follow()
        adapter = self._adapter or self.shop.newest()
        target: Path = (self._arguments.into or self._arguments.folder / "merged" / adapter).absolute()
        _tell("Merging …")
        merged = await self.shop.merge(adapter, target, force=self._arguments.force)
        self._print(
            f"Merged {adapter} into its base, {merged.agreement.off:.4f} nats from the base with the adapter "
            f"({merged.agreement.moved:.4f} without it). Serve it with {PREFIX}MODEL={target}"
        )

    async def list(self) -> None:
        await self._follow()
        registry = self.shop.registry
        for manifest in registry.list():
            state = "serves" if manifest.adapter == registry.current else canary_line(registry, manifest.adapter)
            self._print(adapter_line(manifest, state))
        for digest, damage in registry.damaged().items():
            self._print(f"{digest}  damaged: {damage}")

    async def export(self) -> None:
        await self._follow()
        folder = self.shop.lessons_folder()
        texts, pairs = read_lines(folder / TEXTS, BestText), read_lines(folder / PAIRS, LessonPair)
        for row in FORMATS[self._arguments.to](texts, pairs):
            self.output.write_json(row)

    async def run(self) -> None:
        ways: Mapping[Source, Callable[[], Coroutine[Any, Any, None]]]
        ways = {"practice": self._practise, "store": self._collect_stored}
        collecting = [collect for source, collect in ways.items() if source in self._arguments.sources]
        with self.shop.alone():
            for step in (*collecting, self.lessons, self.train, self.exam):
                await step()

    def _recipe(self) -> Recipe:
        recipe, seed = load_recipe(self._arguments.recipe), self._arguments.seed
        return recipe if seed is None else recipe.with_seed(seed)

    @asynccontextmanager
    async def _traces(self) -> "AsyncIterator[TraceStore]":
        traces, close = open_traces_to_read(self._settings)
        try:
            yield traces
        finally:
            await close()

    async def _follow(self) -> None:
        """Forget what was withdrawn, and what the store does not have any more."""
        folder = self._arguments.folder
        if self._settings.store is None or not named_traces(folder):
            forget(folder)
            return
        async with self._traces() as traces:
            await follow_deletions(folder, traces, self._settings.stored_traces_days)

    @asynccontextmanager
    async def _following(self, traces: "TraceStore") -> AsyncIterator[None]:
        """Forget what is gone before a step and after it: traces may be deleted meanwhile."""
        folder, days = self._arguments.folder, self._settings.stored_traces_days
        await follow_deletions(folder, traces, days)
        try:
            yield
        finally:
            await follow_deletions(folder, traces, days)

    def _own_models(self) -> frozenset[str]:
        """The models whose tokens are the base's: itself, its adapters, and those that were learned here."""
        adapters = [name for name, stated in self._settings.models.items() if isinstance(stated, Adapter)]
        learned = [f"{LEARNED}@{digest}" for digest in self.shop.adapters_of_base()]
        return frozenset((self._settings.model_name, *adapters, *learned))

    @asynccontextmanager
    async def _engine(self, adapters: "dict[str, Path] | None" = None) -> AsyncIterator[_Model]:
        _tell("Starting the engine …")
        models = {name: Adapter(adapter=folder) for name, folder in (adapters or {}).items()}
        settings = self._settings.model_copy(update={"models": models, "learning_dir": None})
        try:
            engine = await start_engine(settings)
        except RuntimeError as error:  # the reason is in what vLLM's process has printed
            raise EngineMisconfigured(f"the engine could not be started: {error}. {MEMORY}") from error
        try:
            if not isinstance(engine, _Model):
                raise TypeError("only the engine in this process takes adapters")
            yield engine
        finally:
            await engine.close()

    def _print(self, line: str) -> None:
        self.output.write(f"{line}\n")

    def _begin(self, step: Step) -> None:
        if self.record is not None:
            self.record.begin(step)

    def _show(self, done: int, of: int, note: str = "") -> None:
        if self.record is not None:
            self.record.show(done, of, note)

    def _give(self, adapter: str, decision: Decision | None = None) -> None:
        if self.record is not None:
            self.record.give(adapter, decision)

    def _show_collecting(self, done: int, of: int) -> None:
        self._show(done, of)
        if done % PROMPTS_BETWEEN == 0 or done == of:
            _tell(f"Collected texts for {done} of {of} prompts")

    def _show_training(self, progress: Progress) -> None:
        shown = next((name for name in ("reward", "loss") if name in progress.figures), None)
        if progress.step and shown:
            figure = f"{shown} {progress.figures[shown]:.3f}"
            self._show(progress.step, progress.steps, f"{progress.stage}: {figure}")
            _tell(f"{progress.stage}: step {progress.step} of {progress.steps}, {figure}")

    def _show_look(self, part: str, done: int, of: int, judgement: Judgement) -> None:
        self._show(done, of, f"{PARTS[part]}: {judgement.decision} so far")
        _tell(f"{PARTS[part].capitalize()}: after {done} of {of} prompts, {judgement.decision} so far")


_STEPS: "dict[str, Callable[[_Desk], Coroutine[Any, Any, None]]]" = {name: getattr(_Desk, name) for name in MEANINGS}


def _tell(message: str) -> None:
    """Print to standard error, so that standard output can be piped."""
    Console(stderr=True, soft_wrap=True).print(message, markup=False, highlight=False)


def _base_of(settings: Settings) -> Path:
    found = weights_of(settings, settings.model_name)
    if isinstance(found, str):
        raise Refused(f"the files of the model {settings.model_name} are not on this machine")
    return found[0]
