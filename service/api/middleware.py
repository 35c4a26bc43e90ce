"""What every request passes through, outside in: RequestTrace where requests are traced, RequestContext, BodyLimit.

``add_middleware`` puts the one added last outside, so they are added the other way round.
"""

import asyncio
import re
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import make_response
from service.errors import BodyTooLarge, Draining, MalformedRequest, RedraftError
from service.spans import Tracer, within
from service.wire.problems import make_public

HEADER = "X-Request-ID"
REFUSED = "refused"
"""Where the server puts into ``scope["state"]`` why it gives up a request: a RedraftError."""
DECLARED_BYTES = re.compile(r"[0-9]{1,19}")
SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
UNMATCHED = "unmatched"
CLIENT_LEFT_STATUS = 499  # nginx's word for a client that left before the response began


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request, finished. ``endpoint`` is its route's path template, or UNMATCHED.

    ``caller`` is what the route put into ``request.state.caller``, None where it put nothing.
    """

    endpoint: str
    method: str
    status: int
    seconds: float
    request_id: str
    caller: str | None


def request_id(connection: HTTPConnection) -> str:
    """The id of a request that came through RequestContext."""
    found: str = connection.state.request_id
    return found


def seconds_since_arrival(connection: HTTPConnection) -> float:
    """How long ago the head of a request that came through RequestContext was read."""
    arrived: float = connection.state.arrived
    return time.perf_counter() - arrived


class RequestTrace:
    """Serve every request within a span, but those to ``untraced`` paths. Whoever knows the request's end tells it."""

    def __init__(self, app: ASGIApp, tracer: Tracer, untraced: Collection[str]) -> None:
        self.app = app
        self.tracer = tracer
        self.untraced = untraced

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self.untraced:
            await self.app(scope, receive, send)
            return
        method = scope["method"]
        known = {"http.request.method": method, "url.path": scope["path"], "url.scheme": scope["scheme"]}
        with within(self.tracer.request(method, Headers(scope=scope), known)):
            await self.app(scope, receive, send)


class RequestContext:
    """Give every request an id and every response its X-Request-ID; answer what the app failed to; report the end.

    ``on_finished`` is called once a request, when the last byte was sent or the request was given up.
    """

    def __init__(self, app: ASGIApp, on_finished: Callable[[RequestRecord], None]) -> None:
        self.app = app
        self.on_finished = on_finished

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        response = _Response(_accept_or_make_id(scope), send)
        began = time.perf_counter()
        scope.setdefault("state", {}).update(request_id=response.request_id, arrived=began)
        try:
            await self._answer(scope, receive, response)
        finally:
            self.on_finished(
                RequestRecord(
                    endpoint=getattr(scope.get("route"), "path", UNMATCHED),
                    method=scope["method"],
                    status=CLIENT_LEFT_STATUS if response.status is None else response.status,
                    seconds=time.perf_counter() - began,
                    request_id=response.request_id,
                    caller=scope["state"].get("caller"),
                )
            )

    async def _answer(self, scope: Scope, receive: Receive, response: "_Response") -> None:
        try:
            _check_accepted(scope)
            await self.app(scope, _check_each_message(receive, scope), response.send)
        except ClientDisconnect:
            pass  # there is nobody to answer
        except asyncio.CancelledError:  # the server ends, and cancels what is left; it expects no cancellation back
            await self._refuse(Draining("the service has shut down"), scope, receive, response)
        except Exception as error:  # noqa: BLE001 (public logs it)
            await self._refuse(make_public(error, response.request_id), scope, receive, response)

    async def _refuse(self, error: RedraftError, scope: Scope, receive: Receive, response: "_Response") -> None:
        if response.status is None:  # otherwise the server closes the connection, for the response is cut short
            await make_response(error, scope["path"])(scope, receive, response.send)


class BodyLimit:
    """Refuse a body that is too large by its Content-Length, or while it streams in. Nothing is buffered.

    ``max_bytes`` for every path but those in ``others``, which have a bound of their own.

    Raises BodyTooLarge or MalformedRequest, which become responses outside. The connection stays open and the server
    drops what still comes: closing it would reset it under a client that still sends, which then never reads the
    refusal.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, others: Mapping[str, int] = MappingProxyType({})) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        max_bytes = self.others.get(scope["path"], self.max_bytes)
        _check_size(_declared_bytes(scope), max_bytes)
        await self.app(scope, self._count_bytes(receive, max_bytes), send)

    def _count_bytes(self, receive: Receive, max_bytes: int) -> Receive:
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            _check_size(received, max_bytes)
            return message

        return counted


def _check_accepted(scope: Scope) -> None:
    refused = scope["state"].get(REFUSED)
    if isinstance(refused, RedraftError):
        raise refused


def _check_each_message(receive: Receive, scope: Scope) -> Receive:
    """``receive``, but raises why the server has given up the request meanwhile."""

    async def checked() -> Message:
        message = await receive()
        _check_accepted(scope)
        return message

    return checked


def _declared_bytes(scope: Scope) -> int:
    """What Content-Length says, 0 without one."""
    declared = Headers(scope=scope).get("content-length", "0")
    if not DECLARED_BYTES.fullmatch(declared):
        raise MalformedRequest("a Content-Length is a number of at most 19 digits")
    return int(declared)


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise BodyTooLarge(f"a body may have at most {max_bytes} bytes")


class _Response:
    """The way out of one request: notes the status and adds the id. ``status`` is None until the response begins."""

    def __init__(self, request_id: str, send: Send) -> None:
        self.request_id = request_id
        self.status: int | None = None
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message.setdefault("headers", [])
            MutableHeaders(scope=message)[HEADER] = self.request_id
        await self._send(message)


def _accept_or_make_id(scope: Scope) -> str:
    offered = Headers(scope=scope).get(HEADER, "")
    return offered if SANE_ID.fullmatch(offered) else uuid.uuid4().hex
