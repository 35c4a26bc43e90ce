"""A receiver of notices on loopback: an HTTP server that verifies each with the library of Standard Webhooks."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from standardwebhooks import Webhook
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

SECRET = "whsec_" + base64.b64encode(b"what only the receiver knows").decode()


@dataclass(frozen=True)
class Seen:
    """A notice that was verified."""

    path: str
    message_id: str
    body: dict[str, Any]
    raw: bytes
    headers: dict[str, str]


@dataclass
class ReceiverServer:
    """``answers``: statuses, or responses, in order; the last one again and again."""

    answers: list[int | Response] = field(default_factory=lambda: [204])
    port: int = 0
    seen: list[Seen] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks"

    def configuration(self, folder: Path, **fields: Any) -> dict[str, Any]:
        """The receiver as the operator configures it."""
        file = folder / "secret"
        file.write_text(SECRET)
        return {"url": self.url, "secret_file": str(file), "private_addresses": True, **fields}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        raw, headers = await request.body(), dict(request.headers)
        self.seen.append(
            Seen(request.url.path, headers["webhook-id"], Webhook(SECRET).verify(raw, headers), raw, headers)
        )
        answer = self.answers[min(len(self.seen), len(self.answers)) - 1]
        response = Response(status_code=answer) if isinstance(answer, int) else answer
        await response(scope, receive, send)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["ReceiverServer"]:
        """Listen; the second time on the same port again."""
        config = uvicorn.Config(self, port=self.port, lifespan="off", ws="none", log_config=None)
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        self.port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            await server.shutdown()

    async def until(self, count: int) -> None:
        """Return once that many notices have come."""
        async with asyncio.timeout(30):
            while len(self.seen) < count:
                await asyncio.sleep(0.005)
