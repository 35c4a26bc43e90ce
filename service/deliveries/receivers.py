"""Who may receive notices: URLs that the operator allows, and the HTTP client that sends to them."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import httpx
from standardwebhooks import Webhook as Signer

from service.deliveries.delivery import Destination
from service.outbound import ForbiddenAddress, PublicTransport
from service.signatures import make_headers, read_signers

TIMEOUT_SECONDS = 20.0
"""Standard Webhooks recommends 15 to 30."""
LONGEST_URL = 2_048
_PREFIX = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+/[\w.~!$&'()*+,;=:@/-]*", re.ASCII)
_REST = re.compile(r"[\w.~!$&'()*+,;=:@/-]*(\?[\w.~!$&'()*+,;=:@%/?-]*)?", re.ASCII)


class DeliveryFailed(Exception):
    """No answer. The message is for the job's caller, and holds no address."""


@dataclass(frozen=True, kw_only=True)
class ReceiverSettings:
    """A receiver in ``REDRAFT_NOTICE_RECEIVERS``.

    url: notices may go to it and to the URLs below it.
    secret_file: what signs them.
    private_addresses: whether its host may have an address that is not public. Only then may it be plain http.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    url: str = field(repr=False)
    secret_file: Path
    private_addresses: bool = False

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix) or _has_dots(self.prefix) or not _is_url(self.prefix):
            raise ValueError("a receiver's url is https://host/path, in ASCII, without a user name, query or fragment")
        if self.url.startswith("http:") and not self.private_addresses:
            raise ValueError("a receiver's url is https, unless private_addresses is true")

    @property
    def prefix(self) -> str:
        """The URL with a path, so that nothing that follows can belong to its host."""
        return f"{self.url}/" if self.url.count("/") == 2 else self.url


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver answered. ``retry_after``: the seconds that it asks to wait, 0 if it does not say."""

    status: int
    retry_after: float = 0.0


@dataclass(frozen=True)
class Receiver:
    prefix: str = field(repr=False)
    signers: tuple[Signer, ...] = field(repr=False)
    transport: httpx.AsyncBaseTransport = field(repr=False)

    def allows(self, url: str) -> bool:
        """Whether a URL is the receiver's or below it. The host is compared as text, so no parser can find another."""
        if not url.startswith(self.prefix) or len(url) > LONGEST_URL:
            return False
        rest = url.removeprefix(self.prefix)
        is_below = not rest or self.prefix.endswith("/") or rest[0] in "/?"
        return is_below and _REST.fullmatch(rest) is not None and not _has_dots(url)

    async def send(self, url: str, message_id: str, body: str, now: float) -> Answer:
        """Send a notice. Raises DeliveryFailed if there is no answer in time.

        A bare transport sends it: nothing follows redirects, keeps cookies or reads proxies from the environment.
        """
        at, content = datetime.fromtimestamp(now, UTC), body.encode()
        headers = make_headers(self.signers, message_id, at, content)
        timeouts = httpx.Timeout(None, connect=TIMEOUT_SECONDS / 2).as_dict()
        request = httpx.Request("POST", url, headers=headers, content=content, extensions={"timeout": timeouts})
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                response = await self.transport.handle_async_request(request)
                await response.aclose()
        except TimeoutError:
            raise DeliveryFailed(f"no answer within {TIMEOUT_SECONDS:g} seconds") from None
        except ForbiddenAddress as error:
            raise DeliveryFailed(str(error)) from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise DeliveryFailed("no connection could be made") from error
        except httpx.TransportError as error:
            raise DeliveryFailed("the connection broke before there was an answer") from error
        return Answer(response.status_code, _read_retry_after(response.headers.get("Retry-After", ""), now))


class Receivers:
    """All receivers.

    public: connects to those at public addresses; the tests' may be another.

    Raises WebhookMisconfigured.
    """

    def __init__(
        self,
        configured: Mapping[str, ReceiverSettings] = MappingProxyType({}),
        *,
        public: PublicTransport | None = None,
    ) -> None:
        self._receivers: dict[str, Receiver] = {}
        self._transports: list[httpx.AsyncBaseTransport] = []
        if not configured:
            return
        tls = httpx.create_ssl_context()  # with the operator's own authorities, if SSL_CERT_FILE names some
        guarded: httpx.AsyncBaseTransport = public or PublicTransport(tls)
        unguarded = httpx.AsyncHTTPTransport(verify=tls, limits=httpx.Limits(max_keepalive_connections=0))
        self._transports = [guarded, unguarded]
        for name, stated in configured.items():
            signers = read_signers(f"REDRAFT_NOTICE_RECEIVERS: {name}", stated.secret_file)
            self._receivers[name] = Receiver(stated.prefix, signers, unguarded if stated.private_addresses else guarded)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._receivers)

    def get(self, name: str) -> Receiver:
        """The receiver of one of ``names``."""
        return self._receivers[name]

    def find(self, url: str) -> Destination:
        """Whose URL it is. Raises ValueError if nobody's, with a message for the caller."""
        if not self._receivers:
            raise ValueError("this service sends no notices: its operator has not set REDRAFT_NOTICE_RECEIVERS")
        allowing = [name for name, receiver in self._receivers.items() if receiver.allows(url)]
        if not allowing:
            raise ValueError("the operator allows no notices to this URL")
        return Destination(max(allowing, key=lambda name: len(self._receivers[name].prefix)), url)

    async def close(self) -> None:
        for transport in self._transports:
            await transport.aclose()


def _is_url(text: str) -> bool:
    try:
        return (httpx.URL(text).port or 443) <= 65535
    except httpx.InvalidURL:
        return False


def _has_dots(url: str) -> bool:
    """Whether a part of the path is ``.`` or ``..``, which a server may take to lead upwards."""
    return any(part in (".", "..") for part in url.partition("?")[0].split("/"))


def _read_retry_after(value: str, now: float) -> float:
    """Seconds, from a number of them or a date. 0 for anything else."""
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except ValueError:
        return 0.0
