"""What the rest of the service asks of batches: take one on, give it, cancel it."""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from service.batches.batch import Batch
from service.batches.keeper import Keeper
from service.batches.store import BatchStore
from service.deliveries.delivery import Delivery, Destination
from service.deliveries.sender import Sender, wanted
from service.errors import NotFound, Overloaded, StorageFull, wrong_field
from service.files.file import StoredFile
from service.files.store import FileStore
from service.programs.ids import is_id, make_id
from service.programs.storage import Storage

RETRY_SECONDS = 60
WINDOW_SECONDS = 86_400.0


class Batches:
    """The batches of this service, and the files with their requests and results.

    keeper: keeps them going here.
    storage: how much callers may keep.
    sender: sends the notices of batches' ends.
    max_queued: how many batches may be open.
    max_bytes: of all files, and of the input of the batches that are open.
    keep: seconds for which files are kept.
    on_shed: called with ``overloaded`` for each refusal.
    """

    def __init__(
        self,
        store: BatchStore,
        files: FileStore,
        keeper: Keeper,
        storage: Storage,
        sender: Sender,
        *,
        max_queued: int,
        max_bytes: int,
        keep: float,
        on_shed: Callable[[str], None],
    ) -> None:
        self.files = files
        self.keeper = keeper
        self.keep = keep
        self._store = store
        self._storage = storage
        self._sender = sender
        self._reserved = 0
        self._max_queued = max_queued
        self._max_bytes = max_bytes
        self._on_shed = on_shed

    async def check(self) -> None:
        """Raise Overloaded if no batch would be taken on now."""
        waiting = await self._store.count_open()
        if waiting >= self._max_queued:
            self._on_shed("overloaded")
            raise Overloaded(f"{waiting} batches are not finished", retry_after=RETRY_SECONDS)

    @asynccontextmanager
    async def room(self, caller: str, size: int) -> AsyncIterator[None]:
        """Write so many bytes of a caller's inside. Raises StorageFull."""
        async with self._storage.room(caller, size):
            held = await self.files.held() + await self._store.held() + self._reserved
            if held + size > self._max_bytes:
                raise StorageFull(f"files hold {held} of {self._max_bytes} bytes; delete some that you no longer need")
            self._reserved += size
            try:
                yield
            finally:
                self._reserved -= size

    async def delete_file(self, caller: str, file_id: str) -> StoredFile:
        """Drop a file of the caller's. Raises NotFound."""
        file = await self.get_file(caller, file_id)
        await self.files.delete(file.id)
        self._storage.forget(caller)
        return file

    async def get_file(self, caller: str, file_id: str) -> StoredFile:
        """A file of the caller's. Raises NotFound, also for the file of another caller."""
        file = await self.files.get(file_id) if is_id(file_id) else None
        if file is None or file.caller != caller or file.has_expired:
            raise NotFound(f"there is no file {file_id}")
        return file

    async def create(
        self,
        caller: str,
        request_id: str,
        *,
        endpoint: str,
        input_file: str,
        keep: float | None,
        metadata: Mapping[str, str] | None,
        notify: Destination | None = None,
    ) -> Batch:
        """Take a batch on. Once this has returned, it will end, whatever becomes of this process.

        endpoint: one of ENDPOINTS.
        input_file: the id of a file of the caller's.
        keep: seconds for which the files with results are kept; None for the usual time.
        notify: where a notice of the batch's end goes.

        Raises InvalidRequest and StorageFull.
        """
        try:
            file = await self.get_file(caller, input_file)
        except NotFound as error:
            raise wrong_field("input_file_id", error.detail) from None
        if file.purpose != "batch":
            raise wrong_field("input_file_id", f"the file was uploaded for {file.purpose}, not for batch")
        batch = Batch(
            make_id("batch", "_"),
            caller,
            endpoint,
            input_file,
            window=WINDOW_SECONDS,
            keep=min(keep or self.keep, self.keep),
            request_id=request_id,
            created=time.time(),
            size=file.size,
            metadata=metadata,
        )
        async with self.room(caller, file.size):
            await self._store.add(batch, notify)
        self.keeper.wake()
        return batch

    async def get(self, caller: str, batch_id: str) -> Batch:
        """A batch of the caller's. Raises NotFound, also for the batch of another caller."""
        batch = await self._store.get(batch_id) if is_id(batch_id) else None
        if batch is None or batch.caller != caller:
            raise NotFound(f"there is no batch {batch_id}")
        return batch

    async def notice(self, caller: str, batch_id: str) -> Delivery:
        """The delivery of the notice of a batch's end. Raises NotFound, also if no notice of it is wanted."""
        await self.get(caller, batch_id)
        return wanted(await self._sender.get(batch_id))

    async def send_again(self, caller: str, batch_id: str) -> Delivery:
        """Send the notice of a batch's end again, whatever became of it before. Raises NotFound as ``notice`` does."""
        await self.get(caller, batch_id)
        return wanted(await self._sender.send_again(batch_id))

    async def list(self, caller: str, limit: int, after: str | None) -> Sequence[Batch]:
        """The caller's batches, newest first; with ``after``, those older than it."""
        return await self._store.list(caller, limit, after)

    async def cancel(self, caller: str, batch_id: str) -> Batch:
        """End a batch: no further line is begun, and those at work end with what they have. One that has ended, or
        whose results are being written, stays as it is. Raises NotFound."""
        batch = await self.get(caller, batch_id)
        if not batch.has_ended:
            await self._store.cancel(batch_id)
            self.keeper.wake()
            batch = await self.get(caller, batch_id)
        return batch
