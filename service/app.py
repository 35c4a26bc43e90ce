"""The application: everything is made here and wired here. The only place that knows all the others."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import FastAPI

from service.api import pages, problems
from service.api.anthropic import routes as anthropic_routes
from service.api.anthropic.requests import MessagesRequest
from service.api.auth import Keys
from service.api.batches import BatchRequest
from service.api.body import DescribedApp
from service.api.idempotency import Repeats
from service.api.intake import Intake
from service.api.jobs import router as jobs_router
from service.api.learning import CanaryRequest
from service.api.learning import router as learning_router
from service.api.learning_runs import RunRequest
from service.api.learning_runs import router as learning_runs_router
from service.api.mcp import routes as mcp_routes
from service.api.middleware import UNMATCHED, BodyLimit, RequestContext, RequestRecord, RequestTrace
from service.api.openai import batches as openai_batches
from service.api.openai import files as openai_files
from service.api.openai import routes as openai_routes
from service.api.openai.batches import BatchFileRequest
from service.api.openai.response_requests import ResponseRequest
from service.api.openai.translate import ChatRequest
from service.api.origin import Cors, OriginGuard, methods_of
from service.api.rate_limits import RateLimits
from service.api.routes import router, v1
from service.api.state import AppState, Exchanges
from service.api.traces import router as traces_router
from service.calibration.identity import digest_of_folders, judge_digest
from service.calibration.judges import JudgeCheck, KnownJudges
from service.calibration.store import load
from service.deliveries.receivers import Receivers
from service.durable import make_batches, make_jobs, make_sender, make_storage, make_traces
from service.errors import EngineDead
from service.evaluators.code.sandbox import Sandbox
from service.evaluators.external.plugins import load_plugins
from service.evaluators.external.webhook_client import Webhooks
from service.evaluators.model.embedding import Embedder
from service.evaluators.toolbox import Toolbox
from service.fleet import Fleet, StartEngine, make_fleet, make_launcher, make_learned, start_engine, weights_of
from service.images.fetch import RemoteImages
from service.metrics import Metrics
from service.models import Adapter
from service.programs.admission import Admission
from service.programs.background import LINE_BYTES, Background
from service.programs.compile import Programs, RequestLimits
from service.programs.kept_answers import MemoryAnswers
from service.programs.models import ServedModels
from service.programs.run import Runner
from service.settings import Settings
from service.spans import Tracer, current
from service.stores import open_stores
from service.tasks.task import load_rubrics, load_tasks
from service.web.page import Features, Page, make_router
from service.wire.feedback import FeedbackRequest
from service.wire.requests import CritiqueRequest, GenerateRequest, RefineRequest
from service.wire.responses import Problem

log = logging.getLogger(__name__)

KEPT_ANSWERS = 8
"""How many of the longest answers have room in what is kept for requests sent again."""
FORM_BYTES = 65_536
"""What the form around an uploaded file may have."""
POLLED = ("/health/live", "/health/ready", "/metrics")
"""Routes that machines ask for again and again: logged at debug only."""


async def open_toolbox(settings: Settings) -> Toolbox:
    """What evaluators may need, as far as this machine and the settings have it.

    WebhookMisconfigured or PluginError where what the operator has set up cannot work.
    """
    return Toolbox(
        await Sandbox.find(),
        Embedder.find(),
        Webhooks(settings.webhooks, settings.webhook_hosts),
        load_plugins(),
    )


def tell_span(record: RequestRecord) -> None:
    """Tell the current span, which is the request's, how the request ended."""
    span = current()
    routed = record.endpoint != UNMATCHED
    span.rename(f"{record.method} {record.endpoint}" if routed else record.method)
    span.set(
        {
            "http.route": record.endpoint if routed else None,
            "http.response.status_code": record.status,
            "redraft.request_id": record.request_id,
        }
    )
    if record.status >= 500:
        span.fail(str(record.status))


class McpUnavailable(Exception):
    """The Model Context Protocol is on and cannot be. The message is for the operator."""


def load_mcp(settings: Settings) -> Callable[[AppState], AbstractAsyncContextManager[Exchanges]] | None:
    """What serves agents; None where that is off, and the protocol's SDK is not imported. Raises McpUnavailable."""
    if not settings.mcp:
        return None
    try:
        from service.api.mcp.server import serving
    except ModuleNotFoundError as error:
        raise McpUnavailable(f"REDRAFT_MCP needs redraft's extra 'mcp': {error}") from error
    return partial(serving, max_body_bytes=settings.max_body_bytes)


class TracingUnavailable(Exception):
    """Tracing is on and cannot be. The message is for the operator."""


