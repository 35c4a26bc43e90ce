"""Servers under test, each in its own process on loopback: Redraft, and a plain vLLM server set the same way."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from service.engines.local.loading import dtype_of_this_cpu
from service.engines.local.vllm import ENVIRONMENT

START_SECONDS = 300.0
STOP_SECONDS = 30.0
ROOT = Path(__file__).parents[2]

ENGINE_ENVIRONMENT: Mapping[str, str] = {**ENVIRONMENT, "VLLM_CPU_KVCACHE_SPACE": "3", "HF_HUB_OFFLINE": "1"}
"""What Redraft sets, for every server alike. A cache of 3 GiB holds 32 programs of 2,048 prompt tokens."""

ENGINE_ARGUMENTS: Sequence[str] = (
    *("--max-model-len", "8192"),
    *("--max-num-batched-tokens", "8192"),
    *("--max-num-seqs", "64"),
    *("--block-size", "32"),
    "--enforce-eager",
    "--no-enable-chunked-prefill",
    "--enable-prefix-caching",
    *("--scheduling-policy", "priority"),
    *("--structured-outputs-config", '{"backend": "guidance", "disable_any_whitespace": true}'),
)
"""What Redraft chooses on a CPU, for the plain server: both then have the same engine configuration."""


@dataclass(frozen=True)
class Server:
    """A server that answers. ``url`` has no slash at its end."""

    url: str
    process: psutil.Process

    async def counters(self) -> Mapping[str, float]:
        """The sums of all samples on the metrics page, by their names."""
        async with httpx.AsyncClient(base_url=self.url, timeout=30.0) as client:
            page = (await client.get("/metrics")).raise_for_status().text
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        return sums

    def resident_bytes(self) -> int:
        """Memory of the process and of all that it has started."""
        return sum(process.memory_info().rss for process in [self.process, *self.process.children(recursive=True)])


@asynccontextmanager
async def redraft(settings: Mapping[str, str], module: str = "service") -> AsyncGenerator[Server, None]:
    """``python -m service serve`` under REDRAFT_ ``settings``; ``module`` may be another that serves likewise."""
    port = free_port()
    own = {"REDRAFT_PORT": str(port), "REDRAFT_LOG_LEVEL": "warning"}
    environment = {"REDRAFT_JUDGE_CHECK": "false", **settings, **own}  # no calls but those that are measured
    async with _serving([sys.executable, "-m", module, "serve"], environment, port, "/health/ready") as server:
        yield server


@asynccontextmanager
async def plain_vllm(
    model: Path, environment: Mapping[str, str] = MappingProxyType({}), arguments: Sequence[str] = ()
) -> AsyncGenerator[Server, None]:
    """vLLM's own OpenAI server, with prefix caching and Redraft's engine settings; ``arguments`` are further ones.

    Serves the model as ``model``.
    """
    port = free_port()
    module = "vllm.entrypoints.openai.api_server"
    served = ["--model", str(model), "--served-model-name", "model", "--host", "127.0.0.1", "--port", str(port)]
    chosen = [*ENGINE_ARGUMENTS, "--dtype", await asyncio.to_thread(dtype_of_this_cpu)]
    command = [sys.executable, "-m", module, *served, *chosen, "--disable-uvicorn-access-log", *arguments]
    async with _serving(command, environment, port, "/health") as server:
        yield server


@asynccontextmanager
async def _serving(
    command: Sequence[str], environment: Mapping[str, str], port: int, ready: str
) -> AsyncGenerator[Server, None]:
    process = subprocess.Popen(  # noqa: ASYNC220, S603 - it returns at once; nothing of the command is a stranger's
        command,
        cwd=ROOT,
        env={**os.environ, **ENGINE_ENVIRONMENT, **environment},
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # a new process group, so that all that it started can be ended with it
    )
    try:
        url = f"http://127.0.0.1:{port}"
        await _until_ready(process, url + ready)
        yield Server(url, psutil.Process(process.pid))
    finally:
        await asyncio.to_thread(_stop, process)


async def _until_ready(process: "subprocess.Popen[bytes]", url: str) -> None:
    """Return once ``url`` answers 200. RuntimeError if the process ends before that, or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    async with httpx.AsyncClient(timeout=5.0) as client:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                if (await client.get(url)).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass  # it does not listen yet
            await asyncio.sleep(0.5)
    raise RuntimeError(f"a server was not ready in {START_SECONDS:.0f} s, or ended with {process.poll()}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):  # all of it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
