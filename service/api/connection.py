"""One client's connection: uvicorn's HTTP protocol, with bounds on what a client may send and on how long it may take.

| what | bound | past it |
| --- | --- | --- |
| the request line's URL | MAX_URL_BYTES | 414 |
| all of a request but its body: its head, the framing of chunks, trailers | MAX_HEAD_BYTES | 431 |
| headers of a request | MAX_HEADERS | 431 |
| the time in which a head arrives | HEAD_SECONDS | 408; a connection that has sent nothing is closed |
| the time in which a client takes something of an answer that waits for it | SEND_SECONDS | the connection is reset |
| what a client sends behind a request, before it has the answer | MAX_DROPPED_BYTES | the connection is reset |
| the time to end a body whose answer is there, or to close after the last answer | LINGER_SECONDS | the same |
| connections at once | uvicorn's ``limit_concurrency`` | the one that waits longest for a head is reset, or else 503 |

A refusal is made by the app: the protocol runs it with the error under ``state["refused"]``, and RequestContext answers
that as any other error. So it has an id, a problem document, a line in the log and its place in the metrics.

A connection carries one request at a time. What is pipelined behind it is dropped, and the answer closes the
connection, so that the client sends it again on another one. The socket is read all the while, because only a read
tells that a client has left: uvicorn stops reading while a request waits behind another.

A client that shuts down its sending side counts as one that has left: on the wire both are the same FIN.
"""

import asyncio
import random
import socket
import struct
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.api.middleware import REFUSED
from service.errors import (
    HeadersTooLarge,
    HeadTimeout,
    MalformedRequest,
    Overloaded,
    RedraftError,
    UriTooLong,
)

MAX_HEAD_BYTES = 65_536
MAX_URL_BYTES = 16_384
MAX_HEADERS = 100
MAX_DROPPED_BYTES = 1_048_576
PIECE_BYTES = 8_192
"""Bytes parsed at once. A head is rejected at most this many bytes past its limit."""
CHUNK_BYTES = 32
"""So many bytes of each chunk's framing do not count: enough for its size and its line ends."""

HEAD_SECONDS = 10.0
SEND_SECONDS = 30.0
LINGER_SECONDS = 30.0
CHECK_SECONDS = 1.0
SEND_BUFFER_BYTES = 65_536
"""What the kernel may hold of an answer; Linux takes it twice. It grows to megabytes by itself, and a slow reader would
then seem to take nothing for minutes."""

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() drops what the kernel still holds


