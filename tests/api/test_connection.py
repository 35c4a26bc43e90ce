"""What clients may do to a connection: raw bytes on real sockets, against the app behind its own protocol."""

import asyncio
import hashlib
import json
import re
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import httpx
import psutil
import pytest
from pydantic import BaseModel

from service.api import connection
from service.api.answers import JsonAnswer
from service.engines.base import Completion, Usage
from service.engines.scripted import Script
from service.refinement.events import Done, Event, Generated, Timing
from tests.support.peer import Peer
from tests.support.process import served as served_process
from tests.support.scripts import stall
from tests.support.serving import Served, serving

GET = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n"
POST = b"POST /v1/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
BODY = json.dumps({"prompt": "Write about the sea."}).encode()
STREAM = json.dumps({"prompt": "Write about the sea.", "stream": True}).encode()
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
KEY = f"ann:{hashlib.sha256(b'secret').hexdigest()}"


def posted(body: bytes) -> bytes:
    return POST + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def ended(text: str) -> AsyncGenerator[Event, None]:
    """The last event of a program that wrote ``text``."""
    completion = Completion(text, "stop", Usage())
    yield Done(Generated("gen-1", "scripted", [[completion]], {}), Timing(0.0, 0.0))


class Text(BaseModel):
    text: str

    @classmethod
    def written(cls, done: Done) -> "Text":
        assert isinstance(done.outcome, Generated)
        return cls(text=done.outcome.completions[0][0].text)


