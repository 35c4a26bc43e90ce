"""A server that speaks enough OpenAI to be connected to, and whose answers to a caller's chat are an attack.

``attack`` names it: the probes are answered well, and then the first word of the last message picks what is sent.
"""

import asyncio
import json
import re
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

CHUNK = b"x" * 65_536
EVENT = b'data: {"choices": [{"index": 0, "delta": {"content": "words and words and words "}}]}\n\n'
WHOLE = {"choices": [{"index": 0, "message": {"content": "Yes."}, "finish_reason": "stop"}]}
ONE = {"prompt_tokens": 9, "completion_tokens": 1}
MOST_SENT = 300 * 1024 * 1024
"""After that the server gives up: a client that reads so much has no bound."""

Write = Callable[[bytes], Any]


async def endless_body(write: Write) -> None:
    await write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"choices": [{"message": {"content": "')
    await forever(write, CHUNK)


async def endless_line(write: Write) -> None:
    """One event without an end; in small pieces, which take quadratic time where each is joined to all before it."""
    await write(head("text/event-stream") + b'data: {"choices": [{"delta": {"content": "')
    await forever(write, b"x" * 1024)


async def endless_events(write: Write) -> None:
    await write(head("text/event-stream"))
    await forever(write, EVENT * 700)


async def endless_comments(write: Write) -> None:
    await write(head("text/event-stream"))
    await forever(write, b": still here\n\n" * 4000)


@cache
def packed_answer() -> bytes:
    """A few hundred kilobytes that unpack to 200 MiB. Packed piece by piece: this process's memory is watched."""
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    pieces = [packer.compress(b'{"choices": [{"message": {"content": "')]
    pieces += [packer.compress(CHUNK) for _ in range(3200)]
    return b"".join([*pieces, packer.compress(b'"}}]}'), packer.flush()])


async def bomb(write: Write) -> None:
    packed = packed_answer()
    fields = f"Content-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    await write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + fields + packed)


async def large_refusal(write: Write) -> None:
    await write(b"HTTP/1.1 500 Oops\r\n\r\n")
    await forever(write, CHUNK)


async def declared_size(write: Write) -> None:
    await write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n")
    await forever(write, CHUNK)


async def deep(write: Write) -> None:
    await respond(write, b'{"choices": ' + b"[" * 200_000)


async def endless_headers(write: Write) -> None:
    await write(b"HTTP/1.1 200 OK\r\n")
    await forever(write, b"X-More: " + b"x" * 1000 + b"\r\n")


ATTACKS: Mapping[str, Callable[[Write], Any]] = {
    attack.__name__: attack
    for attack in (
        endless_body,
        endless_line,
        endless_events,
        endless_comments,
        bomb,
        large_refusal,
        declared_size,
        deep,
        endless_headers,
    )
}


def head(kind: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n".encode()


async def forever(write: Write, chunk: bytes) -> None:
    sent = 0
    while sent < MOST_SENT:
        await write(chunk)
        sent += len(chunk)


async def respond(write: Write, body: bytes, status: int = 200) -> None:
    await write(f"HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


@dataclass
class HostileServer:
    """``usage``: what it says that a chat costs. ``sent``: the bytes of its attacks that were taken from it.

    ``everywhere``: its attack goes for every request, probes and lists included.
    """

    usage: Any = field(default_factory=lambda: dict(ONE))
    sent: int = 0
    everywhere: str = ""
    encodings: set[str] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def write(chunk: bytes) -> None:
            writer.write(chunk)
            await writer.drain()
            self.sent += len(chunk)

        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                told = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = re.search(rb"content-length: (\d+)", told)
                body = await reader.readexactly(int(length[1])) if length else b""
                packing = re.search(rb"accept-encoding: ([^\r]*)", told)
                self.encodings.add(packing[1].decode() if packing else "")
                attack = ATTACKS.get(self.everywhere) or self._attack(body)
                if attack is not None:
                    self.sent = 0
                    await attack(write)
                    break
                await self._answer(told, body, write)
        writer.close()

    def _attack(self, body: bytes) -> Callable[[Write], Any] | None:
        if not body.startswith(b"{"):
            return None
        said = json.loads(body).get("messages", [{"content": ""}])[-1]["content"]
        return ATTACKS.get(said.split()[0]) if isinstance(said, str) and said.split() else None

    async def _answer(self, told: bytes, body: bytes, write: Write) -> None:
        if told.startswith(b"get /v1/models"):
            await respond(write, b'{"data": [{"id": "m"}]}')
        elif told.startswith(b"post /v1/chat/completions"):
            asked = json.loads(body)
            if asked.get("stream"):
                events = [{"choices": [{"delta": {"content": "Yes."}, "finish_reason": "stop"}]}, {"usage": self.usage}]
                text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
                await respond(write, text.encode())
            else:
                await respond(write, json.dumps({**WHOLE, "usage": self.usage}).encode())
        else:
            await respond(write, b"{}", 404)


@asynccontextmanager
async def attacking(server: HostileServer) -> AsyncIterator[str]:
    """The server's address."""
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
