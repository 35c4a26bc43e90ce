"""A web server on loopback that answers byte by byte what a test says, and keeps what it was sent."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import pytest

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Received:
    """``head``: request line and headers, as sent."""

    head: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Listener:
    """``answers`` are given in order, the last one again and again."""

    answers: list[Answer]
    port: int = 0
    connections: int = 0
    requests: list[Received] = field(default_factory=list)
    server_names: list[str | None] = field(default_factory=list)
    """What each TLS handshake asked for."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/score?token=hush"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                fields = [line.split(": ", 1) for line in head.split("\r\n")[1:-2]]
                headers = {name.lower(): value for name, value in fields}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.requests.append(Received(head, headers, body))
                await self.answers[min(len(self.requests), len(self.answers)) - 1](writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left
        finally:
            writer.close()


@asynccontextmanager
async def listening(
    *answers: Answer, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Listener]:
    listener = Listener(list(answers))
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(listener.serve(reader, writer)))

    if tls is not None:
        tls.sni_callback = lambda _socket, name, _context: listener.server_names.append(name)
    server = await asyncio.start_server(accept, host, 0, ssl=tls)
    listener.port = server.sockets[0].getsockname()[1]
    try:
        yield listener
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def raw(content: bytes, *, then_close: bool = False) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        if then_close:
            writer.close()

    return answer


def answered(body: Any, status: int = 200, *headers: str) -> Answer:
    """``body``: bytes as they are, anything else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} -", f"Content-Length: {len(content)}", *headers]
    return raw("\r\n".join([*lines, "", ""]).encode() + content)


@pytest.fixture
def connects(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every address that a socket of this process is told to connect to, from now on. Only loopback can be reached."""
    seen: list[tuple[str, int]] = []

    def spied(original: Callable[[socket.socket, Any], Any]) -> Callable[[socket.socket, Any], Any]:
        def connect(self: socket.socket, address: Any) -> Any:
            seen.append(address[:2])
            if not ip_address(address[0]).is_loopback:
                raise ConnectionRefusedError
            return original(self, address)

        return connect

    monkeypatch.setattr(socket.socket, "connect", spied(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", spied(socket.socket.connect_ex))
    return seen
