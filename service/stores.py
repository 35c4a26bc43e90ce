"""What the service keeps in its database, if it has one."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.batches.store import BatchStore
from service.deliveries.store import DeliveryStore
from service.files.store import FileStore
from service.jobs.store import JobStore
from service.programs.kept_answers import AnswerStore
from service.settings import Settings
from service.store.errors import StoreMisconfigured

if TYPE_CHECKING:  # none of it is imported where it is off
    from service.store.database import Database
    from service.traces.store import TraceStore


@dataclass(frozen=True)
class Stores:
    """What each room keeps; ``traces`` only if the operator allows it, or once did and some may be left. ``close``
    closes the database that they share."""

    jobs: JobStore
    answers: AnswerStore
    deliveries: DeliveryStore
    traces: "TraceStore | None"
    files: FileStore
    batches: BatchStore
    close: Callable[[], Awaitable[None]]


def open_stores(settings: Settings) -> Stores | None:
    """Open the database that the settings name, and make what is missing in it. None if they name none: nothing of a
    database is imported then.

    Blocks. Raises StoreMisconfigured.
    """
    if settings.store is None:
        return None
    try:
        from service.batches.database import BatchDatabase
        from service.deliveries.database import DeliveryDatabase
        from service.files.database import FileDatabase
        from service.jobs.database import JobDatabase
        from service.programs.database import AnswerDatabase
        from service.store.opening import open_database
    except ModuleNotFoundError as error:
        raise StoreMisconfigured(f"a store needs redraft's extra 'store': {error}") from error
    database = open_database(settings.store, settings.store_password)
    deliveries = DeliveryDatabase(database)
    return Stores(
        jobs=JobDatabase(database, deliveries, settings.job_lease_seconds),
        answers=AnswerDatabase(
            database, settings.idempotency_bytes, settings.idempotency_seconds, settings.job_lease_seconds
        ),
        deliveries=deliveries,
        files=FileDatabase(database),
        batches=BatchDatabase(database, deliveries, settings.job_lease_seconds),
        traces=_open_traces(settings, database),
        close=database.close,
    )


def open_traces_to_read(settings: Settings) -> "tuple[TraceStore, Callable[[], Awaitable[None]]]":
    """The stored traces for another process than the service, which only reads them, and what closes their database.

    Blocks. Raises StoreMisconfigured.
    """
    if settings.store is None:
        raise StoreMisconfigured("REDRAFT_STORE names no database that could have stored traces")
    try:
        from service.store.opening import open_database
        from service.traces.database import TraceDatabase
    except ModuleNotFoundError as error:
        raise StoreMisconfigured(f"a store needs redraft's extra 'store': {error}") from error
    database = open_database(settings.store, settings.store_password, read_only=True)
    return TraceDatabase(database), database.close


def _open_traces(settings: Settings, database: "Database") -> "TraceStore | None":
    if not settings.stored_traces and not database.has("traces"):
        return None
    from service.traces.database import TraceDatabase

    return TraceDatabase(database)