def start_tracing(settings: Settings) -> Tracer | None:
    """None where tracing is off. Raises TracingUnavailable."""
    if not settings.tracing:
        return None
    try:
        from service.tracing import Tracing

        further = {name: settings.engine if isinstance(m, Adapter) else "openai" for name, m in settings.models.items()}
        return Tracing({settings.model_name: settings.engine, **further})
    except ModuleNotFoundError as error:
        raise TracingUnavailable(f"tracing needs redraft's extra 'tracing': {error}") from error
    except ValueError as error:
        raise TracingUnavailable(f"a variable of OpenTelemetry's makes no sense: {error}") from error


@asynccontextmanager
async def _checking(check: JudgeCheck, settings: Settings, fleet: Fleet) -> AsyncIterator[None]:
    """Find out about the judges meanwhile, each as soon as its engine serves."""

    measures = settings.judge_check and settings.engine != "scripted"
    by_default = (settings.judge,) if settings.judge else settings.model_names

    async def find_out(model: str) -> None:
        try:
            engine = await fleet.loaded(model)
            weights = weights_of(settings, model)
            digest = weights if isinstance(weights, str) else await asyncio.to_thread(digest_of_folders, weights)
            judge = judge_digest(
                digest, check.programs.tasks["general"], both_directions=settings.judge_both_directions
            )
            await check.check(engine, judge, measures=measures and model in by_default)
        except EngineDead:  # the log says so already
            return
        except Exception as error:  # the service serves all the same
            log.warning("nothing is known of a judge", extra={"model": model, "reason": str(error)}, exc_info=error)

    finding = [asyncio.ensure_future(find_out(model)) for model in settings.model_names]
    try:
        yield
    finally:
        for each in finding:
            each.cancel()
        await asyncio.wait(finding)


