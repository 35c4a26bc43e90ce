"""Records of runs, for people and for the service: how far learning has come, and what became of it.

    runs/<id>/state.json    the record, written again with each step forward
    runs/<id>/lock          held by the process that works
    runs/<id>/output.log    what that process prints, if a service has started it (launching.py)
    .lock                   held by the process that changes the folder

The first lock distinguishes a run that works from one whose process was killed. The second one lets one process at a
time change the folder.
"""

import asyncio
import fcntl
import secrets
import shutil
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict

from service.learning.gate import Decision
from service.learning.registry import Refused
from service.whole_files import write_whole

KEPT = 50
"""Older records are dropped, but for those of runs at work."""
LOOK_SECONDS = 0.5
"""How soon those who watch a run hear of a step forward."""
GONE = "its process has ended"

RunState = Literal["running", "ended", "failed", "cancelled"]
Step = Literal["collect", "lessons", "train", "exam"]


class Run(BaseModel):
    """A run of one step or of all.

    recipe: its name, if one was stated. step: the last one that began.
    done, total: how far that has come, in prompts or steps of training; None while that is not known.
    note: a line for people. adapter, decision: what came of it. error: why it failed.
    revision: grows with each change of the record.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    state: RunState = "running"
    recipe: str | None = None
    started_at: str
    finished_at: str | None = None
    step: Step | None = None
    done: int | None = None
    total: int | None = None
    note: str = ""
    adapter: str | None = None
    decision: Decision | None = None
    error: str | None = None
    revision: int = 1


class RunRecord:
    """The record of a run at work. A record that cannot be written does not end the run.

    folder: its own, in ``runs``.
    """

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder = folder
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def begin(self, step: Step) -> None:
        """Note that a step begins."""
        self._note(step=step, done=None, total=None, note="")

    def show(self, done: int, total: int | None, note: str = "") -> None:
        """Note how far the step has come."""
        self._note(done=done, total=total, note=note)

    def give(self, adapter: str, decision: Decision | None = None) -> None:
        """Note what has come of the run so far."""
        self._note(adapter=adapter, decision=decision)

    def end(self, error: str | None = None) -> None:
        """Note the end. ``error``: why it failed."""
        self._note(state="failed" if error else "ended", finished_at=_now(), error=error)

    def cancel(self) -> None:
        """Note that somebody has ended the run."""
        self._note(state="cancelled", finished_at=_now())

    def write(self) -> None:
        """Write the record as it is."""
        with suppress(OSError):
            write_whole(self.folder / "state.json", self._run.model_dump_json() + "\n")

    def _note(self, **fields: Any) -> None:
        self._run = self._run.model_copy(update={**fields, "revision": self._run.revision + 1})
        self.write()


def take_folder(folder: Path) -> IO[str]:
    """The right to change a folder of learning. It ends when this file is closed, by every process that has inherited
    it too. Raises Refused if another process has it, and OSError if the folder cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise Refused(f"another process works in {folder}") from error
    return lock


def begin_run(folder: Path, recipe: str | None = None) -> tuple[RunRecord, IO[str]]:
    """The record of a new run, and its lock: the run is at work until that is closed, as in ``take_folder``. OSError if
    the folder cannot be written."""
    its_id = f"run_{datetime.now(UTC):%Y%m%dT%H%M%S%f}_{secrets.token_hex(2)}"
    own = folder / "runs" / its_id
    own.mkdir(parents=True)
    for old in sorted(own.parent.iterdir())[:-KEPT]:
        if not _is_held(old / "lock"):
            shutil.rmtree(old, ignore_errors=True)
    lock = (own / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    record = RunRecord(own, Run(id=its_id, recipe=recipe, started_at=_now()))
    record.write()
    return record, lock


@contextmanager
def record_run(folder: Path, recipe: str | None = None, *, begun: str | None = None) -> Iterator[RunRecord]:
    """Record a run in a folder of learning. It is cancelled if the work inside is, and fails with whatever else that
    raises.

    begun: the id of a run that a service has begun, and whose lock this process has inherited.
    Raises Refused if that does not run, and OSError if the folder cannot be written.
    """
    with ExitStack() as stack:
        if begun is None:
            record, lock = begin_run(folder, recipe)
            stack.enter_context(lock)
        else:
            record = _continue(folder, begun)
        try:
            yield record
        except (KeyboardInterrupt, asyncio.CancelledError):
            record.cancel()
            raise
        except BaseException as error:
            record.end(error=str(error) or type(error).__name__)
            raise
        record.end()


def settle_run(own: Path, error: str | None) -> None:
    """Note the end of a run whose process has ended, unless it has done so itself. ``error``: why it failed; None if it
    was cancelled. OSError and ValueError if there is no record."""
    record = RunRecord(own, _load(own))
    if record.run.state != "running":
        return
    if error is None:
        record.cancel()
    else:
        record.end(error)


def read_runs(folder: Path) -> Sequence[Run]:
    """The recorded runs, the newest first."""
    try:
        folders = sorted((folder / "runs").iterdir(), reverse=True)
    except FileNotFoundError:
        return []
    return [run for own in folders if (run := _read(own)) is not None]


def read_run(folder: Path, its_id: str) -> Run | None:
    """A recorded run; None if it is unknown."""
    runs = folder / "runs"
    try:
        known = {own.name for own in runs.iterdir()}
    except FileNotFoundError:
        return None
    return _read(runs / its_id) if its_id in known else None


async def watch_run(folder: Path, its_id: str, after: int = 0) -> AsyncGenerator[Run, None]:
    """How far a run has come, again after each step forward, up to its end. ``after``: from which revision on."""
    while (run := await asyncio.to_thread(read_run, folder, its_id)) is not None:
        if run.revision > after:
            yield run
            after = run.revision
        if run.state != "running":
            return
        await asyncio.sleep(LOOK_SECONDS)


def _continue(folder: Path, its_id: str) -> RunRecord:
    run = read_run(folder, its_id)
    if run is None or run.state != "running":
        raise Refused(f"no service has begun the run {its_id}")
    return RunRecord(folder / "runs" / its_id, run)


def _read(own: Path) -> Run | None:
    """A record; None for one that is not written yet, or damaged."""
    try:
        run = _load(own)
        if run.state == "running" and not _is_held(own / "lock"):
            run = _load(own)  # it may have ended meanwhile
            if run.state == "running":
                return run.model_copy(update={"state": "failed", "error": GONE, "revision": run.revision + 1})
    except (OSError, ValueError):
        return None
    return run


def _load(own: Path) -> Run:
    return Run.model_validate_json((own / "state.json").read_bytes())


def _is_held(path: Path) -> bool:
    try:
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
