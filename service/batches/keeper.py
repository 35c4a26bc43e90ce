"""The keeper: checks the lines of new batches, writes the results of finished ones, and drops what is old."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress

from service.batches.batch import BatchClaim, Line, LineFault
from service.batches.checking import Checker, cut_lines
from service.batches.results import ResultFiles
from service.batches.store import BatchStore
from service.errors import StoreUnavailable
from service.files.store import FileStore
from service.jobs.job import JobTaken
from service.jobs.worker import Worker

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""How soon it is noticed that another process has accepted a batch, or ended its last line."""
PAUSE_SECONDS = 0.1
"""Between two looks, since lines may end in quick succession."""
PURGE_SECONDS = 60.0
RETRY_SECONDS = 5.0
ABANDONED_SECONDS = 86_400.0
"""A file that was begun so long ago is not going to be finished."""
LINES_AT_ONCE = 50
BYTES_AT_ONCE = 1_048_576
LARGE_LINE_BYTES = 16_384
"""A line that is larger is checked in a thread, so that requests do not wait for it."""


class Keeper:
    """Keeps the batches going from ``start`` to ``hand_over``.

    worker: works on their lines.
    lease: seconds after which another process may take over what this one has begun.
    keep: seconds for which batches are kept once they have ended.
    max_line_bytes: how long a line may be.
    on_end: called for each batch that has ended here.
    """

    def __init__(
        self,
        store: BatchStore,
        files: FileStore,
        worker: Worker,
        lease: float,
        keep: float,
        max_line_bytes: int,
        *,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._files = files
        self._worker = worker
        self._lease = lease
        self._keep = keep
        self._max_line_bytes = max_line_bytes
        self._on_end = on_end
        self._loops: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        store.lines.watch(self.wake)

    def start(self) -> None:
        """Begin to work."""
        self._worker.start()
        self._loops = [asyncio.create_task(work()) for work in (self._advance_all, self._purge)]

    def wake(self) -> None:
        """Look for batches now: there is a new one, or one was cancelled."""
        self._wake.set()

    async def hand_over(self) -> None:
        """Stop, and let go of everything. The second call does nothing."""
        await self._worker.hand_over()
        for loop in self._loops:
            loop.cancel()
        if self._loops:
            await asyncio.wait(self._loops)
        self._loops = []

    async def _advance_all(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._store.end_overdue()
                while (claim := await self._store.claim(self._worker.owner, self._lease)) is not None:
                    await self._advance(claim)
            except StoreUnavailable as error:
                log.warning("no batch can be worked on", extra={"reason": str(error)})
            await asyncio.sleep(PAUSE_SECONDS)

    async def _advance(self, claim: BatchClaim) -> None:
        """Check the batch's lines, or write its results."""
        try:
            if claim.batch.state == "validating":
                await self._check(claim)
            else:
                await self._finish(claim)
        except JobTaken:
            log.info("a batch was cancelled or taken meanwhile", extra={"batch": claim.batch.id})
        except asyncio.CancelledError:
            with suppress(JobTaken, StoreUnavailable):
                await self._store.release(claim, delay=0.0)
            raise
        except StoreUnavailable:
            raise
        except Exception:  # one batch must not keep the others from ending
            log.exception("a batch cannot be worked on", extra={"batch": claim.batch.id})
            with suppress(JobTaken):
                await self._store.release(claim, RETRY_SECONDS)

    async def _check(self, claim: BatchClaim) -> None:
        """Keep the lines of a batch and let them begin, or end it with what is wrong with them."""
        batch = claim.batch
        file = await self._files.get(batch.input_file)
        if file is None or file.caller != batch.caller:
            gone = LineFault("file_not_found", "the input file was deleted before it was read", param="input_file_id")
            await self._store.fail(claim, [gone])
            self._on_end()
            return
        checker = Checker(batch.endpoint, self._max_line_bytes)
        async with aclosing(self._pages(checker, file.id)) as pages:
            async for page in pages:
                await self._store.add_lines(claim, page)
        if checker.faults:
            await self._store.fail(claim, checker.faults)
            self._on_end()
            log.info("batch is not valid", extra=_about(claim))
            return
        await self._store.begin(claim, checker.model)
        self._worker.wake()
        log.info("batch begun", extra={**_about(claim), "lines": checker.lines})

    async def _pages(self, checker: Checker, file_id: str) -> AsyncGenerator[list[Line], None]:
        """The lines of a file, some at a time, so that the lease can be renewed; none once a line was wrong."""
        page, checked, size = list[Line](), 0, 0
        async with aclosing(cut_lines(self._files.read(file_id), self._max_line_bytes)) as raw_lines:
            async for raw in raw_lines:
                line = await _check_line(checker, raw)
                if checker.is_over:
                    break
                if line is not None and not checker.faults:
                    page.append(line)
                checked, size = checked + 1, size + len(raw)
                if checked >= LINES_AT_ONCE or size >= BYTES_AT_ONCE:
                    yield page
                    page, checked, size = [], 0, 0
        checker.finish()
        yield page

    async def _finish(self, claim: BatchClaim) -> None:
        """Write the results, and end the batch. What a process that is gone has written already stays as it is."""
        await self._store.begin_finalizing(claim)
        files, after = ResultFiles(claim.batch, self._files), 0
        while page := await self._store.results(claim, after, LINES_AT_ONCE):
            for result in page:
                await files.write(result)
            after = page[-1].number
        await self._store.finish(claim, await files.finish())
        self._on_end()
        log.info("batch ended", extra={**_about(claim), "state": claim.batch.end})

    async def _purge(self) -> None:
        while True:
            now = time.time()
            with suppress(StoreUnavailable):
                files = await self._files.purge(now, now - ABANDONED_SECONDS)
                batches = await self._store.purge(now - self._keep)
                if files or batches:
                    log.info("old files and batches were dropped", extra={"files": files, "batches": batches})
            await asyncio.sleep(PURGE_SECONDS)


async def _check_line(checker: Checker, raw: bytes) -> Line | None:
    if len(raw) > LARGE_LINE_BYTES:
        return await asyncio.to_thread(checker.check, raw)
    await asyncio.sleep(0)
    return checker.check(raw)


def _about(claim: BatchClaim) -> Mapping[str, str]:
    return {"batch": claim.batch.id, "request_id": claim.batch.request_id}
