"""What the rest of the service asks of stored traces."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from service.errors import NotFound, StoreUnavailable, wrong_field
from service.programs.storage import Storage
from service.traces.formats import FORMATS, Format
from service.traces.pairs import find_pairs
from service.traces.recorder import Recorder
from service.traces.store import EVERYTHING, Feedback, Selection, TraceStore, WholeTrace
from service.traces.trace import TraceSummary
from service.wire.feedback import FeedbackRequest
from service.wire.sse import json_line

log = logging.getLogger(__name__)

PURGE_SECONDS = 60.0
SECONDS_A_DAY = 86_400.0
PAGE_BYTES = 1_048_576
"""Of documents that are in memory at once while preferences are sent."""


async def _do_nothing() -> None:
    pass


class Traces:
    """The stored traces of this service.

    store: where they are kept.
    recorder: stores new ones.
    storage: how much callers may keep.
    keep_days: for how many days.
    on_feedback: called with the kind of each feedback.
    on_gone: called after traces were deleted, and now and then, since others may delete some: what else has their texts
        has to let go of them.
    """

    def __init__(
        self,
        store: TraceStore,
        recorder: Recorder,
        storage: Storage,
        keep_days: float,
        on_feedback: Callable[[str], None],
        on_gone: Callable[[], Awaitable[None]] = _do_nothing,
    ) -> None:
        self.recorder = recorder
        self._store = store
        self._storage = storage
        self._keep_days = keep_days
        self._on_feedback = on_feedback
        self._on_gone = on_gone
        self._purging: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to delete what is too old."""
        self._purging = asyncio.create_task(self._purge())

    async def close(self) -> None:
        """Store what waits, and stop."""
        if self._purging is not None:
            self._purging.cancel()
            await asyncio.wait((self._purging,))
        await self.recorder.close()

    async def list(
        self, caller: str, selection: Selection, limit: int, before: str | None = None
    ) -> Sequence[TraceSummary]:
        """The caller's newest traces, newest first; with ``before``, those of older programs than that one."""
        await self.recorder.settle(caller)
        return await self._store.list(caller, selection, limit, before)

    async def get(self, caller: str, trace_id: str) -> WholeTrace:
        """A trace of the caller's. Raises NotFound, also for the trace of another caller."""
        await self.recorder.settle(caller, trace_id)
        found = await self._store.get(caller, trace_id)
        if found is None:
            raise _unknown(trace_id)
        return found

    async def delete(self, caller: str, trace_id: str) -> None:
        """Delete a trace with its feedback. Raises NotFound."""
        await self.recorder.settle(caller, trace_id)
        if not await self._store.delete(caller, trace_id):
            raise _unknown(trace_id)
        self._storage.forget(caller)
        await self._on_gone()

    async def delete_all(self, caller: str) -> int:
        """Delete all traces of the caller's; how many there were."""
        await self.recorder.settle(caller)
        deleted = await self._store.delete_all(caller)
        self._storage.forget(caller)
        await self._on_gone()
        return deleted

    async def add_feedback(self, caller: str, given: FeedbackRequest) -> tuple[Feedback, bool]:
        """Keep feedback, in place of earlier feedback of the same kind on the same candidate; and whether there was
        such.

        Raises NotFound if the caller has no such trace, InvalidRequest if it has no such candidate, and StorageFull.
        """
        document = (await self.get(caller, given.program)).trace.document
        candidate, value = _resolve(given, document)
        if given.kind == "edit":
            value = await self.recorder.redact(value)
        feedback = Feedback(given.program, given.kind, candidate, value, time.time())
        async with self._storage.room(caller, len(str(value).encode())):
            replaced = await self._store.add_feedback(caller, feedback)
        if replaced is None:
            raise _unknown(given.program)
        self._on_feedback(given.kind)
        return feedback, replaced

    async def preferences(
        self, caller: str, form: Format, selection: Selection = EVERYTHING
    ) -> AsyncGenerator[bytes, None]:
        """The pairs that the caller's traces give, oldest first, in lines of JSON. Some traces are in memory at once,
        however many there are."""
        await self.recorder.settle(caller)
        after: str | None = None
        while page := await self._store.page(caller, selection, after, PAGE_BYTES):
            lines = await asyncio.to_thread(_lines, page, form)
            if lines:
                yield lines
            after = page[-1].trace.summary.id

    async def _purge(self) -> None:
        while True:
            with suppress(StoreUnavailable):
                if deleted := await self._store.purge(time.time() - self._keep_days * SECONDS_A_DAY):
                    log.info("traces were deleted for their age", extra={"traces": deleted})
                await self._on_gone()
            await asyncio.sleep(PURGE_SECONDS)


def _lines(page: Sequence[WholeTrace], form: Format) -> bytes:
    write = FORMATS[form]
    return b"".join(json_line(write(pair)) for whole in page for pair in find_pairs(whole))


def _resolve(given: FeedbackRequest, document: Mapping[str, Any]) -> tuple[str, Any]:
    """The candidate that feedback is about, and its value. Raises InvalidRequest."""
    prompts = {candidate["id"]: candidate["prompt"] for candidate in document["candidates"]}
    known = ", ".join(prompts)

    def check(field: str, candidate: object) -> str:
        if candidate not in prompts:
            raise wrong_field(field, f"the program has no such candidate; it has {known}")
        return str(candidate)

    if given.kind == "choice":
        chosen = check("value", given.value)
        rest = [check(f"over.{index}", candidate) for index, candidate in enumerate(given.over or ())]
        rest = rest or [its_id for its_id, prompt in prompts.items() if prompt == prompts[chosen]]
        for index, candidate in enumerate(given.over or ()):
            if candidate == chosen or prompts[candidate] != prompts[chosen]:
                raise wrong_field(f"over.{index}", "must be another candidate for the same prompt")
        if not (over := [candidate for candidate in rest if candidate != chosen]):
            raise wrong_field("value", "the program has only one candidate for this prompt")
        return chosen, over
    candidate = given.candidate or document["selected"]
    if candidate is None:
        raise wrong_field("candidate", f"the program has several texts: {known}")
    return check("candidate", candidate), given.value


def _unknown(trace_id: str) -> NotFound:
    return NotFound(f"there is no stored trace {trace_id}")
