"""One program's way through the service: admission, its events, and the answer made of them.

The one stream of events is read here, once: it feeds the metrics, the log and the response.
"""

import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.disconnect import unless_disconnected
from service.api.middleware import request_id, seconds_since_arrival
from service.api.sse import EventStream, named
from service.api.state import desk_of
from service.programs.compile import Programs
from service.refinement.events import Event, Generated, Refined, Relayed, Reviewed, Started
from service.refinement.loop import refine
from service.refinement.program import Generate, Refine, Review, ToolChat
from service.refinement.roles import Roles
from service.refinement.scheduling import Lane
from service.refinement.single import generate, review
from service.wire.model import escape_line_ends
from service.wire.requests import CritiqueRequest, GenerateRequest, RefineRequest
from service.wire.responses import (
    SseEvent,
    Timing,
    critique_response,
    generate_response,
    refine_response,
    sse_events,
    total,
)

log = logging.getLogger(__name__)

P = TypeVar("P", Generate, Review, Refine, ToolChat)
PIECE_BYTES = 65_536
"""So much of a whole answer is sent at once: as much as the server holds before it waits for the client."""

Done = Generated | Refined | Relayed | Reviewed


@dataclass(frozen=True)
class Answering(Generic[P]):
    """``run`` makes the program's events, ``body`` the response of its last event.

    ``told``: what a stream tells of an event, and of the response, in ``frame``s.
    """

    program: P
    run: Callable[[P, Roles], AsyncGenerator[Event, None]]
    body: Callable[[Any, Timing], BaseModel]
    told: Callable[[Any], Iterable[SseEvent]] = sse_events
    frame: Callable[[str, Mapping[str, Any]], bytes] = named

    async def whole(self, request: Request) -> Response:
        """Run the program to its end; stop it as soon as the client has left."""
        return WholeAnswer(self._admitted(request))

    def streamed(self, request: Request) -> Response:
        """Send the events as they happen."""

        async def told() -> AsyncGenerator[SseEvent, None]:
            async with aclosing(self._admitted(request)) as events:
                async for event in events:
                    for item in self.told(event):
                        yield item

        return EventStream(told(), self.frame)

    async def events(
        self, request: Request, roles: Roles, queued_seconds: float
    ) -> AsyncGenerator[Event | BaseModel, None]:
        """The events of the program, which has a place at work, but in place of the last the response made of it."""
        desk = desk_of(request)
        async with aclosing(self.run(self.program, roles)) as events:
            async for event in events:
                desk.metrics.observe(self.program.task, event)
                if isinstance(event, Done):
                    timing = Timing(queued_seconds=queued_seconds, total_seconds=seconds_since_arrival(request))
                    summary = _summary(event, self.program.task, timing)
                    log.info("program ended", extra={"request_id": request_id(request), **summary})
                    yield self.body(event, timing)
                else:
                    yield event

    async def _admitted(self, request: Request) -> AsyncGenerator[Event | BaseModel, None]:
        """The events, once there is a place."""
        desk = desk_of(request)
        working = False
        roles = desk.roles(self.program.models)
        await roles.check()
        async with (
            desk.admission.admit(request.state.caller, deadline=self.program.budget.deadline) as ticket,
            aclosing(self.events(request, roles, ticket.queued_seconds)) as events,
        ):
            async for event in events:
                if not working and not isinstance(event, Started):
                    working = True
                    desk.metrics.first_event(request.scope["route"].path, seconds_since_arrival(request))
                yield event


class WholeAnswer(Response):
    """The response that a program's events end with.

    The program keeps its place until the client has taken all but the last piece, so that what nobody reads does not
    pile up behind places that are free. A client that leaves, or takes nothing, ends it with ClientLeft.
    """

    def __init__(self, events: AsyncGenerator[Event | BaseModel, None]) -> None:
        self.status_code = 200
        self.media_type = "application/json"
        self.background = None
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await unless_disconnected(Request(scope, receive), self._respond(send))

    async def _respond(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            self.body = escape_line_ends((await _response(events)).model_dump_json()).encode()
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


async def last_response(events: AsyncGenerator[Event | BaseModel, None]) -> BaseModel:
    """Read a program's events to their end, which is the response."""
    async with aclosing(events):
        return await _response(events)


async def _response(events: AsyncGenerator[Event | BaseModel, None]) -> BaseModel:
    async for event in events:
        if isinstance(event, BaseModel):
            return event
    raise RuntimeError("a program ends with its last event")


def generating(wanted: GenerateRequest, programs: Programs, lane: Lane = "interactive") -> Answering[Generate]:
    streamed_before = {"choices": {"__all__": {"text", "reasoning"}}}
    told = partial(sse_events, left_out=streamed_before, reasoning=wanted.reasoning)
    body = partial(generate_response, reasoning=wanted.reasoning)
    return Answering(programs.compile_generate(wanted, lane), generate, body, told)


def reviewing(wanted: CritiqueRequest, programs: Programs, lane: Lane = "interactive") -> Answering[Review]:
    return Answering(programs.compile_review(wanted, lane), review, critique_response)


def refining(wanted: RefineRequest, programs: Programs, lane: Lane = "interactive") -> Answering[Refine]:
    told = partial(sse_events, reasoning=wanted.reasoning)
    body = partial(refine_response, trace=wanted.trace, reasoning=wanted.reasoning)
    return Answering(programs.compile_refine(wanted, lane), refine, body, told)


def _summary(done: Done, task: str, timing: Timing) -> Mapping[str, Any]:
    """What the log tells of a program: sizes and outcomes, no text."""
    summary = {
        "program": done.program,
        "task": task,
        "model": done.models.writer if isinstance(done, Refined | Reviewed) else done.model,
        **asdict(total(done.usage)),
        **timing.model_dump(),
    }
    if isinstance(done, Refined | Reviewed):
        summary |= {"models": asdict(done.models)}
    if isinstance(done, Refined):
        summary |= {"stop_reason": done.stop_reason, "rounds": len(done.rounds) - 1, "selected": done.selected.id}
    return summary
