"""One program's way through the service: admission, its events, and the answer made of them.

The one stream of events is read here, once: it feeds the metrics, the log and the response.
"""

import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from service.api.desk import desk_of
from service.api.disconnect import unless_disconnected
from service.api.middleware import request_id, seconds_since_arrival
from service.api.responses import Timing, sse_event, total
from service.api.sse import Event as SseEvent
from service.api.sse import EventStream
from service.engines.base import Engine
from service.refinement.events import Event, Generated, Refined, Reviewed, Started
from service.refinement.program import Generation, Program, Review

log = logging.getLogger(__name__)

P = TypeVar("P", Generation, Review, Program)
Done = Generated | Refined | Reviewed


@dataclass(frozen=True)
class Answering(Generic[P]):
    """``run`` makes the program's events, ``body`` the response of its last event.

    ``streamed_before``: what a stream's last event leaves out of the response, in pydantic's form for exclusions.
    """

    program: P
    run: Callable[[P, Engine], AsyncGenerator[Event, None]]
    body: Callable[[Any, Timing], BaseModel]
    streamed_before: Any = None

    async def whole(self, request: Request) -> Response:
        """Run the program to its end; stop it as soon as the client has left."""

        async def work() -> Response:
            async with aclosing(self._events(request)) as events:
                async for event in events:
                    if isinstance(event, BaseModel):
                        return Response(event.model_dump_json(), media_type="application/json")
            raise RuntimeError("a program ends with its last event")

        return await unless_disconnected(request, work())

    def streamed(self, request: Request) -> Response:
        """Send the events as they happen."""

        async def frames() -> AsyncGenerator[SseEvent, None]:
            async with aclosing(self._events(request)) as events:
                async for event in events:
                    if isinstance(event, BaseModel):
                        yield "done", event.model_dump(mode="json", exclude=self.streamed_before)
                    elif frame := sse_event(event):
                        yield frame

        return EventStream(frames())

    async def _events(self, request: Request) -> AsyncGenerator[Event | BaseModel, None]:
        """The program's events, but in place of the last the response that is made of it."""
        desk = desk_of(request)
        working = False
        engine = desk.engine()
        async with (
            desk.admission.admit(request.state.caller, deadline=self.program.budget.deadline) as ticket,
            aclosing(self.run(self.program, engine)) as events,
        ):
            async for event in events:
                desk.metrics.observe(self.program.task, event)
                if not working and not isinstance(event, Started):
                    working = True
                    desk.metrics.first_event(request.scope["route"].path, seconds_since_arrival(request))
                if isinstance(event, Done):
                    timing = Timing(queued_seconds=ticket.queued_seconds, total_seconds=seconds_since_arrival(request))
                    summary = _summary(event, self.program.task, timing)
                    log.info("program ended", extra={"request_id": request_id(request), **summary})
                    yield self.body(event, timing)
                else:
                    yield event


def _summary(done: Done, task: str, timing: Timing) -> Mapping[str, Any]:
    """What the log tells of a program: sizes and outcomes, no text."""
    summary = {
        "program": done.program,
        "task": task,
        **asdict(total(done.usage)),
        **timing.model_dump(),
    }
    if isinstance(done, Refined):
        summary |= {"stop_reason": done.stop_reason, "rounds": len(done.rounds) - 1, "selected": done.selected.id}
    return summary
