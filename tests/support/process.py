"""The service as a process of its own, as an operator runs it."""

import asyncio
import os
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx


@asynccontextmanager
async def served(module: str = "service", **settings: str) -> AsyncGenerator[tuple[Process, httpx.AsyncClient], None]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        env={**os.environ, "REDRAFT_JUDGE_CHECK": "false", **settings, "REDRAFT_PORT": str(port)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            assert process.stdout is not None
            async with asyncio.timeout(120):
                while b"Ready" not in await process.stdout.readline():
                    assert process.returncode is None
            yield process, client
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
