"""The service before remote servers, behind a proxy on whose far side everything goes wrong."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import pytest

from service.engines.base import Sample
from service.engines.remote import probes
from service.engines.remote.connect import Tokenizers, connect
from service.engines.remote.replica import Replica
from service.engines.remote.replicas import ReplicatedEngine
from service.engines.scripted import Script
from service.engines.served import ServedEngine
from tests.support.serving import Served, frames, serving

FAULTS = ("500", "hang", "reset", "half", "nonsense")
PROBLEMS = {"engine_unavailable", "deadline_exceeded"}


@pytest.fixture(autouse=True)
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hangs is not one that loads its model."""
    monkeypatch.setattr(probes, "LOAD_SECONDS", 5.0)
    monkeypatch.setattr(probes, "PROBE_SECONDS", 5.0)


class CountingEngine(ReplicatedEngine):
    """Counts the calls that are made for the first time, and those that are made again."""

    def __init__(self, model: str, replicas: Sequence[Replica]) -> None:
        super().__init__(model, replicas)
        self.attempts = Counter[bool]()

    def pick(self, key: str, failed: Sequence[Replica]) -> Replica:
        self.attempts[bool(failed)] += 1
        return super().pick(key, failed)


@dataclass
class FaultProxy:
    """Hands requests on to a server, one a connection; ``rate`` of them meet a fault instead."""

    upstream: int
    rate: float = 0.0
    faults: Sequence[str] = FAULTS
    met: Counter[str] = field(default_factory=Counter)
    _serving: set[asyncio.Task[None]] = field(default_factory=set)
    _draws: random.Random = field(default_factory=lambda: random.Random(1))

    async def close(self) -> None:
        """End what is under way."""
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        try:
            fault = self._draws.choice(self.faults) if self._draws.random() < self.rate else None
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [
                line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
            ]
            body = await reader.readexactly(int(lengths[0])) if lengths else b""
            if fault:
                self.met[fault] += 1
            match fault:
                case "429":
                    writer.write(
                        b"HTTP/1.1 429 Slow\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                    )
                case "500":
                    writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops")
                case "hang":
                    await reader.read()  # until the client has had enough
                case "reset":
                    writer.transport.abort()
                case "nonsense":
                    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\nConnection: close\r\n\r\n{"choices": [')
                case "half":
                    answer = await self._answer(head, body)
                    writer.write(answer[: len(answer) // 2])
                case _:
                    writer.write(await self._answer(head, body))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            await closed(writer)

    async def _answer(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        try:
            first, rest = head.split(b"\r\n", 1)
            kept = [line for line in rest.split(b"\r\n") if line and not line.lower().startswith(b"connection")]
            writer.write(b"\r\n".join([first, *kept, b"Connection: close", b"", b""]) + body)
            return await reader.read()
        finally:
            await closed(writer)


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@dataclass
class Stage:
    front: Served
    proxies: Sequence[FaultProxy]
    engine: CountingEngine


@asynccontextmanager
async def stage(script: Script | None = None) -> AsyncIterator[Stage]:
    """Two servers with OpenAI's API, whose engines follow the script, each behind a proxy, and the service before
    them."""
    engines: list[CountingEngine] = []
    async with AsyncExitStack() as stack:
        proxies, urls = [], []
        for _ in range(2):
            server = await stack.enter_async_context(serving(script))
            proxy = FaultProxy(server.client.base_url.port or 0)
            stack.push_async_callback(proxy.close)
            listener = await stack.enter_async_context(await asyncio.start_server(proxy.serve, "127.0.0.1", 0))
            proxies.append(proxy)
            urls.append(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1")

        async def start(*_: object) -> ServedEngine:
            connect_here = partial(connect, model="scripted", tokenizers=Tokenizers())
            engine = await CountingEngine.start("scripted", {url: partial(connect_here, url) for url in urls})
            engines.append(engine)
            return engine

        front = await stack.enter_async_context(serving(start=start))
        async with asyncio.timeout(30):
            while (await front.client.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.05)
        yield Stage(front, proxies, engines[0])


async def refined(stage: Stage, number: int, seconds: float = 8) -> str:
    """How a program ended: its stop reason, or the code of its problem."""
    body = {
        "prompt": f"Write about the sea, {number}.",
        "evaluators": [{"type": "keywords", "include": ["pepper"]}],
        "search": {"rounds": 2, "critic": "model"},
        "budget": {"seconds": seconds},
    }
    response = await stage.front.post("/v1/refine", body, timeout=90)
    told = response.json()
    assert response.status_code == (200 if "text" in told else told["status"])
    return str(told["stop_reason"] if "text" in told else told["code"])


@pytest.mark.timeout(120)
async def test_programs_end_with_a_text_or_a_typed_problem_whatever_the_servers_do() -> None:
    async with stage() as running:
        for proxy in running.proxies:
            proxy.rate = 0.2
        ends = Counter(await asyncio.gather(*(refined(running, number) for number in range(60))))
        attempts = running.engine.attempts.copy()
        met = Counter[str]()
        for proxy in running.proxies:
            met += proxy.met
            proxy.rate = 0.0
        async with asyncio.timeout(60):  # it takes a few seconds; only a fault that stays takes longer
            while not all(replica.up for replica in running.engine.replicas):
                await asyncio.sleep(0.05)
            after = Counter(await asyncio.gather(*(refined(running, 1000 + number) for number in range(20))))

    assert set(met) == set(FAULTS)
    assert sum(ends.values()) == 60
    assert sum(ends[problem] for problem in PROBLEMS) < 20, ends
    assert set(ends) <= {"rounds", "patience", "fixpoint", "engine_failed", "deadline", *PROBLEMS}, ends
    assert attempts[True] <= 0.1 * attempts[False] + 30, attempts  # saved up before, and overdrawn at the end
    assert set(after) <= {"rounds", "patience", "fixpoint"}, after


COUNTED = " ".join(f"wave{number}" for number in range(200))


def counted(call: Sample) -> str:
    """Short where a server is asked how it begins, so that its streams need not be held back to find out."""
    return "No." if call.prompt == "Say no." else COUNTED


async def streamed(stage: Stage, number: int) -> tuple[str, str]:
    """How a stream ended, and the text that it brought."""
    body = {"prompt": f"Count the waves, {number}.", "sampling": {"max_tokens": 300}, "stream": True}
    async with stage.front.client.stream("POST", "/v1/generate", json=body, timeout=60) as response:
        if response.status_code != 200:
            await response.aread()
            return str(response.json()["code"]), ""
        told = [frame async for frame in frames(response)]
    text = "".join(data["text"] for name, data in told if name == "delta")
    name, last = told[-1]
    return str(last["code"] if name == "error" else last["choices"][0]["finish_reason"]), text


@pytest.mark.timeout(120)
async def test_a_stream_ends_whole_or_with_a_typed_error_and_says_nothing_twice() -> None:
    async with stage(Script(reply=counted)) as running:
        for proxy in running.proxies:
            proxy.rate, proxy.faults = 1.0, ["half"]
        alone = await streamed(running, 0)  # no other failure keeps it from beginning
        for proxy in running.proxies:
            proxy.rate, proxy.faults = 0.4, ["500", "reset", "half", "nonsense"]
        ended = [alone, *await asyncio.gather(*(streamed(running, number) for number in range(1, 41)))]
        halves = sum(proxy.met["half"] for proxy in running.proxies)

    assert halves
    assert {text for end, text in ended if end == "stop"} == {COUNTED}
    assert {end for end, _ in ended} <= {"stop", "engine_failed", *PROBLEMS}
    assert all(not text for end, text in ended if end in PROBLEMS)
    broken = [text for end, text in ended if end == "engine_failed"]
    assert broken, "no stream broke off after it had begun"
    assert all(COUNTED.startswith(text) and text != COUNTED for text in broken)


@pytest.mark.timeout(120)
async def test_servers_that_are_busy_now_and_then_lose_no_program_and_cost_no_retries() -> None:
    async with stage() as running:
        for proxy in running.proxies:
            proxy.rate, proxy.faults = 0.05, ["429"]
        ends = Counter(await asyncio.gather(*(refined(running, number, seconds=60) for number in range(12))))
        assert all(replica.up for replica in running.engine.replicas if replica.engine)

    assert sum((proxy.met for proxy in running.proxies), Counter[str]())["429"] > 0
    assert set(ends) <= {"rounds", "patience", "fixpoint"}, ends
    assert not running.engine.attempts[True]


async def test_a_server_that_is_gone_loses_no_program() -> None:
    async with stage() as running:
        programs = [asyncio.ensure_future(refined(running, number)) for number in range(50)]
        await asyncio.sleep(0.1)
        assert not all(program.done() for program in programs)
        running.proxies[0].rate, running.proxies[0].faults = 1.0, ["reset"]
        ends = Counter([await program for program in programs])

    assert sum(ends.values()) == 50
    assert set(ends) <= {"rounds", "patience", "fixpoint", "deadline"}, ends
