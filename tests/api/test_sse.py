import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.responses import Response

from service.api.disconnect import ClientLeft
from service.api.problems import install
from service.api.sse import EventStream
from service.errors import EngineDead, Overloaded
from service.wire.sse import SseEvent, data_frame, event_frame, json_line
from tests.support.peer import Peer


class Source:
    """A generator of events that shows how it ended; it waits at an asyncio.Event and raises an exception."""

    def __init__(self, *steps: SseEvent | asyncio.Event | Exception) -> None:
        self.waiting = asyncio.Event()
        self.closed = asyncio.Event()
        self.tasks: set[asyncio.Task[Any] | None] = set()
        self.events = self._run(steps)

    async def _run(self, steps: tuple[SseEvent | asyncio.Event | Exception, ...]) -> AsyncGenerator[SseEvent, None]:
        try:
            for step in steps:
                self.tasks.add(asyncio.current_task())
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, asyncio.Event):
                    self.waiting.set()
                    await step.wait()
                else:
                    yield step
        finally:
            self.tasks.add(asyncio.current_task())
            await asyncio.sleep(0)  # closing may take a while, and is awaited
            self.closed.set()


class Named:
    """The simplest format: every event is a frame."""

    def encode(self, event: SseEvent) -> bytes:
        return event_frame(*event)

    def encode_error(self, body: Mapping[str, Any]) -> bytes:
        return event_frame("error", body)


class OnlyDone(Named):
    def encode(self, event: SseEvent) -> bytes:
        return super().encode(event) if event[0] == "done" else b""


def frames(body: bytes) -> list[tuple[str, Any]]:
    parsed = []
    for frame in body.decode().split("\n\n")[:-1]:
        name, data = frame.split("\n")
        parsed.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return parsed


async def test_events_become_frames() -> None:
    source = Source(("started", {"id": "r"}), ("delta", {"text": "é\nb"}))
    peer = Peer()
    await peer.call(EventStream(source.events, Named()))
    assert peer.status == 200
    assert peer.headers == {
        "cache-control": "no-store",
        "x-accel-buffering": "no",
        "content-type": "text/event-stream; charset=utf-8",
    }
    assert peer.body.decode() == 'event: started\ndata: {"id":"r"}\n\nevent: delta\ndata: {"text":"é\\nb"}\n\n'
    assert not peer.sent[-1].get("more_body", False)
    assert source.closed.is_set()
    assert len(source.tasks) == 1


async def test_an_event_that_is_not_shown_does_not_begin_the_response() -> None:
    app = FastAPI()
    install(app)
    source = Source(("started", {}), Overloaded("full", retry_after=3))

    @app.get("/")
    async def stream() -> Response:
        return EventStream(source.events, OnlyDone())

    peer = Peer()
    await peer.call(app)
    assert (peer.status, peer.json["code"]) == (503, "overloaded")


async def test_no_events_are_an_empty_stream() -> None:
    peer = Peer()
    await peer.call(EventStream(Source().events, Named()))
    assert (peer.status, peer.body) == (200, b"")


async def test_silence_is_filled_with_comments() -> None:
    more = asyncio.Event()
    peer = Peer()
    stream = EventStream(Source(("a", {}), more, ("b", {})).events, Named(), keep_alive_seconds=0.001)
    call = asyncio.create_task(peer.call(stream))
    await peer.until(b": keep-alive\n\n: keep-alive\n\n")
    more.set()
    await call
    assert peer.body.startswith(b"event: a\ndata: {}\n\n: keep-alive\n\n")
    assert peer.body.endswith(b": keep-alive\n\nevent: b\ndata: {}\n\n")


async def test_no_comment_without_silence() -> None:
    peer = Peer()
    await peer.call(EventStream(Source(*[("a", {})] * 20).events, Named(), keep_alive_seconds=60))
    assert b"keep-alive" not in peer.body


async def test_a_known_error_is_the_last_event() -> None:
    source = Source(("started", {}), EngineDead("gone"))
    peer = Peer()
    await peer.call(EventStream(source.events, Named()))
    (_, (name, data)) = frames(peer.body)
    assert (name, data["code"], data["status"]) == ("error", "engine_dead", 503)
    assert source.closed.is_set()
    assert not peer.sent[-1].get("more_body", False)