class Connection(HttpToolsProtocol):
    """The ``http`` class of a uvicorn.Config, whose ``limit_concurrency`` bounds the connections at once."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._begin_parsing()
        self._max_connections = self.limit_concurrency
        self.limit_concurrency = None  # uvicorn's own refusal is no problem document
        self._since = 0.0  # when the connection came to wait for a head, to begin one, to work, or to have answered
        self._framing_bytes = 0  # of the request that arrives, without its body
        self._in_head = False
        self._message_open = False  # whether a request has begun and not arrived in full
        self._deaf = False  # whether all that still comes is dropped
        self._dropped_bytes = 0
        self._ended = False  # whether nothing more is sent
        self._unsent_bytes = 0
        self._unsent_since = 0.0
        self._watch: asyncio.TimerHandle | None = None

    # What the transport tells.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _set_option(transport, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._since = self.loop.time()
        # Connections that were made together are not all given up at the same moment.
        self._check_later(CHECK_SECONDS * random.random())  # noqa: S311 - nothing secret is drawn
        if self._max_connections is not None and len(self.connections) > self._max_connections:
            self._make_room(self._max_connections)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        for start in range(0, len(data), PIECE_BYTES):
            if self._at_work and not self._message_open:
                self._stop_listening()
            if self._deaf:
                self._drop(len(data) - start)
                return
            self._parse(data[start : start + PIECE_BYTES])

    # What the parser tells.

    def on_message_begin(self) -> None:
        if self._at_work:
            self._stop_listening()
            raise _NotHeard
        super().on_message_begin()
        self._in_head = self._message_open = True

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            raise UriTooLong(f"a URL may have at most {MAX_URL_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer: it must not pass for a header that was there when the request was let in
        if len(self.headers) >= MAX_HEADERS:
            raise HeadersTooLarge(f"a request may have at most {MAX_HEADERS} headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._asks_for_another_protocol:
            return
        self._in_head = False
        self._since = self.loop.time()
        super().on_headers_complete()
        self.cycle.transport = _LingeringTransport(self.transport, self._close)

    def on_body(self, body: bytes) -> None:
        self._framing_bytes -= len(body)
        super().on_body(body)

    def on_chunk_complete(self) -> None:
        self._framing_bytes = max(self._framing_bytes - CHUNK_BYTES, 0)

    def on_message_complete(self) -> None:
        if self._asks_for_another_protocol:
            return
        self._framing_bytes = 0
        self._message_open = False
        super().on_message_complete()
        if self._ended:
            self.transport.close()

    def on_response_complete(self) -> None:
        self._since = self.loop.time()
        super().on_response_complete()

    # The bounds.

    @property
    def _at_work(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _parse(self, piece: bytes) -> None:
        if not self._framing_bytes and not self._message_open:
            self._since = self.loop.time()
        self._framing_bytes += len(piece)
        try:
            self._feed(piece)
        except httptools.HttpParserError as error:
            known = error.__context__
            if not isinstance(known, _NotHeard):
                self._refuse(known if isinstance(known, RedraftError) else MalformedRequest("this is not HTTP/1.1"))
        else:
            if self._framing_bytes > MAX_HEAD_BYTES:
                self._refuse(HeadersTooLarge(f"a request may have at most {MAX_HEAD_BYTES} bytes besides its body"))

    def _feed(self, piece: bytes) -> None:
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay_with_http(piece[upgrade.args[0] :])

    @property
    def _asks_for_another_protocol(self) -> bool:
        """CONNECT does so too, by its method, and is refused for its URL."""
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _stay_with_http(self, rest: bytes) -> None:
        """Answer a request as if it did not ask for another protocol.

        The parser takes all behind such a head for that protocol's, and the body would then pass for a request. So
        another parser reads the head again, without that header.
        """
        head = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        head += [b"%b: %b" % (name, value) for name, value in self.headers if name != b"upgrade"]
        self._begin_parsing()
        self.parser.feed_data(b"\r\n".join([*head, b"", b""]))
        self._feed(rest)

    def _begin_parsing(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # it is dropped later

    def _refuse(self, error: RedraftError) -> None:
        """Have the app answer with ``error``, and hear no more."""
        if self._ended:
            self._reset()
            return
        if not self._at_work:
            self._begin_refusal()
        self.cycle.scope.setdefault("state", {})[REFUSED] = error
        self.cycle.message_event.set()
        self._stop_listening()

    def _begin_refusal(self) -> None:
        """Give the app what is known of a request that did not arrive."""
        url = self.url if self._in_head else b""
        super().on_message_begin()
        path = url.partition(b"?")[0].decode("latin-1") or "/"
        self.scope |= {"path": path, "raw_path": path.encode("latin-1"), "query_string": b""}
        self.scope["method"] = self.parser.get_method().decode() if url else "GET"
        self.cycle = RequestResponseCycle(
            scope=self.scope,
            transport=_LingeringTransport(self.transport, self._close),
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=False,
            on_response=self.on_response_complete,
        )
        self._start_asgi_task(self.cycle, self.app)

    def _stop_listening(self) -> None:
        """Drop what still comes; the answer that is at work is the last."""
        self._deaf = True
        self.cycle.keep_alive = False

    def _close(self) -> None:
        """End the connection after its last answer.

        Closing while the client still sends would reset the connection, and the client might lose the answer with it.
        So only the sending ends then, and the socket is read until the client closes.
        """
        if not (self._deaf or self._message_open):
            self.transport.close()
        elif self._is_open:
            self._ended = True
            self.transport.write_eof()

    def _drop(self, count: int) -> None:
        self._dropped_bytes += count
        if self._dropped_bytes > MAX_DROPPED_BYTES:
            self._reset()

    def _make_room(self, max_connections: int) -> None:
        others = [c for c in self.connections if isinstance(c, Connection) and c is not self and c._is_open]
        if len(others) < max_connections:
            return
        waiting = [connection for connection in others if not connection._at_work]
        if waiting:
            min(waiting, key=lambda connection: connection._since)._reset()
        else:
            self._refuse(Overloaded("the service has as many connections as it may"))

    @property
    def _is_open(self) -> bool:
        return not self.transport.is_closing()

    def _reset(self) -> None:
        """Close at once, and let go of what the client has not taken."""
        _set_option(self.transport, socket.SO_LINGER, RESET)
        self.transport.abort()

    # The times.

    def _check_later(self, seconds: float) -> None:
        self._watch = self.loop.call_later(seconds, self._check)

    def _check(self) -> None:
        self._check_later(CHECK_SECONDS)
        now = self.loop.time()
        waited = now - self._since
        if self._takes_nothing(now):
            self._reset()
        elif not self._is_open or self._at_work:
            return
        elif self._deaf or (self._message_open and self.cycle is not None and not self._in_head):
            if waited >= LINGER_SECONDS:
                self._reset()
        elif self._framing_bytes:
            if waited >= HEAD_SECONDS:
                self._refuse(HeadTimeout(f"the head of a request must arrive within {HEAD_SECONDS:g} seconds"))
        elif self.cycle is None and waited >= HEAD_SECONDS:
            self.transport.close()

    def _takes_nothing(self, now: float) -> bool:
        """Whether an answer has waited for the client for SEND_SECONDS, and the client has taken nothing of it."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent_bytes:
            self._unsent_bytes, self._unsent_since = unsent, now
        return now - self._unsent_since >= SEND_SECONDS


class _NotHeard(Exception):
    """Ends the parsing of what came behind a request."""


class _LingeringTransport(asyncio.Transport):
    """What a request is answered through: ``close`` is called where the transport would be closed.

    What is written first, the head, waits for what follows at once, so that a short answer is one packet.
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        super().__init__()
        self._transport = transport
        self._close = close
        self._head: bytes | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._head is None:
            self._head = bytes(data)
            asyncio.get_running_loop().call_soon(self._flush)
        elif self._head:
            head, self._head = self._head, b""
            self._transport.write(head + data)
        else:
            self._transport.write(data)

    def _flush(self) -> None:
        if self._head:
            self._transport.write(self._head)
            self._head = b""

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._flush()
        self._close()


def _set_option(transport: asyncio.Transport, option: int, value: int | bytes) -> None:
    connected = transport.get_extra_info("socket")
    if connected is not None:
        connected.setsockopt(socket.SOL_SOCKET, option, value)
