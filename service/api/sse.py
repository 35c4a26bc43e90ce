"""A response that is sent piece by piece: server-sent events, or lines of JSON."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Generic, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from service.api.disconnect import cancel_on_disconnect
from service.api.middleware import request_id
from service.api.problems import error_body
from service.errors import Draining
from service.wire.problems import make_public

KEEP_ALIVE = b": keep-alive\n\n"

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class StreamFormat(Protocol[T_contra]):
    """How events become bytes."""

    def encode(self, event: T_contra) -> bytes:
        """The event as it is sent; empty for one that is not shown."""

    def encode_error(self, body: Mapping[str, Any]) -> bytes:
        """An error as the last thing that is sent."""


class EventStream(Response, Generic[T]):
    """A response that sends each event as it comes, and ``keep_alive`` after each silence.

    What ``events`` raises before anything was sent is raised here, while another response is still possible. Later it
    is sent as a last error, and so is the end of the server. The generator runs in one task and is closed there,
    whatever ends the stream. A client that leaves ends it with ClientLeft.

    events: what is sent.
    form: how it is encoded.
    keep_alive: sent after every ``keep_alive_seconds`` of silence.
    has_failed: whether an error was sent as its last event.
    """

    def __init__(
        self,
        events: AsyncGenerator[T, None],
        form: StreamFormat[T],
        *,
        media_type: str = "text/event-stream",
        keep_alive: bytes = KEEP_ALIVE,
        keep_alive_seconds: float = 10.0,
    ) -> None:
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self.has_failed = False
        # X-Accel-Buffering keeps nginx from holding events back.
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._events = events
        self._form = form
        self._keep_alive = keep_alive
        self._keep_alive_seconds = keep_alive_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        wire = _Wire(send, {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            await cancel_on_disconnect(request, self._respond(request, wire))
        except asyncio.CancelledError:
            if wire.started:
                self.has_failed = True
                cut_off = Draining("the service has shut down before the answer was finished")
                await wire.write(self._form.encode_error(error_body(cut_off, request.scope["path"])))
                await wire.end()
            raise

    async def _respond(self, request: Request, wire: "_Wire") -> None:
        async with aclosing(self._events):
            keeping = asyncio.create_task(wire.keep_alive(self._keep_alive, self._keep_alive_seconds))
            try:
                while (piece := await self._next_piece(request, wire)) is not None:
                    if piece:
                        await wire.write(piece)
            finally:
                keeping.cancel()
                await asyncio.wait((keeping,))
            await wire.end()

    async def _next_piece(self, request: Request, wire: "_Wire") -> bytes | None:
        """The next event or the error as bytes, None at the end."""
        try:
            event = await anext(self._events, None)
            return None if event is None else self._form.encode(event)
        except Exception as error:
            if not wire.started:
                raise
            self.has_failed = True
            await self._events.aclose()  # nothing follows an error
            return self._form.encode_error(error_body(make_public(error, request_id(request)), request.scope["path"]))


class _Wire:
    """The response: begun by the first write, one writer at a time, and something after each silence."""

    def __init__(self, send: Send, start: Message) -> None:
        self.started = False
        self._send = send
        self._start = start
        self._sending = asyncio.Lock()
        self._clock = asyncio.get_running_loop().time
        self._written = self._clock()

    async def write(self, piece: bytes, *, more: bool = True) -> None:
        async with self._sending:
            if not self.started:
                self.started = True
                await self._send(self._start)
            await self._send({"type": "http.response.body", "body": piece, "more_body": more})
            self._written = self._clock()

    async def end(self) -> None:
        await self.write(b"", more=False)

    async def keep_alive(self, piece: bytes, seconds: float) -> None:
        """Write ``piece`` after every ``seconds`` of silence, for ever."""
        while True:
            silence = self._clock() - self._written
            if silence < seconds:
                await asyncio.sleep(seconds - silence)
            else:
                await self.write(piece)