async def test_a_bug_is_the_last_event_and_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    peer = Peer()
    await peer.call(EventStream(Source(("started", {}), KeyError("password")).events, Named()))
    assert [(name, data.get("code")) for name, data in frames(peer.body)] == [
        ("started", None),
        ("error", "internal_error"),
    ]
    assert b"password" not in peer.body
    assert [entry.getMessage() for entry in caplog.records] == ["request r1 failed"]


async def test_an_event_that_is_not_json_is_a_bug_and_the_last() -> None:
    source = Source(("started", {}), ("score", {"score": float("nan")}), ("done", {}))
    peer = Peer()
    await peer.call(EventStream(source.events, Named()))
    assert [name for name, _ in frames(peer.body)] == ["started", "error"]
    assert source.closed.is_set()


async def test_an_error_before_the_first_event_keeps_its_status() -> None:
    app = FastAPI()
    install(app)
    source = Source(Overloaded("full", retry_after=3))

    @app.get("/")
    async def stream() -> Response:
        return EventStream(source.events, Named())

    peer = Peer()
    await peer.call(app)
    assert (peer.status, peer.headers["retry-after"], peer.json["code"]) == (503, "3", "overloaded")
    assert source.closed.is_set()


@pytest.mark.parametrize("before", [(), (("started", {}),)], ids=["before the first event", "later"])
async def test_a_client_that_leaves_closes_the_generator(before: tuple[SseEvent, ...]) -> None:
    source = Source(*before, asyncio.Event())
    peer = Peer()
    call = asyncio.create_task(peer.call(EventStream(source.events, Named())))
    await source.waiting.wait()
    peer.leave()
    with pytest.raises(ClientLeft):
        await call
    assert source.closed.is_set()
    assert len(source.tasks) == 1
    assert bool(peer.sent) == bool(before)


@pytest.mark.parametrize("frame", [partial(event_frame, "delta"), data_frame, json_line])
async def test_a_frame_is_cut_nowhere_by_readers_of_lines(frame: Callable[[Any], bytes]) -> None:
    text = "".join(map(chr, range(0x20))) + "a\u0085b\u2028c\u2029d\u007fé"
    sent = frame({"text": text}).decode()
    *_, data = sent.rstrip("\n").splitlines()
    assert sent.rstrip("\n").count("\n") == len(sent.rstrip("\n").splitlines()) - 1
    assert json.loads(data.removeprefix("data: ")) == {"text": text}


async def test_a_stream_that_is_cancelled_with_the_server_ends_with_an_error() -> None:
    source = Source(("started", {}), asyncio.Event())
    peer = Peer()
    call = asyncio.create_task(peer.call(EventStream(source.events, Named())))
    await source.waiting.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert [(name, data.get("code")) for name, data in frames(peer.body)] == [("started", None), ("error", "draining")]
    assert not peer.sent[-1]["more_body"]


async def test_a_stream_that_is_cancelled_before_its_first_event_sends_nothing() -> None:
    source = Source(asyncio.Event())
    peer = Peer()
    call = asyncio.create_task(peer.call(EventStream(source.events, Named())))
    await source.waiting.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert peer.sent == []


async def test_a_cancelled_response_closes_the_generator() -> None:
    source = Source(("started", {}), asyncio.Event())
    peer = Peer()
    call = asyncio.create_task(peer.call(EventStream(source.events, Named())))
    await source.waiting.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert source.closed.is_set()


async def test_a_client_that_leaves_while_it_is_written_to_closes_the_generator() -> None:
    source = Source(("started", {}), ("done", {}))
    peer = Peer()
    blocked = asyncio.Event()

    async def never_drains(message: Any) -> None:
        blocked.set()
        await asyncio.Event().wait()

    call = asyncio.create_task(EventStream(source.events, Named())(peer.scope, peer.receive, never_drains))
    await blocked.wait()
    peer.leave()
    with pytest.raises(ClientLeft):
        await call
    assert source.closed.is_set()
    assert len(source.tasks) == 1


async def test_a_long_wait_for_the_first_event_is_kept_alive_and_fails_as_an_event() -> None:
    gate = asyncio.Event()
    source = Source(gate, EngineDead("gone"))
    peer = Peer()
    calling = asyncio.create_task(peer.call(EventStream(source.events, Named(), keep_alive_seconds=0.01)))
    while b": keep-alive" not in peer.body:
        await asyncio.sleep(0.01)

    gate.set()
    await calling

    assert peer.status == 200
    assert peer.body.decode().split("\n\n")[-2].startswith("event: error\n")
