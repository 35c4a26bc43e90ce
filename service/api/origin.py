"""Which hosts the service answers to, and which web pages may use it.

A browser sends what any page tells it to, also to 127.0.0.1, where a service without keys would obey. Three things
keep pages out. A body needs a JSON content type, which a page may send only after a preflight (body.py). A request by a
page of another origin is refused here by ``Sec-Fetch-Site`` and ``Origin``, which pages cannot set. And a page whose
own name was resolved to this machine, so that it counts as the same origin, is known by its ``Host``.

Sources: Fetch Metadata Request Headers (W3C), RFC 6454 section 7, RFC 9110 section 7.2.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.idempotency import REPLAYED
from service.api.middleware import HEADER
from service.api.rate_limits import FIELDS, OPENAI_FIELDS
from service.errors import Forbidden

ANY = "*"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
OWN_SITE = ("same-origin", "none")
EXPOSED = (
    HEADER,
    "Location",
    "Preference-Applied",
    "Allow",
    "Retry-After",
    "x-should-retry",
    REPLAYED,
    *FIELDS,
    *OPENAI_FIELDS,
)
"""The headers of answers that say something to a page. Some others, such as Content-Type, it may read anyway."""


@dataclass(frozen=True)
class OriginGuard:
    """Refuse with Forbidden what comes by another host, or from a page of another origin.

    ``hosts``: names without a port, None for any; paths in ``open_paths`` are answered by every name, for probes.
    ``origins``: pages that may use the service, None for any.
    """

    app: ASGIApp
    hosts: Collection[str] | None
    origins: Collection[str] | None
    open_paths: Collection[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            if scope["path"] not in self.open_paths:
                self._check_host(headers.getlist("host"), scope.get("server"))
            if scope.get("method") not in SAFE_METHODS:
                self._check_origin(headers)
        await self.app(scope, receive, send)

    def _check_host(self, given: Sequence[str], server: Sequence[Any] | None) -> None:
        """The address that the connection came to is no page's name."""
        if self.hosts is None:
            return
        own = str(server[0]).lower() if server else None
        names = map(_name_of, given)
        if any(name not in self.hosts and name.strip("[]") != own for name in names):
            raise Forbidden("the service does not answer to this Host: see REDRAFT_ALLOWED_HOSTS")

    def _check_origin(self, headers: Headers) -> None:
        if self.origins is None or headers.get("sec-fetch-site") in OWN_SITE:
            return
        origin = headers.get("origin")
        if origin in self.origins:
            return
        if "sec-fetch-site" in headers:
            raise Forbidden("pages of other origins may not use the service: see REDRAFT_CORS_ORIGINS")
        if origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower():
            raise Forbidden("pages of this Origin may not use the service: see REDRAFT_CORS_ORIGINS")


class Cors(CORSMiddleware):
    """Let pages of ``origins`` use the service and read its answers. A preflight needs no key, as it can have none.

    methods: those that pages may use.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str], methods: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=methods,
            allow_headers=("*",),
            expose_headers=EXPOSED,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        response.headers[HEADER] = uuid4().hex
        return response


def methods_of(routes: Iterable[BaseRoute]) -> Sequence[str]:
    """All methods that some route takes."""
    return sorted({method for route in routes if isinstance(route, Route) for method in route.methods or ()})


def _name_of(host: str) -> str:
    """A Host without its port: ``[::1]:8000`` is ``[::1]``."""
    name, colon, port = host.rpartition(":")
    if not colon or "]" in port:
        name = host
    return name.lower().removesuffix(".")
