"""The server under test, and what its process has cost so far."""

import multiprocessing
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

from bench.harness.servers import redraft

PROBE_SECONDS = 0.02
IDLE_SECONDS = 3.0


@dataclass(frozen=True)
class Cost:
    """CPU seconds of the event loop's thread and of the whole process; ``peak``: bytes of memory at most."""

    loop_seconds: float
    process_seconds: float
    resident: int
    peak: int


@dataclass(frozen=True)
class Idle:
    """The longest answer of /health/live in seconds, and the CPU seconds of the loop's thread for one."""

    longest: float
    loop_seconds: float


@dataclass(frozen=True)
class MeasuredServer:
    host: str
    port: int
    pid: int
    prober: "Prober"

    def cost(self) -> Cost:
        folder = Path(f"/proc/{self.pid}")
        loop = int((folder / "task" / str(self.pid) / "schedstat").read_text().split()[0])
        threads = sum(int((task / "schedstat").read_text().split()[0]) for task in (folder / "task").iterdir())
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        kibibytes = {name: int(status[name].split()[0]) for name in ("VmRSS", "VmHWM")}
        return Cost(loop / 1e9, threads / 1e9, kibibytes["VmRSS"] << 10, kibibytes["VmHWM"] << 10)

    def forget_peak(self) -> None:
        """Let the peak be what is resident now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def idle(self) -> Idle:
        """What /health/live takes while nothing else runs."""
        before = self.cost()
        with self.prober.probing() as probe:
            time.sleep(IDLE_SECONDS)
        return Idle(probe.longest, (self.cost().loop_seconds - before.loop_seconds) / probe.answers)


@dataclass
class Probe:
    """Once the probing is over: the longest answer in seconds, and how many there were."""

    longest: float = 0.0
    answers: int = 0


class Prober:
    """Asks /health/live every 20 ms, in another process, so that nothing here delays it."""

    def __init__(self, host: str, port: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=_probe, args=(host, port, far), daemon=True)
        self._process.start()

    @contextmanager
    def probing(self) -> Iterator[Probe]:
        probe = Probe()
        self._pipe.send("begin")
        self._pipe.recv()
        try:
            yield probe
        finally:
            self._pipe.send("end")
            probe.longest, probe.answers = self._pipe.recv()

    def close(self) -> None:
        self._process.terminate()
        self._process.join()


def _probe(host: str, port: int, pipe: "Connection[object, object]") -> None:
    while pipe.recv() == "begin":
        pipe.send("begun")
        longest, answers = 0.0, 0
        while not pipe.poll(PROBE_SECONDS):
            begun = time.perf_counter()
            connection = HTTPConnection(host, port, timeout=120)
            connection.request("GET", "/health/live")
            connection.getresponse().read()
            connection.close()
            longest, answers = max(longest, time.perf_counter() - begun), answers + 1
        pipe.recv()
        pipe.send((longest, answers))


@asynccontextmanager
async def serve_scripted() -> AsyncGenerator[MeasuredServer, None]:
    """A server with the scripted engine, ready to be measured."""
    async with redraft({"REDRAFT_ENGINE": "scripted"}, "bench.scenarios.cost") as server:
        address = urlsplit(server.url)
        host, port = address.hostname or "", address.port or 0
        prober = Prober(host, port)
        try:
            yield MeasuredServer(host, port, server.process.pid, prober)
        finally:
            prober.close()
