"""Stores traces while the service goes on: in the background, each once, and never at the cost of an answer."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from service.errors import RedraftError, StorageFull
from service.programs.run import RequestInfo
from service.programs.storage import Storage
from service.refinement.events import Done
from service.refinement.program import Program
from service.traces.redaction import Redact
from service.traces.store import TraceStore
from service.traces.trace import make_trace

log = logging.getLogger(__name__)

MOST_WAITING = 256
"""Traces that wait to be stored. Those above it are dropped, so that a slow hook or disk does not fill the memory."""
CLOSE_SECONDS = 10.0

Outcome = Literal["stored", "failed", "dropped", "refused"]
"""``failed``: by the database or the hook. ``dropped``: too many waited, or the service ended. ``refused``: the caller
keeps as much as it may."""


@dataclass(frozen=True, slots=True)
class _Storing:
    caller: str
    task: "asyncio.Task[None]"


class Recorder:
    """A Keeper that stores traces in ``store``.

    storage: how much callers may keep.
    redact: what every text goes through, in a thread.
    on_outcome: called once for each trace.
    """

    def __init__(
        self, store: TraceStore, storage: Storage, redact: Redact, on_outcome: Callable[[Outcome], None]
    ) -> None:
        self._store = store
        self._storage = storage
        self._redact = redact
        self._on_outcome = on_outcome
        self._storing: dict[str, _Storing] = {}
        self._thread = ThreadPoolExecutor(1, "redaction")

    async def check(self, caller: str) -> None:
        await self._storage.check(caller)

    def keep(self, program: Program, info: RequestInfo, done: Done) -> "asyncio.Future[None]":
        if (known := self._storing.get(program.id)) is not None:
            return known.task
        if len(self._storing) >= MOST_WAITING:
            self._give_up(program.id, "dropped", "too many traces wait to be stored")
            future = asyncio.get_running_loop().create_future()
            future.set_result(None)
            return future
        created = time.time() - info.seconds_since_arrival()
        task = asyncio.create_task(self._keep(program, done, info.caller, created))
        self._storing[program.id] = _Storing(info.caller, task)
        task.add_done_callback(lambda _: self._storing.pop(program.id, None))
        return task

    async def redact(self, text: str) -> str:
        """The text as it may be stored."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._redact, text)

    async def settle(self, caller: str, trace_id: str | None = None) -> None:
        """Return once the caller's traces that are being stored now, or one of them, are stored or given up."""
        waiting = self._storing.items()
        storing = [one.task for its_id, one in waiting if one.caller == caller and trace_id in (None, its_id)]
        if storing:
            await asyncio.wait(storing)

    async def close(self) -> None:
        """Store what waits, for some seconds at most."""
        if self._storing:
            _, late = await asyncio.wait([one.task for one in self._storing.values()], timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _keep(self, program: Program, done: Done, caller: str, created: float) -> None:
        make = asyncio.get_running_loop().run_in_executor
        try:
            trace = await make(self._thread, make_trace, program, done, caller, created, self._redact)
            size = await asyncio.to_thread(lambda: len(trace.encode().encode()))
            async with self._storage.room(caller, size):
                if await self._store.add(trace):
                    self._on_outcome("stored")
        except StorageFull as error:
            self._give_up(program.id, "refused", str(error))
        except asyncio.CancelledError:
            self._give_up(program.id, "dropped", "the service has ended")
        except Exception as error:  # noqa: BLE001 - a hook may raise anything, and the answer is sent all the same
            # The message of another's error may repeat the text.
            reason = str(error) if isinstance(error, RedraftError) else type(error).__name__
            self._give_up(program.id, "failed", reason)

    def _give_up(self, program_id: str, outcome: Outcome, reason: str) -> None:
        log.warning("a trace was not stored", extra={"program": program_id, "reason": reason})
        self._on_outcome(outcome)
