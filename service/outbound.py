"""Requests to hosts that callers choose: only to hosts that the operator allows, and only to public addresses.

A host is resolved once for each request. If any of its addresses is not public, the request is refused. Otherwise it
goes to an address that was checked, so a name server cannot give one address to the check and another to the connection
(DNS rebinding). TLS and the Host header keep the name.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import httpx

IPAddress = IPv4Address | IPv6Address
Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Returns the addresses of a host. Raises OSError if it has none."""

MOST_CONNECTIONS = 64
RESOLVER_THREADS = 4

_GLOBAL_UNICAST = ip_network("2000::/3")
"""It excludes loopback, private and multicast addresses, and nearly all that embed an IPv4 address: mapped, compatible,
NAT64."""
_NOT_PUBLIC = [
    ip_network(block)
    for block in (
        "192.0.0.0/24",  # IETF protocol assignments; the metadata of some clouds
        "192.88.99.0/24",  # 6to4 relays
        "168.63.129.16/32",  # the platform below every Azure machine
        "2001::/23",  # IETF protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
]
"""Blocks that ``is_global`` accepts, in some or all releases of Python."""
_ISATAP = 0x5EFE
"""The 32 bits before an embedded IPv4 address, under any prefix. One of them may differ (RFC 5214, section 6.1)."""


def is_public(address: IPAddress) -> bool:
    """Whether an address belongs to the public internet, and not to a block that leads elsewhere.

    >>> is_public(ip_address("10.0.0.1"))
    False
    """
    if isinstance(address, IPv6Address):
        is_isatap = (int(address) >> 32) & 0xFDFFFFFF == _ISATAP
        if address.scope_id or address not in _GLOBAL_UNICAST or is_isatap:
            return False
    return address.is_global and not address.is_multicast and not any(address in block for block in _NOT_PUBLIC)


_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_ORIGIN = re.compile(rf"((?:{_LABEL}\.)*{_LABEL})(?::([1-9][0-9]{{0,4}}))?", re.ASCII | re.IGNORECASE)
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.ASCII)
"""To a resolver, a host whose last label is a number is an IPv4 address, in any notation."""
_URL = re.compile(rf"https://({_ORIGIN.pattern})(/[\w.~!$&'()*+,;=:@%/?-]*)?", re.ASCII | re.IGNORECASE)

Origin = tuple[str, int]


def parse_origin(text: str) -> Origin:
    """Host and port of ``host`` or ``host:port``. Raises ValueError unless the host is a name in ASCII.

    >>> parse_origin("Images.Example:8443")
    ('images.example', 8443)
    """
    match = _ORIGIN.fullmatch(text)
    if match is None or len(match[1]) > 253 or _NUMERIC.fullmatch(match[1].lower()) or int(match[2] or 443) > 65535:
        raise ValueError("a host must be a name in ASCII, with :port if that is not 443")
    return match[1].lower(), int(match[2] or 443)


def parse_url(text: str) -> tuple[Origin, httpx.URL]:
    """The origin of an https URL, and the URL rebuilt from its parsed parts, so that no other parser can find another
    host in it. Raises ValueError for anything but a host that is a name, a port, a path and a query, in ASCII."""
    match = _URL.fullmatch(text)
    if match is None:
        raise ValueError("expected https://host/path, in ASCII, without a user name or a fragment")
    host, port = parse_origin(match[1])
    return (host, port), httpx.URL(scheme="https", host=host, port=port, raw_path=(match[4] or "/").encode())


class ForbiddenAddress(Exception):
    """The host must not be reached. The message is for the caller and does not contain an address."""


class PublicTransport(httpx.AsyncBaseTransport):
    """A transport for httpx that only connects to public addresses.

    It raises ForbiddenAddress, before it connects, if the host has an address that is not allowed.

    tls: for https.
    resolve: returns the addresses of a host. By default the system's resolver, in separate threads, because a name
        server may be slow.
    allowed: says whether an address may be reached.

    >>> httpx.AsyncClient(transport=PublicTransport(httpx.create_ssl_context()))
    """

    def __init__(
        self, tls: ssl.SSLContext, *, resolve: Resolve | None = None, allowed: Callable[[IPAddress], bool] = is_public
    ) -> None:
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolver")
        self._resolve = resolve or self._ask_system
        self._allowed = allowed
        # Connections are not reused: the pool identifies them by address, but an address may serve several hosts, and
        # the certificate was checked for only one of them.
        limits = httpx.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=0)
        self._transport = httpx.AsyncHTTPTransport(verify=tls, trust_env=False, limits=limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        failure: httpx.TransportError = httpx.ConnectError("the host has no address")
        for address in await self._resolve_public(_host(request)):
            try:
                return await self._transport.handle_async_request(_readdress(address, request))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure

    async def _resolve_public(self, host: str) -> Sequence[IPAddress]:
        try:
            addresses = [ip_address(address) for address in await self._resolve(host)]
        except OSError as error:
            raise httpx.ConnectError("the host could not be resolved") from error
        if not all(map(self._allowed, addresses)):
            raise ForbiddenAddress("the host has an address that is not public")
        return addresses

    async def _ask_system(self, host: str) -> Sequence[str]:
        ask = partial(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        return [str(address[0]) for *_, address in found]

    async def aclose(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._transport.aclose()


def _host(request: httpx.Request) -> str:
    """The host as it is sent. ``url.host`` decodes an international name."""
    return request.url.raw_host.decode("ascii")


def _readdress(address: IPAddress, request: httpx.Request) -> httpx.Request:
    """The same request, with the same Host header, to this address."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=str(address)),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": _host(request)},
    )
