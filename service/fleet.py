"""The engines of all models: how they are started, and their lives from the start of their loading to their end."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from service.engines.local import bundled
from service.engines.local.vllm import VllmEngine
from service.engines.remote.connect import Tokenizers, connect
from service.engines.remote.replicas import ReplicatedEngine
from service.engines.scripted import ScriptedEngine
from service.engines.served import Adaptable, DeferredEngine, EngineMisconfigured, ServedEngine
from service.errors import EngineDead, EngineUnavailable, ModelNotFound, Starting
from service.learning.launching import Launcher
from service.learning.registry import Registry
from service.learning.serving import LearnedModel, make_room
from service.learning.trying import Listeners
from service.models import Adapter, RemoteModel, Servers
from service.refinement.steps import warm
from service.settings import Settings

log = logging.getLogger(__name__)

StartEngine = Callable[[Settings, Tokenizers], Awaitable[ServedEngine]]
"""Starts the main model's engine; a tokenizer is loaded through the Tokenizers that it is given."""


class EngineLifetime:
    """A model's engine from the start of its loading to its end. Loading goes on while the app answers already.

    ``on_ready`` is awaited once the engine serves, and ``on_failure`` is called with the reason if it never will.
    """

    def __init__(
        self,
        model: str,
        start: Callable[[], Awaitable[ServedEngine]],
        on_failure: Callable[[BaseException], None],
        on_ready: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._model = model
        self._start = start
        self._on_failure = on_failure
        self._on_ready = on_ready
        self._loading: asyncio.Future[ServedEngine] | None = None
        self._joining: DeferredEngine | None = None

    async def __aenter__(self) -> "EngineLifetime":
        self._loading = asyncio.ensure_future(self._load())
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
        """The engine once it serves.

        Raises Starting before that, EngineUnavailable where it is known why its servers do not serve yet, and
        EngineDead if it could not be started.
        """
        if self._loading is None or not self._loading.done():
            if self._joining is not None and (missing := self._joining.missing):
                raise EngineUnavailable(f"the engine of {self._model} cannot serve: {missing}")
            raise Starting(f"the engine of {self._model} is still loading", retry_after=5)
        if self._loading.cancelled() or self._loading.exception() is not None:
            raise EngineDead(f"the engine of {self._model} could not be started")
        return self._loading.result()

    async def loaded(self) -> ServedEngine:
        """Wait for the engine. EngineDead if it could not be started."""
        if self._loading is None:
            raise RuntimeError("loading begins when the lifetime is entered")
        await asyncio.wait([self._loading])
        return self.engine()

    async def _load(self) -> ServedEngine:
        engine = await self._start()
        try:
            if isinstance(engine, DeferredEngine):
                self._joining = engine
                await engine.wait_until_serving()
            if self._on_ready is not None:
                await self._on_ready()
        except BaseException:
            await engine.close()
            raise
        return engine

    def _loaded(self, loading: asyncio.Future[ServedEngine]) -> None:
        if loading.cancelled() or (error := loading.exception()) is None:
            return
        expected = isinstance(error, EngineMisconfigured)
        extra = {"model": self._model, "reason": str(error)}  # nobody's text: no request has been served
        log.error("the engine could not be started", extra=extra, exc_info=None if expected else error)
        self._on_failure(error)


class Fleet:
    """The engines by the names of their models, each with its own lifetime; they start side by side. The first is the
    last to be closed: others may be views of it. ``learned``: the model that learns, a view of the first too."""

    def __init__(self, lifetimes: Mapping[str, EngineLifetime], learned: LearnedModel | None = None) -> None:
        self._lifetimes = lifetimes
        self._learned = learned
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Fleet":
        for lifetime in self._lifetimes.values():
            await self._stack.enter_async_context(lifetime)
        if self._learned is not None:
            main, *_ = self._lifetimes.values()
            await self._stack.enter_async_context(self._learned.follow(main.loaded, main.engine))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def engine(self, model: str) -> ServedEngine:
        """The engine of a model, or of the adapter of that name.

        Raises what its lifetime raises while there is none, and ModelNotFound for an adapter that is gone, or for a
        model that was there before a restart.
        """
        if model in self._lifetimes:
            return self._lifetimes[model].engine()
        if self._learned is None:
            raise ModelNotFound(f"there is no model {model} any more")
        return self._learned.engine(model)

    async def loaded(self, model: str) -> ServedEngine:
        """Wait for the engine of a model. EngineDead if it could not be started."""
        return await self._lifetimes[model].loaded()


async def start_engine(settings: Settings, tokenizers: Tokenizers | None = None) -> ServedEngine:
    """Start the main model's engine; one in this process is warmed, and the log tells what took how long."""
    if settings.engine == "scripted":
        return ScriptedEngine(model=settings.model_name)
    tokenizers = tokenizers or Tokenizers()
    if settings.engine == "openai":
        return await start_remote(settings.model_name, settings.servers, tokenizers)
    clock = time.perf_counter
    begun = clock()
    async with tokenizers.importing:
        model = settings.model
        if model == "bundled":
            model = str(await asyncio.to_thread(bundled.prepare))
        prepared = clock()
        room = make_room(Registry(settings.learning_dir)) if settings.learning_dir else None
        engine = await VllmEngine.start(
            model, settings.model_name, settings.engine_args, settings.adapters, settings.thinking, room
        )
    started = clock()
    try:
        await warm(engine)
    except BaseException:
        await engine.close()
        raise
    seconds = {"weights": prepared - begun, "engine": started - prepared, "warm_up": clock() - started}
    log.info("engine ready", extra={"seconds": {phase: round(spent, 1) for phase, spent in seconds.items()}})
    return engine


async def start_remote(
    name: str, servers: Servers, tokenizers: Tokenizers, kind: type[ReplicatedEngine] = ReplicatedEngine
) -> ReplicatedEngine:
    """The engine on the model's servers, which need not serve yet."""
    connect_to = partial(
        connect,
        model=servers.model,
        tokenizers=tokenizers,
        key=servers.key,
        tokenizer=servers.tokenizer,
        thinking=servers.thinking,
    )
    return kind.open(name, {url: partial(connect_to, url) for url in servers.urls})


async def start_adapter(name: str, stated: Adapter, main: EngineLifetime) -> ServedEngine:
    """Load an adapter once the main model serves."""
    engine = await main.loaded()
    if not isinstance(engine, Adaptable):
        raise TypeError("only the engine in this process takes adapters")
    return await engine.load_adapter(name, stated.adapter)


def make_fleet(
    settings: Settings,
    start: StartEngine,
    on_failure: Callable[[BaseException], None],
    on_ready: Callable[[], Awaitable[None]] | None = None,
    learned: LearnedModel | None = None,
) -> Fleet:
    """The engines that the settings name. ``on_ready`` is for the main model's."""
    tokenizers = Tokenizers()
    main = EngineLifetime(settings.model_name, lambda: start(settings, tokenizers), on_failure, on_ready)
    lifetimes = {settings.model_name: main}
    for name, stated in settings.models.items():
        starting: Callable[[], Awaitable[ServedEngine]]
        if isinstance(stated, Adapter):
            starting = partial(start_adapter, name, stated, main)
        else:
            starting = partial(start_remote, name, stated.servers(name), tokenizers)
        lifetimes[name] = EngineLifetime(name, starting, on_failure)
    return Fleet(lifetimes, learned)


def make_learned(
    settings: Settings,
    on_change: Callable[[str], None] = lambda model: None,
    on_trials: Callable[[Mapping[str, int]], None] = lambda wins: None,
    on_verdict: Callable[[str], None] = lambda verdict: None,
) -> LearnedModel | None:
    """The model that learns in the folder that the settings name; None if they name none. For what is called when, see
    LearnedModel."""
    if settings.learning_dir is None:
        return None
    registry = Registry(settings.learning_dir)

    def find_weights() -> Path | None:
        found = weights_of(settings, settings.model_name)
        return None if isinstance(found, str) else found[0]

    return LearnedModel(
        registry, settings.model_name, make_room(registry), find_weights, on_change, Listeners(on_trials, on_verdict)
    )


def make_launcher(settings: Settings) -> Launcher | None:
    """What starts runs of learning in the folder that the settings name; None if they name none."""
    return None if settings.learning_dir is None else Launcher(settings.learning_dir)


def weights_of(settings: Settings, model: str) -> Sequence[Path] | str:
    """Where a model's weights are, once it serves: the folders of the model and its adapter, or for a remote model, or
    one whose folder cannot be found, its address in words."""
    stated = settings.models.get(model)
    if isinstance(stated, RemoteModel):
        return _address(stated.servers(model))
    if settings.engine != "vllm":
        return _address(settings.servers) if settings.engine == "openai" else settings.model_name
    base = _folder_of(settings.model)
    if base is None:
        return f"{settings.model} {stated.adapter}" if isinstance(stated, Adapter) else settings.model
    return [base, stated.adapter] if isinstance(stated, Adapter) else [base]


def _address(servers: Servers) -> str:
    return f"{servers.model} {' '.join(sorted(servers.urls))}"


def _folder_of(model: str) -> Path | None:
    """The folder of the model in this process; for one of the hub, where it was downloaded to."""
    if model == "bundled":
        return bundled.checkpoint()
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download  # imported by vLLM already, where a model is on the hub

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except (OSError, ValueError):
        return None
