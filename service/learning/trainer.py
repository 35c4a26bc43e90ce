"""Training in a process of its own (process.py), which is training.py: it imports TRL, PEFT and torch, and this file
does not."""

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from service.learning.exercises import Exercise
from service.learning.lessons import BestText
from service.learning.process import ProcessFailed, Progress, command_of, remove_leftovers, require, run
from service.learning.recipe import Training
from service.whole_files import write_whole

TEXTS, PAIRS, EXERCISES = "texts.jsonl", "pairs.jsonl", "exercises.jsonl"
"""The files of a folder of lessons."""
ADAPTER, GREEDY = "adapter", "greedy.json"
"""What the process leaves in the order's folder."""

GRACE_SECONDS = 300.0
"""How much longer than its recipe's seconds the process may live, for what comes before and after the steps."""
COMMAND = command_of("service.learning.training")
_UNFINISHED = ".training-"
_PACKAGES = ("datasets", "peft", "transformers", "trl")


class TrainingFailed(Exception):
    """There is no adapter. The message is a sentence for the operator."""


class TrainingOrder(BaseModel):
    """What to train. base: the folder of the model. folder: where to leave the adapter. parent: the id of the process
    that waits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Path
    lessons: Path
    folder: Path
    training: Training
    parent: int


def check_packages() -> None:
    """Raise TrainingFailed if this interpreter has not all that trains."""
    try:
        require("training", _PACKAGES)
    except ProcessFailed as error:
        raise TrainingFailed(str(error)) from error


def refuse_few(texts: Sequence[BestText], exercises: Sequence[Exercise], training: Training) -> None:
    """Raise TrainingFailed unless there is enough to learn from."""
    if training.trying is not None and len(exercises) < training.trying.exercises:
        raise TrainingFailed(
            f"{len(exercises)} prompts are passed sometimes, and each step of the recipe tries "
            f"{training.trying.exercises}. Collect more"
        )
    if training.trying is not None and not training.texts_epochs and not training.pairs_epochs:
        return
    if not texts:
        raise TrainingFailed("there are no lessons: no text passed its prompt's rules")
    if len(texts) < training.least_texts:
        raise TrainingFailed(
            f"{len(texts)} texts are too few to learn from: the recipe asks for {training.least_texts}. Collect more"
        )
    kinds = Counter(kind for text in texts for kind in set(text.prompt.kinds))
    if len(kinds) == 1 and all(text.prompt.kinds for text in texts):
        raise TrainingFailed(f"all lessons are of one kind, {next(iter(kinds))}: the model would forget the others")


class Trainer:
    """Runs the training process.

    command: what to run, for tests; by default training.py in this interpreter.
    """

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command = command

    async def train(
        self, base: Path, lessons: Path, training: Training, at: Path, on_progress: Callable[[Progress], None]
    ) -> Path:
        """Train on the lessons of a folder, and return a folder with ADAPTER and GREEDY, which is the caller's to
        remove.

        at: a folder on the file system where the adapter will be kept. on_progress: called for each step.
        Raises TrainingFailed. A call that is cancelled ends the process first.
        """
        if self._command is COMMAND:
            check_packages()
        try:
            folder = await asyncio.to_thread(_make_folder, at)
            try:
                order = TrainingOrder(base=base, lessons=lessons, folder=folder, training=training, parent=os.getpid())
                write_whole(folder / "order.json", order.model_dump_json())
                seconds = training.seconds + GRACE_SECONDS
                await run("training", self._command, folder / "order.json", folder / ADAPTER, seconds, on_progress)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        except ProcessFailed as error:
            raise TrainingFailed(str(error)) from error
        except OSError as error:
            raise TrainingFailed(f"the training could not begin: {error.strerror}") from error
        return folder


def _make_folder(at: Path) -> Path:
    at.mkdir(parents=True, exist_ok=True)
    remove_leftovers(at, _UNFINISHED)
    return Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=at))
