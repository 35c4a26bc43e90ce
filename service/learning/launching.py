"""Runs of learning that a service starts: each is the command line, in a process of its own.

The service takes the folder's lock and the run's, and the process inherits both. So no run begins while another process
works in the folder, and none is shown as running without a process. The process's standard input is a pipe from the
service: it ends with the service, however that ends, and the run then fails.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from service.errors import NotFound, RunRefused
from service.learning.process import NICENESS, describe_end
from service.learning.registry import Refused
from service.learning.runs import Run, RunRecord, begin_run, read_run, read_runs, settle_run, take_folder, watch_run
from service.learning.trainer import TrainingFailed, check_packages
from service.leash import Leash

log = logging.getLogger(__name__)

Source = Literal["practice", "store"]

COMMAND = (sys.executable, "-m", "service", "learn", "run")
OUTPUT = "output.log"
GRACE_SECONDS = 5.0
"""How long a process may take to end when it has to. Then it is killed."""
TAIL_BYTES = 4_096
SERVICE_ENDED = "the service that started it has ended"


@dataclass
class _Child:
    """The process of a run.

    held: what is closed once the run's end is recorded, its locks among it. lifeline: the pipe that ends with the
    service. cancelled: whether somebody has cancelled the run.
    """

    record: RunRecord
    process: asyncio.subprocess.Process
    held: ExitStack
    lifeline: IO[bytes]
    cancelled: bool = False
    killing: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Ask the process to end, and see to it that it does."""
        self.cancelled = True
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        self.end()

    def end(self) -> None:
        """Kill the process and what it has started, unless it ends by itself within the grace."""
        if self.killing is None:
            self.killing = asyncio.get_running_loop().call_later(GRACE_SECONDS, self.kill)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


class Launcher:
    """Starts and cancels runs in a folder of learning.

    command: what to run, for tests.
    """

    def __init__(self, folder: Path, command: Sequence[str] = COMMAND) -> None:
        self._folder = folder.absolute()
        self._command = command
        self._children: dict[str, _Child] = {}
        self._following: dict[str, asyncio.Task[None]] = {}

    async def list(self) -> Sequence[Run]:
        """The recorded runs, the newest first, those of other processes too."""
        return await asyncio.to_thread(read_runs, self._folder)

    async def get(self, its_id: str) -> Run:
        """A recorded run. Raises NotFound."""
        run = await asyncio.to_thread(read_run, self._folder, its_id)
        if run is None:
            raise NotFound("there is no such run, or its record was dropped")
        return run

    def watch(self, its_id: str, after: int) -> AsyncGenerator[Run, None]:
        """How far a run has come, again after each step forward, up to its end. ``after``: from which revision on."""
        return watch_run(self._folder, its_id, after)

    async def start(self, recipe: str, sources: Sequence[Source]) -> Run:
        """Start a run, which has a record and the folder to itself once this has returned.

        recipe: the name of a built-in one. sources: where its texts come from.
        Raises RunRefused.
        """
        held = ExitStack()
        try:
            check_packages()
            record, locks = await asyncio.to_thread(_begin, self._folder, recipe, held)
            child = await self._spawn(record, locks, held, ("--recipe", recipe, "--sources", *sources))
        except BaseException as error:
            held.close()
            if isinstance(error, OSError):
                raise RunRefused(f"{error.filename or self._folder}: {error.strerror}") from error
            if isinstance(error, Refused | TrainingFailed):
                raise RunRefused(str(error)) from error
            raise
        its_id = record.run.id
        self._children[its_id] = child
        self._following[its_id] = asyncio.create_task(self._follow(its_id, child))
        log.info("a run of learning begins", extra={"run": its_id, "recipe": recipe, "pid": child.process.pid})
        return record.run

    async def cancel(self, its_id: str, patience: float) -> Run:
        """End a run that this service has started. One that has ended stays as it is.

        patience: how many seconds to wait for its end.
        Raises NotFound, and RunRefused for the run of another process.
        """
        own = its_id in self._children
        run = await self.get(its_id)
        if not own and run.state == "running":
            raise RunRefused("this service has not started it: end its process where it was started")
        if (child := self._children.get(its_id)) is not None:  # else it has ended meanwhile
            child.cancel()
            await asyncio.wait([self._following[its_id]], timeout=patience)
        return await self.get(its_id)

    async def close(self) -> None:
        """End the runs that this service has started, which fail."""
        for child in self._children.values():
            child.lifeline.close()
            child.end()
        if self._following:
            await asyncio.wait(self._following.values())

    async def _spawn(
        self, record: RunRecord, locks: Sequence[IO[str]], held: ExitStack, arguments: Sequence[str]
    ) -> _Child:
        heard, alive = os.pipe()
        lifeline = held.enter_context(os.fdopen(alive, "wb"))
        with os.fdopen(heard, "rb") as standard_input, (record.folder / OUTPUT).open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                "nice", "-n", str(NICENESS), *self._command, *arguments,
                "--folder", str(self._folder), "--begun", record.run.id,
                stdin=standard_input,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=[lock.fileno() for lock in locks],
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        # It listens to its standard input, but not while it imports or loads.
        held.callback(Leash([-process.pid], GRACE_SECONDS).release)
        return _Child(record, process, held, lifeline)

    async def _follow(self, its_id: str, child: _Child) -> None:
        """Wait for the end of a run's process, and record it if the process could not."""
        with child.held:
            code = await child.process.wait()
            if child.killing is not None:
                child.killing.cancel()
            child.kill()  # what it has started and left
            try:
                await asyncio.to_thread(_settle, child, code)
            except (OSError, ValueError) as damaged:
                log.warning("the record of a run cannot be read", extra={"run": its_id, "reason": str(damaged)})
        del self._children[its_id], self._following[its_id]
        log.info("a run of learning has ended", extra={"run": its_id, "code": code})


def _begin(folder: Path, recipe: str, held: ExitStack) -> tuple[RunRecord, Sequence[IO[str]]]:
    """A record, and the locks of the folder and of the run. Raises Refused and OSError."""
    working = held.enter_context(take_folder(folder))
    record, at_work = begin_run(folder, recipe)
    return record, (working, held.enter_context(at_work))


def _settle(child: _Child, code: int) -> None:
    """Note the end of a run, unless its process has. Raises OSError and ValueError."""
    own = child.record.folder
    if child.cancelled:
        settle_run(own, None)
    else:
        settle_run(own, SERVICE_ENDED if child.lifeline.closed else _describe_end(code, own / OUTPUT))


def _describe_end(code: int, output: Path) -> str:
    with output.open("rb") as printed:
        printed.seek(max(0, output.stat().st_size - TAIL_BYTES))
        lines = printed.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return describe_end("its process", code, last)
