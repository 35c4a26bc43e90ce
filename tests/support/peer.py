"""The other side of one ASGI request, written by hand: what it sends, when it leaves, what it got."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message


class Peer:
    """Sends ``chunks`` as its body, one message each, and stays until ``leave()``."""

    def __init__(
        self, *chunks: bytes, method: str = "GET", path: str = "/", headers: Mapping[str, str] | None = None
    ) -> None:
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
            "state": {"request_id": "r1"},
        }
        self.sent: list[Message] = []
        self.received = 0  # messages that the app took
        self._chunks = list(chunks or [b""])
        self._gone = asyncio.Event()
        self._news = asyncio.Condition()

    async def call(self, app: ASGIApp) -> None:
        await app(self.scope, self.receive, self.send)

    def leave(self) -> None:
        self._gone.set()

    async def receive(self) -> Message:
        self.received += 1
        if self._chunks:
            chunk = self._chunks.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(self._chunks)}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        async with self._news:
            self._news.notify_all()

    async def until(self, text: bytes) -> None:
        """Return once ``text`` stands in the body that was sent."""
        async with asyncio.timeout(30), self._news:
            await self._news.wait_for(lambda: text in self.body)

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def json(self) -> Any:
        return json.loads(self.body)
