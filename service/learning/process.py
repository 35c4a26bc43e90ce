"""Work in a process of its own, which may be slow, fail or be killed without harm to anything else.

The process is niced, so that a service on the same machine goes on at nearly its speed, and dies with this one. It is
given the file of its order, says how far it has come in lines of JSON on its standard output, and leaves its result in
a folder. Importing this file imports nothing of TRL, PEFT or torch: the process does.
"""

import asyncio
import ctypes
import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

NICENESS = 10
_BETWEEN_LOOKS = 0.1
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class ProcessFailed(Exception):
    """There is no result. The message is a sentence for the operator."""


class Progress(BaseModel):
    """How far the process has come.

    stage: what it does, such as ``begin``, ``texts`` or ``end``; or ``failed``, with a reason.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    step: int = 0
    steps: int = 0
    figures: Mapping[str, float] = {}
    reason: str = ""


def command_of(module: str) -> Sequence[str]:
    """What runs the ``main`` of a module with the path of an order. The module is not the process's own: the engine's
    processes, if it starts an engine, would import that again with all of its libraries."""
    program = f"import sys, pathlib, {module} as it; sys.exit(it.main(pathlib.Path(sys.argv[1])))"
    return (sys.executable, "-c", program)


def require(work: str, packages: Collection[str]) -> None:
    """Raise ProcessFailed unless the packages of the extra ``learn`` are installed. work: such as "training"."""
    if missing := [name for name in packages if find_spec(name) is None]:
        raise ProcessFailed(f"{work} needs {', '.join(missing)}: pip install 'redraft[learn]'")


def remove_leftovers(folder: Path, prefix: str) -> None:
    """Remove what processes that were killed have left in a folder, in which one works at a time."""
    for left_over in folder.glob(f"{prefix}*"):
        shutil.rmtree(left_over, ignore_errors=True)


async def run(
    work: str,
    command: Sequence[str],
    order: Path,
    result: Path,
    seconds: float,
    on_progress: Callable[[Progress], None],
) -> None:
    """Run a process to its end.

    work: what it does, as messages call it. order: its file. result: the folder that it has to leave. seconds: how
    long it may live. on_progress: called for each line. Raises ProcessFailed. A call that is cancelled ends the process
    first.
    """
    process = await asyncio.create_subprocess_exec(
        "nice", "-n", str(NICENESS), *command, str(order),
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
        raise ProcessFailed(f"the {work} did not end within {seconds:.0f} seconds and was stopped") from None
    finally:
        await _end(process)
    if code:
        raise ProcessFailed(reason or describe_end(f"the {work} process", code, last))
    if not await asyncio.to_thread(result.is_dir):
        raise ProcessFailed(f"the {work} process left no {result.name}")


def die_with(parent: int) -> bool:
    """Have this process end when its parent does, in the process itself; False if the parent has ended already."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    return os.getppid() == parent


def describe_end(process: str, code: int, last: str) -> str:
    """How a process has ended, for the operator. code: as asyncio's ``wait`` returns it. last: the last line that the
    process has printed."""
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"{process} {how}, after it said: {last}" if last else f"{process} {how}"


def say(progress: Progress) -> None:
    """Write a line for the process that waits."""
    print(progress.model_dump_json(), flush=True)  # noqa: T201 - it is what the process is for


def fail(reason: str) -> int:
    """Say why there is no result; the exit code."""
    say(Progress(stage="failed", reason=reason))
    return 1


def explain(error: OSError, folder: Path) -> str:
    """Why a file cannot be read or written, for ``fail``. folder: where the process writes."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"the disk is full: {error.filename or folder}" if full else str(error)


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
