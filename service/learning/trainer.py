"""Training in a process of its own, which may be slow, fail or be killed without harm to anything else.

The process is niced, so that a service on the same machine goes on at nearly its speed, and dies with this one.
Importing this file imports nothing of TRL, PEFT or torch: training.py does, over there.
"""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from service.learning.collected import write_whole
from service.learning.exercises import Exercise
from service.learning.lessons import BestText
from service.learning.recipe import Training

TEXTS, PAIRS, EXERCISES = "texts.jsonl", "pairs.jsonl", "exercises.jsonl"
"""The files of a folder of lessons."""
ADAPTER, GREEDY = "adapter", "greedy.json"
"""What the process leaves in the order's folder."""

NICENESS = 10
GRACE_SECONDS = 300.0
"""How much longer than its recipe's seconds the process may live, for what comes before and after the steps."""
MAIN = "import sys, pathlib, service.learning.training as it; sys.exit(it.main(pathlib.Path(sys.argv[1])))"
"""What the process runs. It is not a module: the engine's processes, if it starts an engine, would import that again
with all of TRL."""
_UNFINISHED = ".training-"
_BETWEEN_LOOKS = 0.1
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


class Progress(BaseModel):
    """How far the training has come.

    stage: ``begin``, ``texts``, ``pairs``, ``exercises``, ``end`` or ``failed``, with a reason.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    step: int
    steps: int
    figures: Mapping[str, float] = {}
    reason: str = ""


def check_packages() -> None:
    """Raise TrainingFailed if this interpreter has not all that trains."""
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise TrainingFailed(f"training needs {', '.join(missing)}: pip install 'redraft[learn]'")


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

    def __init__(self, command: Sequence[str] = (sys.executable, "-c", MAIN)) -> None:
        self._command = command

    async def train(
        self, base: Path, lessons: Path, training: Training, at: Path, on_progress: Callable[[Progress], None]
    ) -> Path:
        """Train on the lessons of a folder, and return a folder with ADAPTER and GREEDY, which is the caller's to
        remove.

        at: a folder on the file system where the adapter will be kept. on_progress: called for each step.
        Raises TrainingFailed. A call that is cancelled ends the process first.
        """
        if self._command[0] == sys.executable:
            check_packages()
        folder = await asyncio.to_thread(_make_folder, at)
        try:
            order = TrainingOrder(base=base, lessons=lessons, folder=folder, training=training, parent=os.getpid())
            write_whole(folder / "order.json", order.model_dump_json())
            await self._run(folder, training.seconds + GRACE_SECONDS, on_progress)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise TrainingFailed(f"the training could not begin: {error.strerror}") from error
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder

    async def _run(self, folder: Path, seconds: float, on_progress: Callable[[Progress], None]) -> None:
        process = await asyncio.create_subprocess_exec(
            "nice", "-n", str(NICENESS), *self._command, str(folder / "order.json"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=2**20,
            start_new_session=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )  # fmt: skip
        try:
            async with asyncio.timeout(seconds):
                reason, last = await _follow(process, on_progress)
                code = await process.wait()
        except TimeoutError:
            raise TrainingFailed(f"the training did not end within {seconds:.0f} seconds and was stopped") from None
        finally:
            await _end(process)
        if code:
            raise TrainingFailed(reason or _describe(code, last))
        if not (folder / ADAPTER).is_dir():
            raise TrainingFailed("the training process left no adapter")


def _make_folder(at: Path) -> Path:
    at.mkdir(parents=True, exist_ok=True)
    for left_over in at.glob(f"{_UNFINISHED}*"):  # by a process that was killed: one trains in a folder at a time
        shutil.rmtree(left_over, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=at))


async def _follow(process: asyncio.subprocess.Process, on_progress: Callable[[Progress], None]) -> tuple[str, str]:
    """Hand on the progress until the process closes its output. Return why it failed, if it said so, and the last line
    that is not progress."""
    assert process.stdout is not None  # noqa: S101 - it was asked for
    reason, last = "", ""
    closing = asyncio.create_task(_close_output(process))
    try:
        async for line in process.stdout:
            try:
                progress = Progress.model_validate_json(line)
            except ValidationError:
                last = line.decode(errors="replace").strip() or last
                continue
            if progress.stage == "failed":
                reason = progress.reason
            on_progress(progress)
    finally:
        closing.cancel()
    return reason, last


async def _close_output(process: asyncio.subprocess.Process) -> None:
    """Wait for the end of the process, and end what it has started, which holds its output open."""
    while process.returncode is None:  # Process.wait waits for the output too
        await asyncio.sleep(_BETWEEN_LOOKS)
    _kill_all(process)


def _kill_all(process: asyncio.subprocess.Process) -> None:
    """Kill the process and what it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _end(process: asyncio.subprocess.Process) -> None:
    _kill_all(process)
    await process.wait()


def _describe(code: int, last: str) -> str:
    how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
    return f"the training process {how}, after it said: {last}" if last else f"the training process {how}"