@dataclass
class Client:
    """One end of a connection, on which anything can be sent."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> httpx.Response:
        """The next response, whose length is stated."""
        async with asyncio.timeout(5):
            status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            content = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return httpx.Response(int(status.split()[1]), headers=headers, content=content)

    async def closed(self) -> bytes:
        """What still comes until the server closes or resets the connection, which must be soon."""
        rest = b""
        async with asyncio.timeout(5):
            with suppress(ConnectionResetError):
                while piece := await self.reader.read(65_536):
                    rest += piece
        return rest

    async def flood(self, block: bytes, pause: float = 0.0) -> None:
        """Send the block again and again until the server cuts the connection off, which must be soon."""
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                while True:
                    self.send(block)
                    await self.writer.drain()
                    await asyncio.sleep(pause)

    def reset(self) -> None:
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@asynccontextmanager
async def connected(http: httpx.AsyncClient, receive_buffer: int | None = None) -> AsyncIterator[Client]:
    plain = socket.socket()
    if receive_buffer is not None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, (http.base_url.host, http.base_url.port))
    reader, writer = await asyncio.open_connection(sock=plain)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def problem(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])
    assert response.json()["status"] == response.status_code
    return response.status_code, response.json()["code"]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await condition():
            await asyncio.sleep(0.01)


MEBIBYTES = 1_048_576
FLOODS = {
    "many headers": (GET, b"".join(b"a%d: b\r\n" % number for number in range(8_000)), "headers_too_large"),
    "empty headers": (GET, b"a:\r\n" * 16_384, "headers_too_large"),
    "one header": (GET + b"A: ", b"v" * 65_536, "headers_too_large"),
    "one name": (GET, b"n" * 65_536, "headers_too_large"),
    "the URL": (b"GET /", b"u" * 65_536, "uri_too_long"),
    "the query": (b"GET /?", b"q" * 65_536, "uri_too_long"),
    "blank lines": (b"", b"\r\n" * 32_768, "headers_too_large"),
    "a chunk's extension": (CHUNKED + b"5;", b"e" * 65_536, "headers_too_large"),
    "small chunks with extensions": (CHUNKED, (b"1;" + b"e" * 200 + b"\r\n \r\n") * 300, "headers_too_large"),
    "trailers": (CHUNKED + b"0\r\n", b"".join(b"a%d: b\r\n" % number for number in range(8_000)), "headers_too_large"),
}


async def test_floods_of_heads_are_refused_and_take_no_memory() -> None:
    async with served_process(REDRAFT_ENGINE="scripted") as (process, http):
        memory = psutil.Process(process.pid).memory_info
        await http.get("/health/live")
        before = memory().rss
        for name, (begin, block, code) in FLOODS.items():
            async with connected(http) as client:
                client.send(begin)
                for _ in range(4):  # as much as is heard before the client reads the answer
                    client.send(block)
                assert (await client.answer()).json()["code"] == code, name
            async with connected(http) as client:
                client.send(begin)
                await client.flood(block)
        assert memory().rss - before < 16 * MEBIBYTES
        assert (await http.get("/health/live")).status_code == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /health/live?" + b"q" * 16_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        GET + b"A: " + b"v" * 60_000 + b"\r\n\r\n",
        GET + b"".join(b"a%d: b\r\n" % number for number in range(99)) + b"\r\n",
        b"\r\n\r\n" + GET + b"\r\n",
    ],
    ids=["a long URL", "a long header", "a hundred headers", "blank lines before it"],
)
async def test_a_head_within_the_bounds_is_served(served: Served, raw: bytes) -> None:
    async with connected(served.client) as client:
        for _ in range(2):  # the bounds are those of one request, not of the connection
            client.send(raw)
            assert (await client.answer()).status_code == 200


async def test_a_body_in_small_chunks_is_served(served: Served) -> None:
    body = json.dumps({"prompt": "Waves. " * 3_000}).encode()
    chunks = b"".join(b"%x\r\n%b\r\n" % (1, body[start : start + 1]) for start in range(len(body)))
    async with connected(served.client) as client:
        client.send(CHUNKED + chunks + b"0\r\n\r\n")
        assert (await client.answer()).status_code == 200


NOT_HTTP = {
    "noise": b"\x00\x01\r\n\r\n",
    "TLS": bytes.fromhex("1603010200010001fc0303") + b"a" * 100,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no path": b"GET\r\n\r\n",
    "a path that is not ASCII": "GET /é HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode(),
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    "NUL in a header": GET + b"A: b\x00c\r\n\r\n",
    "a folded header": GET + b"A: b\r\n c\r\n\r\n",
    "a length with a sign": POST + b"Content-Length: +5\r\n\r\n",
    "a length below zero": POST + b"Content-Length: -1\r\n\r\n",
    "a length with an underscore": POST + b"Content-Length: 5_0\r\n\r\n",
    "a length in other digits": POST + "Content-Length: ٣\r\n\r\n".encode(),
    "a length with a superscript": POST + b"Content-Length: \xb2\r\n\r\n",
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length twice": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a list of lengths": POST + b"Content-Length: 2, 2\r\n\r\n{}",
    "a length of 20 digits": POST + b"Content-Length: " + b"9" * 20 + b"\r\n\r\n",
    "a length of 5,001 digits": POST + b"Content-Length: " + b"9" * 5_001 + b"\r\n\r\n",
    "5,000 zeros before a length": POST + b"Content-Length: " + b"0" * 5_000 + b"2\r\n\r\n{}",
    "a length and chunks": POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk without a size": CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    "a chunk of endless size": CHUNKED + b"f" * 30 + b"\r\n{}",
}


@pytest.mark.parametrize("raw", NOT_HTTP.values(), ids=list(NOT_HTTP))
async def test_what_is_not_http_gets_a_problem_document(
    served: Served, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(served.client) as client:
        client.send(raw)
        assert problem(await client.answer()) == (400, "malformed_request")
    assert [entry for entry in caplog.records if entry.levelname in ("WARNING", "ERROR")] == []
    page = (await served.client.get("/metrics")).text
    assert re.search(r'redraft_requests_total\{endpoint="(unmatched|/v1/generate)",status="400"\} 1\.0', page)


async def test_a_refusal_on_openai_s_routes_has_openai_s_form(served: Served) -> None:
    async with connected(served.client) as client:
        client.send(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"a: b\r\n" * 200)
        response = await client.answer()
    assert (response.status_code, response.json()["error"]["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize(("path", "status"), [("/health/live", 200), ("/v1/refine", 405), ("/ws", 404)])
@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
async def test_a_request_for_another_protocol_is_answered_in_this_one(
    served: Served, path: str, status: int, protocol: bytes
) -> None:
    async with connected(served.client) as client:
        client.send(b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n" % path.encode())
        client.send(b"Upgrade: %b\r\nSec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\n\r\n" % protocol)
        response = await client.answer()
    assert response.status_code == status
    assert response.headers["x-request-id"]


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQBAAAA\r\n"
STATED = b"Content-Length: %d\r\n\r\n" % len(BODY)
IN_CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("framing", [STATED, IN_CHUNKS], ids=["stated", "chunked"])
@pytest.mark.parametrize("pieces", [1, 2, 1_000])
async def test_a_request_for_another_protocol_keeps_its_body(served: Served, framing: bytes, pieces: int) -> None:
    body = BODY if framing is STATED else b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    raw = POST + UPGRADE + framing + body
    async with connected(served.client) as client:
        for _ in range(2):
            size = -(-len(raw) // pieces)
            for start in range(0, len(raw), size):
                client.send(raw[start : start + size])
                await asyncio.sleep(0)
            response = await client.answer()
            assert (response.status_code, len(response.json()["choices"])) == (200, 1)
            assert "connection" not in response.headers


async def test_the_body_of_a_request_for_another_protocol_is_no_request(served: Served) -> None:
    inside = b"GET /v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    async with connected(served.client) as client:
        client.send(POST + UPGRADE + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(inside))
        await asyncio.sleep(0.05)
        client.send(inside)
        assert problem(await client.answer()) == (400, "malformed_body")
        assert await client.closed() == b""


async def test_connect_is_refused(served: Served) -> None:
    async with connected(served.client) as client:
        client.send(b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n")
        assert problem(await client.answer()) == (400, "malformed_request")
        assert await client.closed() == b""


async def test_trailers_are_no_headers() -> None:
    async with serving(api_keys=KEY) as served, connected(served.client) as client:
        client.send(CHUNKED + b"2\r\n{}\r\n0\r\nAuthorization: Bearer secret\r\n\r\n")
        assert problem(await client.answer()) == (401, "unauthorized")
        client.send(b"GET /v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert problem(await client.answer()) == (401, "unauthorized")


BEHIND = {
    "nothing": b"",
    "a request": GET + b"\r\n",
    "the same request": posted(BODY),
    "half a request": GET,
    "noise": b"\x00\x01\r\n\r\n",
    "half a body": POST + b"Content-Length: 200000\r\n\r\n" + b"a" * 100_000,
}


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("at_once", [False, True], ids=["later", "in one piece"])
@pytest.mark.parametrize("body", [BODY, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize("behind", BEHIND.values(), ids=list(BEHIND))
async def test_leaving_ends_the_work_whatever_was_sent_behind_the_request(
    served: Served, behind: bytes, body: bytes, at_once: bool, reset: bool
) -> None:
    reached = asyncio.Event()
    stall(served.engine, lambda call: True, reached.set)
    async with connected(served.client) as client:
        client.send(posted(body) + (behind if at_once else b""))
        await asyncio.wait_for(reached.wait(), 5)
        client.send(b"" if at_once else behind)
        await client.writer.drain()
        assert len(served.engine.calls) == 1
        if reset:
            client.reset()
        else:
            client.writer.close()
        await served.at_rest()
    assert len(served.engine.calls) == 1


async def test_a_client_that_ends_its_sending_has_left(served: Served) -> None:
    reached = asyncio.Event()
    stall(served.engine, lambda call: True, reached.set)
    async with connected(served.client) as client:
        client.send(posted(BODY))
        await asyncio.wait_for(reached.wait(), 5)
        client.writer.write_eof()
        await served.at_rest()
        assert await client.closed() == b""


@pytest.mark.parametrize("behind", [GET + b"\r\n", b"\x00\x01\r\n\r\n"], ids=["a request", "noise"])
async def test_what_is_pipelined_is_dropped_and_the_answer_closes_the_connection(served: Served, behind: bytes) -> None:
    async with connected(served.client) as client:
        client.send(posted(BODY) + behind)
        response = await client.answer()
        assert (response.status_code, response.headers["connection"]) == (200, "close")
        assert await client.closed() == b""


async def test_a_client_that_sends_on_and_on_behind_its_request_is_cut_off(served: Served) -> None:
    reached = asyncio.Event()
    stall(served.engine, lambda call: True, reached.set)
    async with connected(served.client) as client:
        client.send(posted(BODY))
        await asyncio.wait_for(reached.wait(), 5)
        await client.flood(b"x" * 65_536)
        await served.at_rest()


async def test_a_client_that_still_sends_its_body_does_not_lose_the_refusal() -> None:
    async with serving(max_batch_bytes=100_000_000) as served:
        served.app.state.admission.drain()
        async with connected(served.client) as client:
            client.send(b"POST /v1/batch HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 20000000\r\n\r\n")
            for _ in range(200):
                client.send(b" " * 100_000)
                await client.writer.drain()
            response = await client.answer()
            assert (problem(response), response.headers["connection"]) == ((503, "draining"), "close")
            assert await client.closed() == b""


@pytest.fixture
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CHECK_SECONDS", 0.02)
    for name in ("HEAD_SECONDS", "SEND_SECONDS", "LINGER_SECONDS"):
        monkeypatch.setattr(connection, name, 0.2)


@pytest.mark.usefixtures("_hurried")
@pytest.mark.parametrize("begun", [b"G", GET, GET + b"A: b"], ids=["a letter", "headers", "half a header"])
async def test_a_head_that_does_not_end_is_given_up(served: Served, begun: bytes) -> None:
    async with connected(served.client) as client:
        client.send(begun)
        assert problem(await client.answer()) == (408, "head_timeout")
        assert await client.closed() == b""


@pytest.mark.usefixtures("_hurried")
async def test_the_time_for_a_head_does_not_begin_again_with_each_byte(served: Served) -> None:
    async def drip(client: Client) -> None:
        while True:
            client.send(b"a")
            await asyncio.sleep(0.01)

    async with connected(served.client) as client:
        client.send(GET)
        dripping = asyncio.create_task(drip(client))
        assert problem(await client.answer()) == (408, "head_timeout")
        dripping.cancel()


@pytest.mark.usefixtures("_hurried")
async def test_a_connection_that_sends_nothing_is_closed(served: Served) -> None:
    async with connected(served.client) as client:
        assert await client.closed() == b""


@pytest.mark.usefixtures("_hurried")
async def test_a_body_that_was_refused_may_not_go_on_for_ever(served: Served) -> None:
    async with connected(served.client) as client:
        client.send(POST + b"Content-Length: 2000000\r\n\r\n")
        assert problem(await client.answer()) == (413, "body_too_large")
        await client.flood(b"x", pause=0.01)


LONG = Script(reply=lambda call: "w" * 5_000_000)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_an_answer_that_nobody_reads_is_let_go(stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps({"prompt": "Write.", "n": 4, "stream": stream}).encode()
    async with serving(LONG) as served, connected(served.client, receive_buffer=4_096) as client:
        monkeypatch.setattr(connection, "CHECK_SECONDS", 0.02)
        monkeypatch.setattr(connection, "SEND_SECONDS", 0.2)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(posted(body))
        await served.until(lambda: served.app.state.admission.in_progress == 1)

        async def rests() -> bool:
            return bool(served.app.state.admission.in_progress == 0)

        await until(rests)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await client.closed()) < 2_000_000


async def test_an_answer_keeps_its_place_until_it_is_taken() -> None:
    async with serving(LONG) as served, connected(served.client, receive_buffer=4_096) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(posted(BODY))
        await served.until(lambda: len(served.engine.calls) == 1 and served.engine.in_flight == 0)
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert served.app.state.admission.in_progress == 1
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        response = await client.answer()
        await served.at_rest()
    assert len(response.json()["choices"][0]["text"]) == 5_000_000


@pytest.mark.parametrize("length", [0, 65_525, 65_526, 300_000])
async def test_the_last_byte_of_an_answer_is_sent_with_its_end(length: int) -> None:
    peer = Peer()
    await peer.call(JsonAnswer(ended("w" * length), Text.written))
    assert len(peer.json["text"]) == length
    assert [message["more_body"] for message in peer.sent[1:] if message["body"]][-1] is False
    assert peer.sent[-1]["body"]


async def test_a_client_may_send_the_next_request_as_soon_as_it_has_the_answer() -> None:
    async with served_process(REDRAFT_ENGINE="scripted") as (_, http), connected(http) as client:
        for _ in range(200):
            client.send(posted(BODY))
            response = await client.answer()
            assert response.status_code == 200
            assert "connection" not in response.headers


async def test_a_reader_that_is_slow_but_reads_gets_the_whole_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CHECK_SECONDS", 0.1)
    monkeypatch.setattr(connection, "SEND_SECONDS", 1.5)
    async with serving(LONG) as served, connected(served.client, receive_buffer=65_536) as client:
        client.send(posted(BODY))
        read = len(await client.reader.readuntil(b"\r\n\r\n"))
        async with asyncio.timeout(60):
            while read < 5_000_000:
                read += len(await client.reader.read(200_000))
                await asyncio.sleep(0.1)


async def test_past_the_bound_on_connections_the_one_that_waits_longest_gives_way() -> None:
    async with serving(max_connections=3) as served:
        async with connected(served.client) as first, connected(served.client) as second:
            first.send(GET)
            async with connected(served.client) as third:
                for client in (second, third):
                    client.send(GET + b"\r\n")
                    assert (await client.answer()).status_code == 200
        assert await first.closed() == b""


async def test_past_the_bound_on_connections_none_gives_way_that_is_at_work() -> None:
    async with serving(max_connections=2) as served:
        await served.client.aclose()
        stall(served.engine, lambda call: True, lambda: None)
        async with connected(served.client) as first, connected(served.client) as second:
            first.send(posted(BODY))
            second.send(posted(BODY))
            await served.until(lambda: served.engine.in_flight == 2)
            async with connected(served.client) as third:
                third.send(GET + b"\r\n")
                response = await third.answer()
                assert problem(response) == (503, "overloaded")
                assert response.headers["retry-after"] == "1"
            assert served.engine.in_flight == 2
