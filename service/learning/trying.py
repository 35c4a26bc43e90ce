"""The canary in a running service: which programs try its candidate, and what is made of that.

The folder says which canary runs (canary.py). It may have been started by another process, and ended by any: all look
at the same trials and come to the same verdict, and the first one ends it.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass

from service.learning.canary import Canary, CanaryVerdict, Tally, Trial, count_trials, judge
from service.learning.collected import DamagedFile
from service.learning.registry import Refused, Registry
from service.models import LEARNED
from service.refinement.events import CandidateFailed, Tried

log = logging.getLogger(__name__)

PREFIX = f"{LEARNED}@"


@dataclass(frozen=True)
class Listeners:
    """Who hears of a canary.

    trials: called again and again with how many trials of the one that runs each side has won so far.
    verdict: called with the verdict on one that this process has ended.
    """

    trials: Callable[[Mapping[str, int]], None] = lambda wins: None
    verdict: Callable[[str], None] = lambda verdict: None


@dataclass(frozen=True, slots=True)
class Look:
    """What the folder says of the canary that runs. ``end``: why it is to end; empty if it goes on."""

    canary: Canary
    verdict: CanaryVerdict
    tally: Tally
    end: str


class Trying:
    """The canary that this service takes part in.

    name_of: gives an adapter's name as a model.
    """

    def __init__(self, registry: Registry, name_of: Callable[[str], str], listeners: Listeners) -> None:
        self.canary: Canary | None = None
        self._registry = registry
        self._name_of = name_of
        self._listeners = listeners
        self._known: tuple[Canary, int, CanaryVerdict, Tally] | None = None
        self._noting: set[asyncio.Task[None]] = set()

    @property
    def candidate(self) -> str | None:
        """The adapter that programs try."""
        return None if self.canary is None else self.canary.candidate

    def draw(self, writer: str) -> str | None:
        """The candidate for the place of the weights ``writer``, for the share of programs that try one."""
        canary = self.canary
        if canary is None or writer != self._name_of(canary.against) or random.random() >= canary.share:  # noqa: S311
            return None
        return self._name_of(canary.candidate)

    def note(self, program: str, event: Tried | CandidateFailed) -> None:
        """Note what became of a program's candidate."""
        self._begin(self._add(program, event) if isinstance(event, Tried) else self._end_failed(event))

    async def look(self) -> Look | None:
        """What the folder says of the canary that runs; None if none does, or if the folder cannot be read."""
        try:
            found = await asyncio.to_thread(self._look)
        except OSError as error:
            log.debug("the folder of learning cannot be read", extra={"reason": explain(error)})
            found = None
        if found is None:
            self.canary = None
        self._listeners.trials(count_trials([]).wins if found is None else found.tally.wins)
        return found

    async def end(self, canary: Canary, verdict: CanaryVerdict, reason: str) -> None:
        """End a canary, unless another process has. If that lets the candidate serve, it is noticed as ever."""
        self.canary = None
        try:
            has_ended = await asyncio.to_thread(self._registry.end_canary, canary, verdict, reason)
        except (Refused, DamagedFile) as error:
            await self.end(canary, "broken", f"it cannot serve: {explain(error)}")
            return
        except OSError as error:  # and again at the next look
            log.warning("a canary cannot be ended", extra={"adapter": canary.candidate, "reason": explain(error)})
            return
        if has_ended:
            self._listeners.verdict(verdict)
            level = logging.WARNING if verdict in ("worse", "broken") else logging.INFO
            extra = {"adapter": canary.candidate, "verdict": verdict, "reason": reason}
            log.log(level, "a canary has ended", extra=extra)

    async def close(self) -> None:
        """Return once everything is noted."""
        if self._noting:
            await asyncio.wait(self._noting)

    def _look(self) -> Look | None:
        canaries = self._registry.canaries
        if (canary := canaries.running) is None:
            return None
        size = canaries.size(canary)
        if self._known is None or self._known[:2] != (canary, size):
            trials = canaries.trials(canary.candidate, canary.against)
            self._known = canary, size, judge(trials, canary.attempt), count_trials(trials)
        _, _, verdict, tally = self._known
        if verdict != "undecided":
            won, lost = tally.wins["candidate"], tally.wins["incumbent"]
            return Look(canary, verdict, tally, f"of {tally.trials} trials it won {won} and lost {lost}")
        is_over = self._registry.current != canary.against
        return Look(canary, verdict, tally, "something else serves now" if is_over else "")

    def _begin(self, noting: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(noting)
        self._noting.add(task)
        task.add_done_callback(self._noting.discard)

    async def _add(self, program: str, tried: Tried) -> None:
        trial = Trial(program=program, candidate=tried.candidate_passed, incumbent=tried.writer_passed)
        candidate, against = digest_of(tried.candidate), digest_of(tried.writer)
        try:
            await asyncio.to_thread(self._registry.canaries.add, candidate, against, trial)
        except OSError as error:
            log.warning("a trial is lost", extra={"program": program, "reason": explain(error)})

    async def _end_failed(self, failed: CandidateFailed) -> None:
        canary = self.canary
        if canary is not None and self._name_of(canary.candidate) == failed.candidate:
            await self.end(canary, "broken", f"it failed in the engine: {failed.reason}")


def digest_of(model: str) -> str:
    """The adapter of weights, by their name as a model; empty for the base."""
    return model.removeprefix(PREFIX) if model.startswith(PREFIX) else ""


def explain(error: Exception) -> str:
    """What went wrong, for the operator."""
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
