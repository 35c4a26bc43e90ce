"""A checkpoint of its own from a base and an adapter, for servers where an adapter costs too much or cannot be loaded.

A process of its own (process.py) merges, which is merging.py, in a folder aside. What it has written is published by a
rename, so that the checkpoint appears whole or not at all, and only if it predicts what the base with the adapter does:
the weights are rounded once more, which may lose a small change, and a library may merge what it should not.
"""

import asyncio
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from service.learning.card import make_merged_card
from service.learning.manifest import FILE, Agreement, Merged
from service.learning.process import ProcessFailed, Progress, command_of, remove_leftovers, require, run
from service.learning.registry import CARD
from service.whole_files import write_whole

CHECKPOINT = "checkpoint"
"""What the process leaves in the order's folder."""
SECONDS = 3600.0
"""How long the process may live."""
NEAR = 0.01
"""The distance in nats that rounding alone may cause."""
MOST_LOST = 0.1
"""The share of the adapter's effect by which the checkpoint may be off."""
COMMAND = command_of("service.learning.merging")
_UNFINISHED = ".merging-"
_PACKAGES = ("peft", "transformers")


class MergeFailed(Exception):
    """There is no checkpoint. The message is a sentence for the operator."""


class MergeOrder(BaseModel):
    """What to merge. base: the folder of the model. adapter: that of the adapter. folder: where to leave the
    checkpoint. parent: the id of the process that waits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Path
    adapter: Path
    folder: Path
    parent: int


class Merger:
    """Runs the merging process.

    command: what to run, for tests; by default merging.py in this interpreter.
    """

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command = command

    async def merge(
        self, base: Path, adapter: Path, target: Path, describe: Callable[[Path, Agreement], Merged]
    ) -> Merged:
        """Write the checkpoint of a base with an adapter into the new folder ``target``, with the manifest that
        ``describe`` makes of its folder.

        Raises MergeFailed. A call that is cancelled ends the process first.
        """
        try:
            if self._command is COMMAND:
                require("merging", _PACKAGES)
            _refuse_quantized(base)
            with _aside(target) as folder:
                agreement = await self._run(base, adapter, folder)
                refuse_different(agreement)
                checkpoint = folder / CHECKPOINT
                merged = await asyncio.to_thread(describe, checkpoint, agreement)
                write_whole(checkpoint / FILE, merged.model_dump_json(indent=2) + "\n")
                write_whole(checkpoint / CARD, make_merged_card(merged))
                _publish(checkpoint, target)
        except ProcessFailed as error:
            raise MergeFailed(str(error)) from error
        except OSError as error:
            raise MergeFailed(f"{error.filename or target}: {error.strerror or error}") from error
        return merged

    async def _run(self, base: Path, adapter: Path, folder: Path) -> Agreement:
        said = list[Progress]()
        order = MergeOrder(base=base, adapter=adapter, folder=folder, parent=os.getpid())
        write_whole(folder / "order.json", order.model_dump_json())
        await run("merging", self._command, folder / "order.json", folder / CHECKPOINT, SECONDS, said.append)
        return Agreement.model_validate(said[-1].figures)


def refuse_different(agreement: Agreement) -> None:
    """Raise MergeFailed unless a checkpoint is as near to the base with the adapter as rounding lets it be."""
    if agreement.off > max(NEAR, MOST_LOST * agreement.moved):
        raise MergeFailed(
            "the merged weights do not predict what the base with the adapter does: they are "
            f"{agreement.off:.3f} nats from it, and the base without the adapter {agreement.moved:.3f}"
        )


def _refuse_quantized(base: Path) -> None:
    try:
        stated = json.loads((base / "config.json").read_bytes())
    except ValueError as error:
        raise MergeFailed(f"{base / 'config.json'} is not JSON") from error
    if "quantization_config" in stated:
        raise MergeFailed("the base's weights are quantized, and an adapter cannot be merged into such weights")


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """A folder next to the target, which is removed at the end."""
    if target.exists():
        raise MergeFailed(f"{target} exists already")
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MergeFailed(f"another process merges in {target.parent}") from error
        remove_leftovers(target.parent, _UNFINISHED)
        folder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=target.parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _publish(checkpoint: Path, target: Path) -> None:
    for path in (checkpoint, *checkpoint.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    checkpoint.rename(target)
