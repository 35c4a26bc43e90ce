"""Where traces are kept: what the rest of the room asks of a store."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from service.traces.trace import Trace, TraceSummary

FeedbackKind = Literal["thumb", "edit", "choice", "score"]


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a caller says of a text.

    trace: the trace's id. candidate: the text's; of a choice, the one that was chosen.
    value: ``up`` or ``down``; the better text; the ids of those not chosen; or a score in [0, 1].
    created: seconds since the epoch.
    """

    trace: str
    kind: FeedbackKind
    candidate: str
    value: Any
    created: float


@dataclass(frozen=True, slots=True)
class Selection:
    """Which of a caller's traces are meant. ``since`` and ``until`` (not included): seconds since the epoch."""

    task: str | None = None
    model: str | None = None
    since: float | None = None
    until: float | None = None


EVERYTHING = Selection()


@dataclass(frozen=True, slots=True)
class WholeTrace:
    """A trace with the feedback that was given on it, the oldest first."""

    trace: Trace
    feedback: Sequence[Feedback]


Absence = Literal["deleted", "missing"]
"""Why a trace is not there: its caller has deleted it; or it has expired, or never was there."""


class TraceStore(Protocol):
    """Keeps traces and feedback. What a method has written survives the end of this process, and a power cut.

    Once a method that deletes has returned, no file of the database has what was deleted, as far as the database can
    tell (``Database.scrub``). Methods raise StoreUnavailable if the database cannot be reached.
    """

    async def add(self, trace: Trace) -> bool:
        """Keep a trace; whether it is new. One that is there already stays as it is."""

    async def list(
        self, caller: str, selection: Selection, limit: int, before: str | None = None
    ) -> Sequence[TraceSummary]:
        """The caller's newest traces, newest first; with ``before``, those of older programs than that one."""

    async def get(self, caller: str, trace_id: str) -> WholeTrace | None:
        """A trace of the caller's."""

    async def page(self, caller: str, selection: Selection, after: str | None, max_bytes: int) -> Sequence[WholeTrace]:
        """The caller's traces, oldest first, after that one: at least one if there is any, and no more than
        ``max_bytes`` of documents if there are several."""

    async def callers(self) -> Sequence[str]:
        """Those who have traces, by the names of their keys."""

    async def absent(self, trace_ids: Collection[str]) -> Mapping[str, Absence]:
        """Those of the traces that are not there, and why. Of a deleted trace, its id is all that is left."""

    async def add_feedback(self, caller: str, feedback: Feedback) -> bool | None:
        """Keep feedback in place of earlier feedback of the same kind on the same candidate; whether there was such.
        None if the caller has no such trace."""

    async def held(self, caller: str | None) -> int:
        """Bytes of the caller's traces and of the feedback on them, or of all."""

    async def delete(self, caller: str, trace_id: str) -> bool:
        """Delete a trace of the caller's with its feedback; whether there was one."""

    async def delete_all(self, caller: str) -> int:
        """Delete all traces of the caller's; how many there were."""

    async def purge(self, created_before: float) -> int:
        """Delete the traces from before a time; how many there were."""
