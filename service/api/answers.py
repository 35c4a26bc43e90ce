"""A program's events as an HTTP response: one JSON document, or a stream."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.disconnect import cancel_on_disconnect
from service.api.images import fetch_images
from service.api.sse import EventStream, StreamFormat
from service.api.state import AppState, app_state, request_info
from service.programs.run import read_done
from service.refinement.events import Done, Event
from service.refinement.program import Program
from service.refinement.scheduling import Lane
from service.wire.model import escape_line_ends
from service.wire.requests import NativeRequest
from service.wire.responses import NativeFormat

PIECE_BYTES = 65_536
"""How much of an answer is sent at once: as much as the server holds before it waits for the client."""


class AnswerFormat(StreamFormat[Event], Protocol):
    """How an endpoint answers: Redraft's own or OpenAI's."""

    def response(self, done: Done) -> BaseModel:
        """The whole answer."""


async def compile_native(
    request: NativeRequest, state: AppState, lane: Lane = "interactive"
) -> tuple[Program, NativeFormat]:
    """The program, with its images at hand, and how it is answered. Raises InvalidRequest."""
    request = await fetch_images(state, request)
    return state.programs.compile(request, lane), NativeFormat.for_request(request)


def answer_json(request: Request, program: Program, form: AnswerFormat) -> Response:
    """Run the program to its end, then answer; stop it as soon as the client has left."""
    return JsonAnswer(_run(request, program), form.response)


def answer_stream(request: Request, program: Program, form: AnswerFormat) -> Response:
    """Send the program's events as they happen."""
    return EventStream(_run(request, program), form)


def _run(request: Request, program: Program) -> AsyncGenerator[Event, None]:
    return app_state(request).runner.run(program, request_info(request))


class JsonAnswer(Response):
    """The response that is made of a program's last event.

    The program keeps its place until the client has taken all but the last piece. So answers that nobody reads do not
    pile up while their places are free. A client that leaves, or takes nothing, ends it with ClientLeft.
    """

    def __init__(self, events: AsyncGenerator[Event, None], make_response: Callable[[Done], BaseModel]) -> None:
        self.status_code = 200
        self.media_type = "application/json"
        self.background = None
        self._events = events
        self._make_response = make_response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await cancel_on_disconnect(Request(scope, receive), self._respond(send))

    async def _respond(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            response = self._make_response(await read_done(events))
            self.body = escape_line_ends(response.model_dump_json()).encode()
            self.init_headers()
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            *earlier, last = range(0, len(self.body), PIECE_BYTES)
            for start in earlier:
                await _send_body(send, self.body[start : start + PIECE_BYTES])
            if earlier:
                await _send_body(send, b"")  # returns once the piece before it was taken
        # With its last byte the client may send the next request, so this must be the end for the server too.
        await _send_body(send, self.body[last:], more=False)


async def _send_body(send: Send, piece: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": piece, "more_body": more})
