"""The real engine's suite: one vLLM engine with the embedded model, started once, under the real app over HTTP."""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import uvicorn

from bench.harness.servers import Server, plain_vllm
from service.app import create_app, open_toolbox
from service.engines.base import PLAINLY, Call, Choose, Completion, EngineDecorator, Piece, R, Reading, Sample
from service.engines.conversation import Conversation
from service.engines.local import bundled
from service.engines.local.vllm import VllmEngine
from service.engines.remote.connect import Tokenizers
from service.engines.served import ServedEngine
from service.fleet import start_engine
from service.settings import Settings


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs the engine, and shares the one event loop that it lives in."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.engine)
            item.add_marker(pytest.mark.timeout(300))
            if pytest_asyncio.is_async_test(item):
                item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@dataclass(frozen=True)
class Prompt:
    """The ids that one engine request began with, and those that it ended with."""

    ids: tuple[int, ...]
    replied: tuple[int, ...] = ()


@dataclass(frozen=True)
class RecordingEngine(EngineDecorator):
    """The real engine, with a record of every prompt in order of submission."""

    engine: VllmEngine
    prompts: list[Prompt] = field(default_factory=list)

    async def call(self, call: Call[R], *, priority: int = 0) -> R:
        result = await super().call(call, priority=priority)
        match call, result:
            case Sample(), Completion():
                self._record(call.conversation, "", result.token_ids or ())
            case Choose(), _:
                self._record(call.conversation, call.prefill, ())
        return result

    async def stream(
        self, sample: Sample, *, priority: int = 0, reading: Reading = PLAINLY
    ) -> AsyncGenerator[Piece, None]:
        async with aclosing(super().stream(sample, priority=priority, reading=reading)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Completion):
                    self._record(sample.conversation, "", piece.token_ids or ())
                yield piece

    async def close(self) -> None:
        await self.engine.close()

    def _record(self, conversation: Conversation, prefill: str, replied: tuple[int, ...]) -> None:
        self.prompts.append(Prompt(tuple(self.engine.prompt_ids(conversation, prefill)), replied))


SMALL_CACHE = {"VLLM_CPU_KVCACHE_SPACE": "1"}
"""The environment of a server of few requests, with a gigabyte."""

UNCOUNTED: Mapping[str, Any] = {"disable_log_stats": True}
"""Arguments of other engines in this process. Their series would take the place of those of the service's engine."""


@dataclass(frozen=True)
class Service:
    """The running app: a client for it, and the engine inside."""

    client: httpx.AsyncClient
    engine: RecordingEngine

    async def engine_series(self) -> dict[str, float]:
        """The engine's own series without labels, by name; values of several labels are added."""
        page = (await self.client.get("/metrics")).text
        series: dict[str, float] = {}
        for name, value in re.findall(r"^(vllm:\w+)(?:\{.*\})? (\S+)$", page, re.MULTILINE):
            series[name] = series.get(name, 0.0) + float(value)
        return series

    def unfinished(self) -> int:
        """Requests that vLLM has been handed, and has neither finished nor been told to give up."""
        llm: Any = self.engine.engine.backend
        count: int = llm.output_processor.get_num_unfinished_requests()
        return count

    async def in_flight(self) -> float:
        """Requests that the engine runs or holds waiting, by its own gauges."""
        series = await self.engine_series()
        return series["vllm:num_requests_running"] + series["vllm:num_requests_waiting"]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def service() -> AsyncGenerator[Service, None]:
    started: asyncio.Future[RecordingEngine] = asyncio.get_running_loop().create_future()

    async def start(settings: Settings, tokenizers: Tokenizers) -> ServedEngine:
        vllm = await start_engine(settings, tokenizers)
        assert isinstance(vllm, VllmEngine)
        recording = RecordingEngine(vllm)
        started.set_result(recording)
        return recording

    def failed(error: BaseException) -> None:
        if not started.done():
            started.set_exception(error)

    settings = Settings(max_programs=256, judge_check=False)  # no calls but those of the tests
    app = create_app(settings, tools=await open_toolbox(settings), start=start, on_failure=failed)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    serving = asyncio.ensure_future(server.serve())
    engine = await started
    port = server.servers[0].sockets[0].getsockname()[1]
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=240, limits=limits) as client:
        yield Service(client, engine)
    server.should_exit = True
    await serving


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server() -> AsyncGenerator[Server, None]:
    """vLLM's own server, in a process of its own."""
    checkpoint = await asyncio.to_thread(bundled.prepare)
    async with plain_vllm(checkpoint, SMALL_CACHE, ["--enable-prompt-tokens-details"]) as running:
        yield running


@pytest.fixture
def engine(service: Service) -> VllmEngine:
    return service.engine.engine
