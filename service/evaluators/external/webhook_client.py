"""The operator's webhooks, and the HTTP client that asks them. The protocol is described in docs/guide/webhooks.md.

Requests go through a bare httpx transport: without a client around it nothing follows redirects, keeps cookies, reads
proxies or passwords from the environment, decompresses, or logs a URL. Headers and signatures are those of Standard
Webhooks (https://www.standardwebhooks.com/).
"""

import asyncio
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar
from uuid import uuid4

import httpx
from annotated_types import Gt, Le
from standardwebhooks import Webhook as Signer

from service.evaluators.base import Authority, EvaluationFailed
from service.outbound import ForbiddenAddress, PublicTransport, parse_origin, parse_url
from service.signatures import WebhookMisconfigured, make_headers, read_signers
from service.spans import current

DEFAULT_SECONDS = 10.0
MAX_ANSWER_BYTES = 65_536
BACKOFFS = (0.25, 0.5)
"""The longest pause before the second attempt and before the third, in seconds; no attempt follows that."""
BUSY = (429, 502, 503, 504)
"""Statuses after which another attempt makes sense."""
CONNECTIONS = httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=2.0)
"""To one webhook. Connections are dropped well before the five seconds after which many a server closes them."""


class WebhookFailed(EvaluationFailed):
    """No answer, or one that cannot be used. The message is for the caller, and holds no URL and no address."""

    loggable = True


class WebhookMistaken(WebhookFailed):
    """An answer in another form than it has to have. The message may hold a part of it."""

    loggable = False


class WebhookBusy(WebhookFailed):
    """``retry_after``: whole seconds that the webhook asks to wait, 0 where it does not say."""

    def __init__(self, status: int, retry_after: int) -> None:
        super().__init__(f"the answer has the status {status}")
        self.retry_after = retry_after


@dataclass(frozen=True, kw_only=True)
class WebhookSettings:
    """One webhook in ``REDRAFT_WEBHOOKS``. ``timeout_seconds`` is for all attempts together."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    url: str = field(repr=False)
    authority: Authority = "verifier"
    timeout_seconds: Annotated[float, Gt(0.0), Le(60.0)] = DEFAULT_SECONDS
    secret_file: Path | None = None

    def __post_init__(self) -> None:
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL:
            raise ValueError("a webhook's url is not a URL") from None
        if url.scheme not in ("http", "https") or not url.host or (url.port or 1) > 65535:
            raise ValueError("a webhook's url is http or https, with a host")
        if url.userinfo or url.fragment:
            raise ValueError("a webhook's url has no user name and no fragment")


@dataclass(frozen=True)
class Hook:
    """Where to ask. ``name`` is the operator's; None where the URL is a caller's own.

    ``signers``: one for each secret. A receiver accepts the signature of any of them, so secrets can be rotated.
    """

    name: str | None
    url: httpx.URL = field(repr=False)
    authority: Authority
    timeout_seconds: float
    transport: httpx.AsyncBaseTransport = field(repr=False)
    signers: tuple[Signer, ...] = field(default=(), repr=False)

    async def ask(self, body: bytes) -> bytes:
        """The body of the answer to a JSON body. Raises WebhookFailed."""
        deadline = asyncio.get_running_loop().time() + self.timeout_seconds
        try:
            async with asyncio.timeout_at(deadline):
                return await self._attempts(uuid4().hex, body, deadline)
        except TimeoutError:
            raise WebhookFailed(f"no answer within {self.timeout_seconds:g} seconds") from None
        except ForbiddenAddress as error:
            raise WebhookFailed(str(error)) from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise WebhookFailed("no connection could be made") from error
        except httpx.TransportError as error:
            raise WebhookFailed("the connection broke before the answer was complete") from error

    def _request(self, message_id: str, body: bytes) -> httpx.Request:
        headers = {**make_headers(self.signers, message_id, datetime.now(UTC), body), **current().headers}
        timeouts = httpx.Timeout(None, connect=self.timeout_seconds / (len(BACKOFFS) + 2))
        return httpx.Request(
            "POST", self.url, headers=headers, content=body, extensions={"timeout": timeouts.as_dict()}
        )

    async def _attempts(self, message_id: str, body: bytes, deadline: float) -> bytes:
        """Exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015). What may have
        reached the webhook is sent again only if it said to be busy. The id stays the same, the timestamp does not."""
        for backoff in BACKOFFS:
            pause = random.uniform(0.0, backoff)  # noqa: S311 - nobody gains by guessing it
            try:
                return await self._attempt(self._request(message_id, body))
            except WebhookBusy as busy:
                pause += busy.retry_after
                if asyncio.get_running_loop().time() + pause >= deadline:
                    raise
            except (httpx.ConnectError, httpx.ConnectTimeout):
                pass
            await asyncio.sleep(pause)
        return await self._attempt(self._request(message_id, body))

    async def _attempt(self, request: httpx.Request) -> bytes:
        response = await self.transport.handle_async_request(request)
        try:
            if response.status_code in BUSY:
                raise WebhookBusy(response.status_code, _seconds(response.headers.get("Retry-After", "")))
            if response.status_code != 200:
                raise WebhookFailed(f"the answer has the status {response.status_code}")
            body = b""
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > MAX_ANSWER_BYTES:
                    raise WebhookFailed(f"the answer has more than {MAX_ANSWER_BYTES} bytes")
            return body
        finally:
            await response.aclose()


def _seconds(retry_after: str) -> int:
    """A Retry-After in seconds. A date counts as not said."""
    return int(retry_after) if re.fullmatch(r"[0-9]{1,6}", retry_after) else 0


class Webhooks:
    """``hosts``: where callers may name a webhook of their own, each as ``host`` or ``host:port``.

    Raises WebhookMisconfigured. ``public`` reaches the hosts; the tests' may be another.
    """

    def __init__(
        self,
        configured: Mapping[str, WebhookSettings] = MappingProxyType({}),
        hosts: Sequence[str] = (),
        *,
        public: PublicTransport | None = None,
    ) -> None:
        self._origins = {_origin(host) for host in hosts}
        self._hooks: Mapping[str, Hook] = {}
        self._public = public
        if configured or (hosts and public is None):
            tls = httpx.create_ssl_context()  # with the operator's own authorities, if SSL_CERT_FILE names some
            self._public = public or PublicTransport(tls)
            self._hooks = {
                name: Hook(
                    name,
                    httpx.URL(hook.url),
                    hook.authority,
                    hook.timeout_seconds,
                    httpx.AsyncHTTPTransport(verify=tls, limits=CONNECTIONS),  # its own: no hook waits for another
                    () if hook.secret_file is None else read_signers(f"REDRAFT_WEBHOOKS: {name}", hook.secret_file),
                )
                for name, hook in configured.items()
            }

    def named(self, name: str) -> Hook | None:
        return self._hooks.get(name)

    def at(self, url: str) -> Hook:
        """A caller's own webhook. ValueError where the URL is none, or its host is not allowed."""
        origin, parsed = parse_url(url)
        if self._public is None or origin not in self._origins:
            raise ValueError("the operator allows no webhooks of callers at this host and port")
        return Hook(None, parsed, "verifier", DEFAULT_SECONDS, self._public)

    async def close(self) -> None:
        for hook in self._hooks.values():
            await hook.transport.aclose()
        if self._public is not None:
            await self._public.aclose()


def _origin(host: str) -> tuple[str, int]:
    try:
        return parse_origin(host)
    except ValueError as error:
        raise WebhookMisconfigured(f"REDRAFT_WEBHOOK_HOSTS: {host!r}: {error}") from None
