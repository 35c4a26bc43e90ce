"""What outlives a request, made from the settings: jobs, batches, notices and stored traces. Nothing works yet."""

from typing import TYPE_CHECKING

from service.api.lines import LineOrders
from service.api.openai.background import ResponseOrders
from service.api.state import AppState
from service.batches.batches import Batches
from service.batches.keeper import Keeper
from service.deliveries.delivery import Backlog
from service.deliveries.receivers import Receivers
from service.deliveries.sender import Sender
from service.jobs.attempt import Services
from service.jobs.job import JobKind, JobState
from service.jobs.jobs import Jobs
from service.jobs.news import News
from service.jobs.orders import NativeOrders, OrdersByKind
from service.jobs.worker import Worker
from service.learning.serving import LearnedModel
from service.metrics import Metrics
from service.programs.storage import Storage
from service.settings import Settings
from service.stores import Stores

if TYPE_CHECKING:  # nothing of it is imported where traces are off
    from service.traces.store import TraceStore
    from service.traces.traces import Traces


def make_sender(stores: Stores, receivers: Receivers, metrics: Metrics) -> Sender:
    """What sends notices, and does not yet."""

    def show(backlog: Backlog) -> None:
        metrics.show_deliveries(backlog.pending, backlog.overdue)

    metrics.expect_deliveries(receivers.names)
    return Sender(stores.deliveries, receivers, on_attempt=metrics.count_delivery, on_backlog=show)


def make_storage(settings: Settings, stores: Stores, metrics: Metrics) -> Storage:
    """How much callers may keep in the store."""
    rooms = {"jobs": stores.jobs.held, "files": stores.files.held, "batches": stores.batches.held}
    if stores.traces is not None:
        rooms["traces"] = stores.traces.held
    return Storage(
        rooms,
        settings.max_stored_bytes_per_key,
        on_refusal=metrics.count_storage_refusal,
        on_show=metrics.show_stored_bytes,
    )


def make_jobs(settings: Settings, stores: Stores, storage: Storage, sender: Sender, state: AppState) -> Jobs:
    """The jobs in the store, with a worker that does not work yet."""
    metrics = state.runner.metrics

    def note_end(kind: JobKind, ended: JobState) -> None:
        metrics.count_job_end(kind, ended)
        sender.wake()

    news = News()
    orders = OrdersByKind(NativeOrders(state.programs), {"response": ResponseOrders(state)})
    services = Services(
        stores.jobs, state.runner, orders, news, models_change=settings.learning_dir is not None, on_end=note_end
    )
    lease, keep = settings.job_lease_seconds, settings.job_keep_seconds
    worker = Worker(services, settings.max_jobs, lease, keep, state.check_ready)
    return Jobs(
        stores.jobs,
        worker,
        news,
        sender,
        storage,
        settings.max_queued_jobs,
        on_shed=metrics.count_shed,
        on_end=note_end,
        on_measure=lambda live: metrics.show_jobs(live.queued, live.running, live.oldest_queued),
    )


def make_traces(
    settings: Settings, store: "TraceStore", storage: Storage, metrics: Metrics, learned: LearnedModel | None
) -> "Traces":
    """The traces in ``store``. Raises StoreMisconfigured if the settings name a redaction that is not there.

    learned: what lets go of traces that are gone.
    """
    from service.traces.recorder import Recorder
    from service.traces.redaction import load_redaction
    from service.traces.traces import Traces

    recorder = Recorder(store, storage, load_redaction(settings.redaction), metrics.count_trace)

    async def let_go() -> None:
        if learned is not None:
            await learned.let_go(store, settings.stored_traces_days)

    return Traces(store, recorder, storage, settings.stored_traces_days, metrics.count_feedback, let_go)


def make_batches(
    settings: Settings, stores: Stores, storage: Storage, sender: Sender, state: AppState, line_bytes: int
) -> Batches:
    """The batches in the store, on which nobody works yet."""
    services = Services(
        stores.batches.lines,
        state.runner,
        LineOrders(state),
        News(),
        lane="batch",
        models_change=settings.learning_dir is not None,
    )
    lease, keep = settings.job_lease_seconds, settings.file_keep_seconds
    worker = Worker(services, settings.max_batch_programs, lease, keep, state.check_ready)
    return Batches(
        stores.batches,
        stores.files,
        Keeper(stores.batches, stores.files, worker, lease, keep, line_bytes, on_end=sender.wake),
        storage,
        sender,
        max_queued=settings.max_queued_jobs,
        max_bytes=settings.max_files_bytes,
        keep=keep,
        on_shed=state.runner.metrics.count_shed,
    )