def create_app(
    settings: Settings,
    *,
    tools: Toolbox | None = None,
    images: RemoteImages | None = None,
    start: StartEngine = start_engine,
    on_failure: Callable[[BaseException], None] = lambda error: None,
    on_ready: Callable[[], Awaitable[None]] | None = None,
) -> FastAPI:
    """Make the service, an ASGI app.

    ``tools`` and ``images`` are closed with it. ``on_failure`` gets the reason if an engine fails to start, and
    ``on_ready`` is awaited once the main model's engine serves.

    Raises TracingUnavailable, CalibrationError, WebhookMisconfigured, StoreMisconfigured and McpUnavailable.
    """
    metrics = Metrics()
    tracer = start_tracing(settings)
    receivers = Receivers(settings.notice_receivers)
    stores = open_stores(settings)
    serve_agents = load_mcp(settings)
    storage = make_storage(settings, stores, metrics) if stores else None
    learned = make_learned(settings, metrics.show_learned, metrics.show_canary, metrics.count_canary)
    traces = None
    if stores and stores.traces and storage:
        traces = make_traces(settings, stores.traces, storage, metrics, learned)
    admission = Admission(
        settings.max_programs,
        settings.max_queued,
        settings.max_programs_per_key,
        settings.max_batches,
        on_shed=metrics.count_shed,
    )
    metrics.watch_admission(lambda: admission.in_progress, lambda: admission.queued)
    tools = tools or Toolbox()
    images = images or RemoteImages(settings.image_hosts)
    rubrics = load_rubrics(settings.tasks_dir)
    tasks = load_tasks(settings.tasks_dir, rubrics=rubrics, tools=tools)
    served = ServedModels(settings.served_names, settings.critic, settings.judge)
    if learned is not None:
        served = replace(served, resolve=learned.resolve, draw_candidate=learned.trying.draw)
    limits = RequestLimits(settings.max_candidates, settings.max_rounds, settings.max_tokens, settings.max_seconds)
    judges = KnownJudges(metrics.show_judge)
    programs = Programs(
        tasks,
        limits,
        served,
        rubrics,
        tools,
        judges.trust,
        settings.judge_both_directions,
        judge_scale=judges.scale,
        stores_traces=settings.stored_traces,
    )
    line_bytes = max(settings.max_body_bytes, LINE_BYTES)
    background = Background(admission, settings.max_batch_programs, settings.max_batch_seconds, line_bytes)
    intake = Intake(settings.max_body_memory, settings.max_body_seconds, on_shed=metrics.count_shed)
    metrics.watch_batches(lambda: background.waiting)
    in_memory = MemoryAnswers(settings.idempotency_bytes, settings.idempotency_seconds)
    kept = in_memory if stores is None else stores.answers
    metrics.watch_kept_answers(lambda: kept.held_bytes)
    repeats = Repeats(
        kept,
        max_answer_bytes=settings.idempotency_bytes // KEPT_ANSWERS,
        wait=settings.idempotency_wait,
        grace=settings.idempotency_grace,
        on_repeat=metrics.count_repeat,
    )
    calibrated = load(settings.calibration) if settings.calibration else None
    check = JudgeCheck(judges, programs, background, metrics, calibrated)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        async with AsyncExitStack() as stack:
            if tracer is not None:
                stack.push_async_callback(tracer.close)
            stack.push_async_callback(tools.close)
            stack.push_async_callback(images.close)
            fleet = await stack.enter_async_context(make_fleet(settings, start, on_failure, on_ready, learned))
            if stores is not None:
                stack.push_async_callback(stores.close)
            stack.push_async_callback(repeats.close)
            repeats.start()
            await stack.enter_async_context(_checking(check, settings, fleet))
            runner = Runner(fleet.engine, admission, background, metrics, traces.recorder if traces else None)
            launcher = make_launcher(settings)
            if launcher is not None:
                stack.push_async_callback(launcher.close)
            if learned is not None:
                runner = replace(runner, hold=learned.hold, note_trial=learned.trying.note)
            state = AppState(
                keys=Keys(settings.keys),
                runner=runner,
                programs=programs,
                tasks=tasks,
                served=served,
                judges=judges,
                images=images,
                traces=traces,
                max_file_bytes=settings.max_file_bytes,
                max_body_seconds=settings.max_body_seconds,
                learned=learned,
                launcher=launcher,
                operators=settings.operator_names,
            )
            if stores is not None and storage is not None:
                stack.push_async_callback(storage.close)
                storage.start()
                if traces is not None:
                    stack.push_async_callback(traces.close)
                    traces.start()
                sender = make_sender(stores, receivers, metrics)
                jobs = make_jobs(settings, stores, storage, sender, state)
                batches = make_batches(settings, stores, storage, sender, state, line_bytes)
                state = replace(state, jobs=jobs, batches=batches)
                app.state.jobs, app.state.batches = jobs, batches
                stack.push_async_callback(jobs.close)
                stack.push_async_callback(batches.keeper.hand_over)
                jobs.start()
                batches.keeper.start()
            if serve_agents is not None:
                state = replace(state, agents=await stack.enter_async_context(serve_agents(state)))
            yield {"app_state": state, "intake": intake, "repeats": repeats}

    def finished(record: RequestRecord) -> None:
        metrics.observe_request(record.endpoint, record.status, record.seconds)
        tell_span(record)
        log.log(
            logging.DEBUG if record.endpoint in POLLED else logging.INFO,
            "request",
            extra={
                "endpoint": record.endpoint,
                "method": record.method,
                "status": record.status,
                "seconds": round(record.seconds, 4),
                "request_id": record.request_id,
                "caller": record.caller,
            },
        )

    native = (GenerateRequest, CritiqueRequest, RefineRequest, BatchRequest)
    requests = (
        *native,
        FeedbackRequest,
        CanaryRequest,
        RunRequest,
        ChatRequest,
        ResponseRequest,
        BatchFileRequest,
        MessagesRequest,
    )
    app = DescribedApp(
        [*requests, Problem],
        title="Redraft",
        summary="Drafts, critiques and refines text with a language model until it is good enough.",
        version="1",
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.state.admission = admission  # for the server, which drains the app
    app.state.jobs = app.state.batches = None  # until the lifespan begins
    problems.install(app)
    app.include_router(v1)
    app.include_router(jobs_router)
    app.include_router(traces_router)
    app.include_router(learning_router)
    app.include_router(learning_runs_router)
    app.include_router(openai_routes.v1)
    app.include_router(openai_files.v1)
    app.include_router(openai_batches.v1)
    app.include_router(anthropic_routes.v1)
    app.include_router(mcp_routes.router)
    app.include_router(router)
    app.include_router(pages.router)
    if settings.page:
        features = Features(
            keys=bool(settings.keys),
            jobs=settings.store is not None,
            stored_traces=settings.stored_traces,
            learning=settings.learning_dir is not None,
        )
        app.include_router(make_router(Page(features, app.openapi)))
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_body_bytes,
        others={"/v1/batch": settings.max_batch_bytes, "/v1/files": settings.max_file_bytes + FORM_BYTES},
    )
    if settings.max_programs_per_key is not None:
        app.add_middleware(RateLimits, admission=admission, limit=settings.max_programs_per_key)
    app.add_middleware(OriginGuard, hosts=settings.hosts, origins=settings.page_origins, open_paths=POLLED)
    app.add_middleware(RequestContext, on_finished=finished)
    if settings.cors_origins:
        app.add_middleware(Cors, origins=settings.cors_origins, methods=methods_of(app.routes))
    if tracer is not None:
        app.add_middleware(RequestTrace, tracer=tracer, untraced=POLLED)
    return app
