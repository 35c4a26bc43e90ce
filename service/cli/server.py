"""The server's process: its signals, its drain, its open files, its log and what it says to the terminal."""

import asyncio
import gc
import logging
import resource
import signal
import time
from socket import socket
from types import FrameType

import uvicorn

from service.api.connection import Connection
from service.app import create_app
from service.cli.standard_streams import say
from service.engines.local import bundled
from service.engines.remote.connect import Tokenizers
from service.engines.served import ServedEngine
from service.evaluators.toolbox import Toolbox
from service.fleet import StartEngine
from service.log_format import LineFormatter, keep_first_line
from service.programs.admission import Admission
from service.settings import Settings
from service.spans import current

log = logging.getLogger("service")

OTHER_FILES = 512
"""Files that may be open in addition to the clients' connections: those of engines, webhooks, sandboxes and logs."""

LAST_WORDS_SECONDS = 1.0
"""How long requests that are cut off at the end of the process may take to say so."""


class Server(uvicorn.Server):
    """Uvicorn, except that the first SIGTERM or SIGINT drains: new requests are rejected, and running ones may finish.

    The sockets stay open meanwhile, so that readiness answers 503 and clients a problem that says so. A second
    signal no longer waits for what runs.
    """

    def __init__(self, settings: Settings, tools: Toolbox, start: StartEngine) -> None:
        self.engine_failed = False
        self._settings = settings
        self._start = start
        self._begun = time.perf_counter()
        app = create_app(
            settings, tools=tools, start=self._start_engine, on_failure=self._give_up, on_ready=self._tell_ready
        )
        app.openapi()  # no request has to wait until it is made
        self._admission: Admission = app.state.admission
        self._app = app
        self._drain: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                log_config=None,
                access_log=False,
                server_header=False,
                http=Connection,
                ws="none",
                limit_concurrency=settings.max_connections,
                timeout_graceful_shutdown=5,
            )
        )

    async def startup(self, sockets: list[socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._listening.set()

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Shut down as uvicorn does, which cancels what is left after some seconds, but let that answer first."""
        await super().shutdown(sockets)
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=LAST_WORDS_SECONDS)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._drain is None and self.started:
            self._loop.call_soon_threadsafe(self._begin_drain, signal.Signals(sig).name)
        else:
            super().handle_exit(sig, frame)

    def _begin_drain(self, signal_name: str) -> None:
        if self._drain is None:
            self._drain = asyncio.ensure_future(self._drained(signal_name))

    async def _drained(self, signal_name: str) -> None:
        self._admission.drain()
        waiting = self._admission.in_progress + self._admission.queued
        log.info("draining", extra={"signal": signal_name, "requests": waiting})
        if (jobs := self._app.state.jobs) is not None:  # another replica goes on with them, or the next start
            await jobs.worker.hand_over()
        if (batches := self._app.state.batches) is not None:
            await batches.keeper.hand_over()
        try:
            await asyncio.wait_for(self._admission.idle(), self._settings.drain_seconds)
        except TimeoutError:
            log.warning("requests were cut off", extra={"requests": self._admission.in_progress})
        self.should_exit = True

    async def _start_engine(self, settings: Settings, tokenizers: Tokenizers) -> ServedEngine:
        if settings.engine == "vllm" and settings.model == "bundled" and not bundled.is_prepared():
            say("Converting the embedded model. This happens once and takes about 20 seconds.")
        if settings.engine == "vllm":
            say(f"Starting the engine with {settings.model_name}. On two CPU cores that takes about 30 seconds.")
        return await self._start(settings, tokenizers)

    async def _tell_ready(self) -> None:
        await self._listening.wait()
        _spare_collections()
        say(f"Ready after {time.perf_counter() - self._begun:.0f} seconds. Try it:\n\n{self._example()}\n")

    def _example(self) -> str:
        host = "127.0.0.1" if self._settings.host in ("0.0.0.0", "::") else self._settings.host  # noqa: S104 - no bind
        port = self.servers[0].sockets[0].getsockname()[1]
        key = " -H 'Authorization: Bearer YOUR-KEY'" if self._settings.keys else ""
        return (
            f"  curl http://{host}:{port}/v1/refine{key} -H 'Content-Type: application/json' -d '{{\n"
            '    "prompt": "Describe a sunrise over the sea.",\n'
            '    "evaluators": [{"type": "length", "unit": "words", "max": 30}]}\''
        )

    def _give_up(self, error: BaseException) -> None:
        if not self.engine_failed:  # what else fails may have waited for this engine
            say(f"The engine could not be started: {error}")
        self.engine_failed = True
        self.should_exit = True


def allow_open_files(count: int) -> None:
    """Raise the limit of open files to ``count``, as far as the process may: each connection is a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _spare_collections() -> None:
    """Make the garbage collector interrupt requests less.

    Objects that exist by now stay for good, so they are never searched again. Others are searched more rarely.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000)


def configure_logging(level: str) -> None:
    """Log one JSON object per line to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    handler.addFilter(keep_first_line)
    handler.addFilter(_note_trace)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for noisy in ("httpx", "httpcore", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _note_trace(record: logging.LogRecord) -> bool:
    """Add the ids of the current span to a log line."""
    vars(record).update(current().ids)
    return True
