"""A canary: a candidate writes some of the first drafts of requests for the model that learns, and what comes of it.

    canary                              a link to the canary that runs; missing while none does
    canaries/<candidate>-<incumbent>/   canary.json, and trials.jsonl with a line for each trial

A trial is a program in which both have written: the share of the candidate's first drafts that pass every hard
verifier, less that of the incumbent's. Trials are in [-1, 1], and the bets of the gate (statistics.py) decide:

- *better*: the mean is shown to be above 0. The n-th candidate against the same incumbent has a smaller part of the
  gate's alpha.
- *worse*: the mean is shown to be below 0.
- *undecided*: neither is shown.
- *broken*: the candidate could not be loaded, or could not write what the incumbent then wrote.

The bets need one order of the trials. It is that of the file, to which all services that share the folder append under
a lock. Trials outlive the canary: a candidate that tries its luck again goes on with those that it has.
"""

import fcntl
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.learning.gate import ALPHA
from service.learning.statistics import is_above, spend
from service.whole_files import write_whole

CanaryVerdict = Literal["better", "worse", "undecided", "broken"]
Winner = Literal["candidate", "even", "incumbent"]
BASE = "base"
"""What the base is called in the name of a folder."""

Share = Annotated[float, Field(gt=0, le=1)]


class Canary(BaseModel):
    """A canary.

    candidate: the adapter that is tried. against: the one that serves; empty for the base.
    share: of the requests that can be trials. promotes: whether the candidate is to serve as soon as it is better.
    forced: whether it may be tried without the gate's consent. attempt: how many have been tried against the same.
    ended: when it ended; None while it runs. reason: a sentence on the verdict.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidate: str
    against: str
    share: Share
    promotes: bool = False
    forced: bool = False
    attempt: int = 1
    started: str
    ended: str | None = None
    verdict: CanaryVerdict = "undecided"
    reason: str = ""


class Trial(BaseModel):
    """A program in which both wrote first drafts: which share of each one's passes every hard verifier."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    program: str
    candidate: float
    incumbent: float

    @property
    def difference(self) -> float:
        return self.candidate - self.incumbent


@dataclass(frozen=True, slots=True)
class Tally:
    """The trials so far. wins: how many each side has won. gain: the mean difference; None without trials."""

    trials: int
    wins: Mapping[str, int]
    gain: float | None


def count_trials(trials: Sequence[Trial]) -> Tally:
    """Count what became of trials."""
    wins = Counter[Winner](_winner(trial.difference) for trial in trials)
    gain = fmean(trial.difference for trial in trials) if trials else None
    return Tally(len(trials), {winner: wins[winner] for winner in get_args(Winner)}, gain)


def judge(trials: Sequence[Trial], attempt: int) -> CanaryVerdict:
    """The verdict on a candidate, which may be asked for after each trial.

    attempt: how many candidates have been tried against the same incumbent, this one included.
    """
    differences = [trial.difference for trial in trials]
    if is_above([-difference for difference in differences], least=0.0, alpha=ALPHA):
        return "worse"
    if is_above(differences, least=0.0, alpha=spend(ALPHA, attempt)):
        return "better"
    return "undecided"


class Canaries:
    """The canaries of a folder of learning. Only Registry changes them, which has the lock."""

    def __init__(self, folder: Path) -> None:
        self._link = folder / "canary"
        self._folder = folder / "canaries"

    @property
    def running(self) -> Canary | None:
        """The canary that runs."""
        try:
            found = _read(self._folder / Path(os.readlink(self._link)).name)
        except FileNotFoundError:
            return None
        return found if found is not None and found.ended is None else None

    def find(self, candidate: str, against: str) -> Canary | None:
        """The last canary of a candidate against an incumbent."""
        return _read(self._of(candidate, against))

    def last(self, candidate: str) -> Canary | None:
        """The last canary of a candidate, whatever it was against."""
        found = [canary for own in self._folder.glob(f"{candidate}-*") if (canary := _read(own)) is not None]
        return max(found, key=lambda canary: canary.started, default=None)

    def begin(self, candidate: str, against: str, share: float, *, promotes: bool, forced: bool) -> Canary:
        """Start a canary."""
        own = self._of(candidate, against)
        before = _read(own)
        attempt = before.attempt if before else 1 + len(list(self._folder.glob(f"*-{against or BASE}")))
        canary = Canary(
            candidate=candidate,
            against=against,
            share=share,
            promotes=promotes,
            forced=forced,
            attempt=attempt,
            started=_now(),
        )
        _write(own, canary)
        aside = self._link.with_name(".canary")
        aside.unlink(missing_ok=True)
        aside.symlink_to(Path(self._folder.name, own.name))
        aside.replace(self._link)
        return canary

    def end(self, canary: Canary, verdict: CanaryVerdict, reason: str) -> None:
        """End the canary that runs."""
        ended = canary.model_copy(update={"ended": _now(), "verdict": verdict, "reason": reason})
        _write(self._of(canary.candidate, canary.against), ended)
        self._link.unlink(missing_ok=True)

    def add(self, candidate: str, against: str, trial: Trial) -> None:
        """Append a trial. OSError if that cannot be done, as for a candidate that was never tried."""
        own = self._of(candidate, against)
        with (own / "trials.jsonl").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(f"\n{trial.model_dump_json()}\n".encode())  # the line before may have been cut

    def size(self, canary: Canary) -> int:
        """The bytes of a canary's trials so far, which only grow."""
        try:
            return (self._of(canary.candidate, canary.against) / "trials.jsonl").stat().st_size
        except FileNotFoundError:
            return 0

    def trials(self, candidate: str, against: str) -> Sequence[Trial]:
        """The trials of a candidate against an incumbent, each program's once: a job's may have been told twice."""
        try:
            lines = (self._of(candidate, against) / "trials.jsonl").read_bytes().splitlines()
        except FileNotFoundError:
            return []
        found: dict[str, Trial] = {}
        for line in filter(None, lines):
            try:
                trial = Trial.model_validate_json(line)
            except ValidationError:  # cut by the end of a process
                continue
            found.setdefault(trial.program, trial)
        return list(found.values())

    def _of(self, candidate: str, against: str) -> Path:
        return self._folder / f"{candidate}-{against or BASE}"


def _winner(difference: float) -> Winner:
    if difference == 0:
        return "even"
    return "candidate" if difference > 0 else "incumbent"


def _read(own: Path) -> Canary | None:
    """A canary; None if it is missing or damaged."""
    try:
        return Canary.model_validate_json((own / "canary.json").read_bytes())
    except (OSError, ValueError):
        return None


def _write(own: Path, canary: Canary) -> None:
    write_whole(own / "canary.json", canary.model_dump_json(indent=2) + "\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
