"""Server-sent events (WHATWG HTML, section 9.2), and JSON lines, which are sent the same way."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from service.api.disconnect import unless_disconnected
from service.api.middleware import request_id
from service.api.problems import error_body, public
from service.errors import Draining
from service.wire.model import encode

KEEP_ALIVE = b": keep-alive\n\n"

Event = tuple[str, Mapping[str, Any]]


def named(name: str, data: Mapping[str, Any]) -> bytes:
    """The frame of an event under its name."""
    return f"event: {name}\ndata: {encode(data)}\n\n".encode()


def unnamed(name: str, data: Mapping[str, Any]) -> bytes:
    """The frame of an event as OpenAI sends it: the data alone; ``[DONE]`` for the event ``done``."""
    return f"data: {'[DONE]' if name == 'done' else encode(data)}\n\n".encode()


def line(name: str, data: Mapping[str, Any]) -> bytes:
    """An event as a line of JSON."""
    return f"{encode(data)}\n".encode()


class EventStream(Response):
    """A response that sends each (name, data) of ``events`` as it comes, and ``keep_alive`` after each silence.

    ``frame`` puts an event into bytes. What ``events`` raises before anything was sent is raised here, while another
    response is still possible; later it becomes a last ``error`` event, and so does the server's end. The generator
    runs in one task and is closed there, whatever ends the stream; a client that leaves ends it with ClientLeft.
    """

    def __init__(
        self,
        events: AsyncGenerator[Event, None],
        frame: Callable[[str, Mapping[str, Any]], bytes] = named,
        *,
        media_type: str = "text/event-stream",
        keep_alive: bytes = KEEP_ALIVE,
        keep_alive_seconds: float = 10.0,
    ) -> None:
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        # X-Accel-Buffering keeps nginx from holding events back.
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._events = events
        self._frame = frame
        self._keep_alive = keep_alive
        self._keep_alive_seconds = keep_alive_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        wire = _Wire(send, {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            await unless_disconnected(request, self._respond(request, wire))
        except asyncio.CancelledError:
            if wire.started:
                cut_off = Draining("the service has shut down before the answer was finished")
                await wire.write(self._frame("error", error_body(cut_off, request.scope["path"])))
                await wire.end()
            raise

    async def _respond(self, request: Request, wire: "_Wire") -> None:
        async with aclosing(self._events):
            keeping = asyncio.create_task(wire.keep_alive(self._keep_alive, self._keep_alive_seconds))
            try:
                while (frame := await self._frame_or_error(request, wire)) is not None:
                    await wire.write(frame)
            finally:
                keeping.cancel()
                await asyncio.wait((keeping,))
            await wire.end()

    async def _frame_or_error(self, request: Request, wire: "_Wire") -> bytes | None:
        """The next event as bytes, None at the end."""
        try:
            event = await anext(self._events, None)
            return None if event is None else self._frame(*event)
        except Exception as error:
            if not wire.started:
                raise
            await self._events.aclose()  # nothing follows an error
            return self._frame("error", error_body(public(error, request_id(request)), request.scope["path"]))


class _Wire:
    """The response: begun by the first write, one writer at a time, and something after each silence."""

    def __init__(self, send: Send, start: Message) -> None:
        self.started = False
        self._send = send
        self._start = start
        self._sending = asyncio.Lock()
        self._clock = asyncio.get_running_loop().time
        self._written = self._clock()

    async def write(self, frame: bytes, *, more: bool = True) -> None:
        async with self._sending:
            if not self.started:
                self.started = True
                await self._send(self._start)
            await self._send({"type": "http.response.body", "body": frame, "more_body": more})
            self._written = self._clock()

    async def end(self) -> None:
        await self.write(b"", more=False)

    async def keep_alive(self, frame: bytes, seconds: float) -> None:
        """Write the frame after every ``seconds`` of silence, for ever."""
        while True:
            silence = self._clock() - self._written
            if silence < seconds:
                await asyncio.sleep(seconds - silence)
            else:
                await self.write(frame)
