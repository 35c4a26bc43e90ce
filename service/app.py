"""The application: everything is made here and wired here. The only place that knows all the others."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from service.api import openai_routes, problems
from service.api.admission import Admission
from service.api.auth import Keys
from service.api.body import add_schemas
from service.api.desk import Desk
from service.api.middleware import BodyLimit, RequestContext, RequestRecord
from service.api.openai import ChatRequest
from service.api.programs import Bounds, Programs
from service.api.requests import CritiqueRequest, GenerateRequest, RefineRequest
from service.api.routes import router, v1
from service.engines import bundled, openai
from service.engines.replicas import ReplicatedEngine
from service.engines.scripted import ScriptedEngine
from service.engines.served import ServedEngine
from service.engines.vllm import VllmEngine
from service.errors import EngineDead, Starting
from service.evaluators.embedding import Embedder
from service.evaluators.plugins import load_plugins
from service.evaluators.sandbox import Sandbox
from service.evaluators.toolbox import Toolbox
from service.evaluators.webhook_client import Webhooks
from service.metrics import Metrics
from service.refinement.steps import warm
from service.settings import Settings
from service.tasks.task import load_rubrics, load_tasks

log = logging.getLogger(__name__)


POLLED = ("/health/live", "/health/ready", "/metrics")
"""Routes that machines ask for again and again: logged at debug only."""

StartEngine = Callable[[Settings], Awaitable[ServedEngine]]


class EngineLifetime:
    """The engine from the start of its loading to its end. Loading goes on beside the app, which answers meanwhile."""

    def __init__(
        self, start: Callable[[], Awaitable[ServedEngine]], on_failure: Callable[[BaseException], None]
    ) -> None:
        self._start = start
        self._on_failure = on_failure
        self._loading: asyncio.Future[ServedEngine] | None = None

    async def __aenter__(self) -> "EngineLifetime":
        self._loading = asyncio.ensure_future(self._start())
        self._loading.add_done_callback(self._loaded)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._loading is None:
            return
        self._loading.cancel()
        await asyncio.wait([self._loading])
        if not self._loading.cancelled() and self._loading.exception() is None:
            await self._loading.result().close()

    def engine(self) -> ServedEngine:
        """The engine once it serves. Raises Starting before that, and EngineDead if it could not be started."""
        if self._loading is None or not self._loading.done():
            raise Starting("the engine is still loading", retry_after=5)
        if self._loading.cancelled() or self._loading.exception() is not None:
            raise EngineDead("the engine could not be started")
        return self._loading.result()

    def _loaded(self, loading: asyncio.Future[ServedEngine]) -> None:
        if not loading.cancelled() and (error := loading.exception()) is not None:
            log.error("the engine could not be started", exc_info=error)
            self._on_failure(error)


async def start_engine(settings: Settings) -> ServedEngine:
    """Start the engine that the settings name; one in this process is warmed, and the log tells what took how long."""
    if settings.engine == "scripted":
        return ScriptedEngine(model=model_name(settings))
    if settings.engine == "openai":
        return await start_remote(settings)
    clock = time.perf_counter
    begun = clock()
    model = settings.model
    if model == "bundled":
        model = str(await asyncio.to_thread(bundled.prepare))
    prepared = clock()
    engine = await VllmEngine.start(model, model_name(settings), settings.engine_args)
    started = clock()
    try:
        await warm(engine)
    except BaseException:
        await engine.close()
        raise
    seconds = {"weights": prepared - begun, "engine": started - prepared, "warm_up": clock() - started}
    log.info("engine ready", extra={"seconds": {phase: round(spent, 1) for phase, spent in seconds.items()}})
    return engine


async def start_remote(settings: Settings, kind: type[ReplicatedEngine] = ReplicatedEngine) -> ReplicatedEngine:
    """Wait until one of the remote servers serves."""
    connect = partial(
        openai.connect,
        model=settings.model,
        tokenizers=openai.Tokenizers(),
        key=settings.engine_key,
        tokenizer=settings.tokenizer,
    )
    return await kind.start(settings.model, {url: partial(connect, url) for url in settings.servers})


def model_name(settings: Settings) -> str:
    """The name by which requests and answers call the served model."""
    if settings.engine == "scripted":
        return "scripted"
    if settings.model == "bundled":
        return bundled.NAME
    if settings.engine == "openai":
        return settings.model
    path = Path(settings.model)
    return path.name if path.is_dir() else settings.model


async def open_toolbox(settings: Settings) -> Toolbox:
    """What evaluators may need, as far as this machine and the settings have it.

    WebhookMisconfigured or PluginError where what the operator has set up cannot work.
    """
    return Toolbox(
        sandbox=await Sandbox.found(),
        embedder=Embedder.found(),
        webhooks=Webhooks(settings.webhooks, settings.webhook_hosts),
        plugins=load_plugins(),
    )


def create_app(
    settings: Settings,
    *,
    tools: Toolbox | None = None,
    start: StartEngine = start_engine,
    on_failure: Callable[[BaseException], None] = lambda error: None,
) -> FastAPI:
    """The service as an ASGI app. ``tools`` are closed with it, and ``on_failure`` is told why, should the engine fail
    to start."""
    metrics = Metrics()
    admission = Admission(
        settings.max_programs, settings.max_queued, settings.max_programs_per_key, on_shed=metrics.request_shed
    )
    metrics.watch_admission(lambda: admission.in_progress, lambda: admission.queued)
    tools = tools or Toolbox()
    rubrics = load_rubrics(settings.tasks_dir)
    tasks = load_tasks(settings.tasks_dir, rubrics=rubrics, tools=tools)
    model = model_name(settings)
    bounds = Bounds(settings.max_candidates, settings.max_rounds, settings.max_tokens, settings.max_seconds)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(tools.close)
            lifetime = await stack.enter_async_context(EngineLifetime(lambda: start(settings), on_failure))
            yield {
                "desk": Desk(
                    engine=lifetime.engine,
                    admission=admission,
                    keys=Keys(settings.keys),
                    metrics=metrics,
                    programs=Programs(tasks, bounds, model, rubrics, tools),
                    tasks=tasks,
                    model=model,
                )
            }

    def finished(record: RequestRecord) -> None:
        metrics.request_ended(record.endpoint, record.status, record.seconds)
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

    app = FastAPI(
        title="Redraft",
        summary="Drafts, critiques and refines text with a language model until it is good enough.",
        version="1",
        lifespan=lifespan,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.state.admission = admission  # for whoever drains the app
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(RequestContext, on_finished=finished)
    problems.install(app)
    app.include_router(v1)
    app.include_router(openai_routes.v1)
    app.include_router(router)
    add_schemas(app, [GenerateRequest, CritiqueRequest, RefineRequest, ChatRequest])
    return app
