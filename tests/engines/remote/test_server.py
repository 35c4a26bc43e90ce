"""A server's failures as Redraft's errors, seen over real connections to a server that answers canned bytes."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from service.engines.base import Usage
from service.engines.remote import server as server_module
from service.engines.remote.chat import ChatAnswer
from service.engines.remote.server import CHAT, OpenAIServer
from service.errors import EngineUnavailable, InvalidRequest
from tests.support.listener import listening, raw

ANSWER = {
    "choices": [{"message": {"content": "Yes."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
}
EVENTS = (
    ": awake\n\n"
    'data: {"choices": [{"delta": {"role": "assistant", "content": "Y"}}]}\n\n'
    'data: {"choices": [{"delta": {"content": "es."}, "finish_reason": "stop"}]}\n\n'
    'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}\n\n'
)


@asynccontextmanager
async def answering(status: int, body: str, content_type: str = "application/json") -> AsyncIterator[OpenAIServer]:
    """A server whose every answer is this one; status 0 closes the connection without any."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if status:
            head = f"HTTP/1.1 {status} Some\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body.encode())
            await writer.drain()
        writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listener:
        server = OpenAIServer(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1/")
        yield server
        await server.close()


def streamed(server: OpenAIServer) -> AsyncGenerator[ChatAnswer, None]:
    return server.stream(CHAT, {}, ChatAnswer)


async def test_an_answer_is_read_with_its_cost() -> None:
    async with answering(200, json.dumps(ANSWER)) as server:
        answer = await server.post(CHAT, {}, ChatAnswer)

    assert answer.choices[0].message.content == "Yes."
    assert answer.usage is not None
    assert answer.usage.usage() == Usage(calls=1, prompt_tokens=9, cached_tokens=4, completion_tokens=2)


async def test_a_character_that_ends_lines_elsewhere_ends_no_event() -> None:
    event = {"choices": [{"delta": {"content": "a\u2028b\u0085c"}}]}
    body = f"data: {json.dumps(event, ensure_ascii=False)}\n\ndata: [DONE]\n\n"
    async with answering(200, body, "text/event-stream") as server:
        [read] = [event async for event in streamed(server)]

    assert read.choices[0].delta.content == "a\u2028b\u0085c"


async def test_a_stream_is_read_to_its_end() -> None:
    async with answering(200, EVENTS + "data: [DONE]\n\n", "text/event-stream") as server:
        events = [event async for event in streamed(server)]

    assert [choice.delta.content for event in events for choice in event.choices] == ["Y", "es."]
    assert events[-1].usage is not None


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_what_the_server_refuses_is_the_requests_fault(status: int) -> None:
    async with answering(status, '{"error": {"message": "no such thing", "code": 400}}') as server:
        with pytest.raises(InvalidRequest, match="no such thing"):
            await server.post(CHAT, {}, ChatAnswer)
        with pytest.raises(InvalidRequest, match="no such thing"):
            await anext(streamed(server))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (0, ""),
        (302, ""),
        (401, '{"error": "no"}'),
        (429, '{"error": {"message": "slow down"}}'),
        (500, "oops"),
        (503, ""),
        (200, ""),
        (200, "<html>"),
        (200, "[]"),
        (200, '{"choices": 1}'),
    ],
)
async def test_any_other_failure_makes_the_engine_unavailable(status: int, body: str) -> None:
    async with answering(status, body) as server:
        with pytest.raises(EngineUnavailable):
            await server.post(CHAT, {}, ChatAnswer)
        with pytest.raises(EngineUnavailable):
            async for _ in streamed(server):
                pass


@pytest.mark.parametrize(
    "tail",
    [
        "",
        'data: {"choi',
        "data: nothing\n\n",
        'data: {"error": {"message": "the engine died", "code": 500}}\n\n',
        'data: {"error": "the engine died", "error_type": "generation"}\n\n',
        'event: error\ndata: {"object": "error", "message": "the engine died", "code": 500}\n\ndata: [DONE]\n\n',
        'data: {"detail": "the engine died"}\n\ndata: [DONE]\n\n',
        'data: {"error": {"code": 502}, "choices": [{"delta": {"content": ""}, "finish_reason": "error"}]}\n\n',
    ],
)
async def test_a_stream_that_breaks_off_says_so_after_what_it_brought(tail: str) -> None:
    begun = EVENTS.replace(', "finish_reason": "stop"', "")
    async with answering(200, begun + tail, "text/event-stream") as server:
        events = streamed(server)
        for _ in range(3):
            await anext(events)
        with pytest.raises(EngineUnavailable):
            await anext(events)


STREAM = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{len(EVENTS) + 14:x}\r\n{EVENTS}data: [DONE]\n\n\r\n"


async def test_streams_one_after_the_other_share_a_connection() -> None:
    async with listening(raw(f"{STREAM}0\r\n\r\n".encode())) as listener:
        server = OpenAIServer(f"http://127.0.0.1:{listener.port}")
        for _ in range(3):
            assert len([event async for event in streamed(server)]) == 3
        await server.close()

    assert (len(listener.requests), listener.connections) == (3, 1)


async def test_a_stream_whose_response_does_not_end_is_whole_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "END_SECONDS", 0.01)
    async with listening(raw(STREAM.encode())) as listener, asyncio.timeout(5):
        server = OpenAIServer(f"http://127.0.0.1:{listener.port}")
        for _ in range(2):
            assert len([event async for event in streamed(server)]) == 3
        await server.close()

    assert listener.connections == 2


async def test_a_cancelled_call_closes_its_connection() -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            asked.set()
        closed.set()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with listener:
        server = OpenAIServer(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
        call = asyncio.ensure_future(server.post(CHAT, {}, ChatAnswer))
        async with asyncio.timeout(20):
            await asked.wait()
            call.cancel()
            await closed.wait()
        await server.close()
