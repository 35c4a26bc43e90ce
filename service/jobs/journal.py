"""The steps of a job: what its calls gave, so that a later attempt need not make them again.

A program makes calls side by side, so their order differs from one attempt to the next. A step is therefore named by
what is called, not by when: by a digest of the call, and by a count where the same call is made more than once. All
that the search decides follows from its seed and from the results of its calls, so an attempt that meets recorded
results takes the same way as the attempt that recorded them.
"""

import asyncio
import hashlib
import heapq
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

from service.engines.base import Call
from service.engines.conversation import Conversation, Image
from service.errors import Cancelled, StoreUnavailable
from service.jobs.job import Claim, JobTaken
from service.jobs.replays import Replays
from service.jobs.store import Step, WorkStore

StepOutcome = Literal["made", "replayed", "lost"]
"""``made``: the call was made and recorded. ``replayed``: an earlier attempt had recorded it. ``lost``: it was in
progress when the attempt was interrupted, so a later attempt makes it again."""


class Interrupted(BaseException):
    """Ends an attempt without an outcome: the job goes on in a later attempt, here or elsewhere.

    Not an Exception, because the search turns those into results.
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Place:
    """One call's place among the steps. ``recorded``: the step, if an earlier attempt has made the call."""

    key: str
    occurrence: int
    recorded: Step | None


@dataclass
class _Occurrences:
    """The numbers of the calls that share a key. A call that gave nothing returns its number."""

    next: int = 0
    returned: list[int] = field(default_factory=list)

    def take(self) -> int:
        if self.returned:
            return heapq.heappop(self.returned)
        self.next += 1
        return self.next - 1


class Journal:
    """The steps of one attempt.

    store, claim: where steps are recorded, and by which right.
    steps: those of earlier attempts.
    on_step: called with what became of each step.
    """

    def __init__(
        self,
        store: WorkStore,
        claim: Claim,
        steps: Sequence[Step],
        on_step: Callable[[StepOutcome], None] = lambda outcome: None,
    ) -> None:
        self.replays = Replays()
        self.interrupted: Interrupted | None = None
        self._store = store
        self._claim = claim
        self._on_step = on_step
        self._recorded = {(step.key, step.occurrence): step for step in steps}
        self._kept: set[tuple[str, int]] = set()
        self._occurrences: defaultdict[str, _Occurrences] = defaultdict(_Occurrences)
        self._begun = time.monotonic()
        self._withdrawn = False
        self._working: set[asyncio.Timeout] = set()

    @property
    def worked(self) -> float:
        """Seconds of work on the job, in this attempt and those before."""
        return self._claim.worked + time.monotonic() - self._begun

    def withdraw(self) -> None:
        """End the calls in progress, and let no other begin: they raise Cancelled."""
        self._withdrawn = True
        self._end_calls()

    def interrupt(self, cause: Exception) -> Interrupted:
        """End the attempt and its calls: gives what to raise. What the program still tells is not to be told."""
        if self.interrupted is None:
            self.interrupted = Interrupted(cause)
            self.count_lost()
        self._end_calls()
        return self.interrupted

    def count_lost(self) -> None:
        """Count the calls in progress as lost: the attempt is about to be cancelled."""
        for _ in self._working:
            self._on_step("lost")

    @contextmanager
    def place(self, key: str) -> Iterator[Place]:
        """The place of a call that begins now. Calls of the same key are numbered in the order in which they begin."""
        numbers = self._occurrences[key]
        occurrence = numbers.take()
        recorded = self._recorded.get((key, occurrence))
        if recorded is not None:
            self._on_step("replayed")
        try:
            yield Place(key, occurrence, recorded)
        except BaseException:
            if recorded is None and (key, occurrence) not in self._kept:
                heapq.heappush(numbers.returned, occurrence)
            raise

    @asynccontextmanager
    async def step(self) -> AsyncIterator[None]:
        """Do the work of a step inside. It is cancelled, and Cancelled raised, as soon as the job is withdrawn. So with
        Interrupted, once another step has interrupted the attempt."""
        self._check()
        scope = asyncio.timeout(None)
        self._working.add(scope)
        try:
            async with scope:
                yield
        except TimeoutError as error:
            if not scope.expired():
                raise
            self._check()
            raise AssertionError("only an end of all calls ends a scope") from error
        finally:
            self._working.discard(scope)

    def _check(self) -> None:
        if self.interrupted is not None:
            raise self.interrupted
        if self._withdrawn:
            raise Cancelled("the job was cancelled")

    def _end_calls(self) -> None:
        for scope in self._working:
            if not scope.expired():
                scope.reschedule(asyncio.get_running_loop().time())

    async def record(self, place: Place, result: Mapping[str, Any], seconds: float) -> None:
        """Record what a call gave. Nothing may follow from it before this has returned. Raises Interrupted."""
        step = Step(place.key, place.occurrence, json.dumps(result, ensure_ascii=False), seconds)
        try:
            await self._store.record(self._claim, step, self.worked)
        except (JobTaken, StoreUnavailable) as error:
            raise self.interrupt(error) from error
        self._kept.add((place.key, place.occurrence))
        self._on_step("made")


def call_key(model: str, call: Call[Any]) -> str:
    """What tells a call from others: the model, the conversation, and how it is sampled.

    Without ``max_tokens``, which depends on what other calls have left of the budget by then, and without token ids,
    which the texts stand for.
    """
    turns = [[turn.role, turn.text, [image.digest for image in turn.images]] for turn in call.conversation.turns()]
    others = {f.name: getattr(call, f.name) for f in fields(call) if f.name != "conversation"}
    return _digest([type(call).__name__, model, turns, others])


def evaluation_key(index: int, evaluator: str, text: str) -> str:
    """What tells an evaluator's work on a text from others. ``index``: its place among the program's evaluators."""
    return _digest(["evaluate", index, evaluator, text])


def _digest(value: object) -> str:
    document = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.blake2b(document.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def _plain(value: object) -> object:
    match value:
        case Image():
            return value.digest
        case Conversation():
            return [_plain(turn) for turn in value.turns()]
        case Mapping():
            return dict(value)
        case set() | frozenset():
            return sorted(value)
        case _ if is_dataclass(value):
            return {f.name: getattr(value, f.name) for f in fields(value) if f.name not in ("max_tokens", "token_ids")}
    raise TypeError(f"a call holds a {type(value).__name__}, which has no stable form")
