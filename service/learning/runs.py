"""Records of runs, for people and for the service: how far learning has come, and what became of it.

    runs/<id>/state.json    the record, written again with each step forward
    runs/<id>/lock          held by the process that works

The lock distinguishes a run that works from one whose process was killed.
"""

import fcntl
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from service.learning.collected import write_whole
from service.learning.gate import Decision

KEPT = 50
"""Older records are dropped."""

RunState = Literal["running", "ended", "failed"]
Step = Literal["collect", "lessons", "train", "exam"]


class Run(BaseModel):
    """A run of one step or of all.

    recipe: its name, if one was stated. step: the last one that began.
    done, total: how far that has come, in prompts or steps of training; None while that is not known.
    note: a line for people. adapter, decision: what came of it. error: why it failed.
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


class RunRecord:
    """The record of a run at work. A record that cannot be written does not end the run."""

    def __init__(self, folder: Path, run: Run) -> None:
        self._folder = folder
        self._run = run
        self._write()

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

    def _note(self, **fields: Any) -> None:
        self._run = self._run.model_copy(update=fields)
        self._write()

    def _write(self) -> None:
        with suppress(OSError):
            write_whole(self._folder / "state.json", self._run.model_dump_json() + "\n")


@contextmanager
def record_run(folder: Path, recipe: str | None = None) -> Iterator[RunRecord]:
    """Record a run in a folder of learning; it fails with whatever is raised inside. OSError if the folder cannot be
    written."""
    its_id = f"run_{datetime.now(UTC):%Y%m%dT%H%M%S%f}_{secrets.token_hex(2)}"
    own = folder / "runs" / its_id
    own.mkdir(parents=True)
    for old in sorted(own.parent.iterdir())[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    with (own / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record = RunRecord(own, Run(id=its_id, recipe=recipe, started_at=_now()))
        try:
            yield record
        except BaseException as error:
            record.end(error=str(error) or type(error).__name__)
            raise
        record.end()


def read_runs(folder: Path) -> Sequence[Run]:
    """The recorded runs, the newest first."""
    try:
        folders = sorted((folder / "runs").iterdir(), reverse=True)
    except FileNotFoundError:
        return []
    return [run for own in folders if (run := _read(own)) is not None]


def read_run(folder: Path, its_id: str) -> Run | None:
    """A recorded run; None if it is unknown."""
    return next((run for run in read_runs(folder) if run.id == its_id), None)


def _read(own: Path) -> Run | None:
    """A record; None for one that is not written yet, or damaged."""
    try:
        run = Run.model_validate_json((own / "state.json").read_bytes())
        if run.state == "running" and not _is_held(own / "lock"):
            run = Run.model_validate_json((own / "state.json").read_bytes())  # it may have ended meanwhile
            if run.state == "running":
                return run.model_copy(update={"state": "failed", "error": "its process has ended"})
    except (OSError, ValueError):
        return None
    return run


def _is_held(path: Path) -> bool:
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
