"""What both clients share: how to connect, how to build a request, and when to send it again."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, TypeVar

import httpx

from redraft.errors import Busy, ConnectionFailed, ProblemError, RedraftError
from redraft.proxies import find_proxy, map_proxy_errors

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT_SECONDS = 660.0  # a bit more than the service's own limit, so that its answer comes first
CONNECT_SECONDS = 5.0
# Idle connections are closed before the service closes them, so that no request is sent on one that is closing.
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=2.0)
LONGEST_WAIT_SECONDS = 60.0  # the service does not ask for more
FIRST_RECONNECT_SECONDS = 0.5

C = TypeVar("C", httpx.Client, httpx.AsyncClient)
E_co = TypeVar("E_co", covariant=True)


class StreamReader(Protocol[E_co]):
    """Turns the chunks of a response into items. ``is_finished``: whether the last item has come."""

    @property
    def is_finished(self) -> bool: ...

    def feed(self, chunk: bytes) -> Iterator[E_co]: ...


def make_client(kind: Callable[..., C], url: str) -> C:
    """Make an HTTP client that uses the environment's proxy for the URL, if there is one. Raises InvalidProxy."""
    proxy = find_proxy(httpx.URL(url))
    with map_proxy_errors(proxy):
        return kind(limits=LIMITS, proxy=proxy, trust_env=False, verify=httpx.create_ssl_context())


@dataclass(frozen=True)
class Exchange:
    """How to reach a service.

    url: with or without ``/v1``. timeout: seconds of silence, None for no limit. retries: how often a request is sent
    again, at most.
    """

    url: str
    api_key: str | None = field(repr=False)
    timeout: float | None
    retries: int

    def __post_init__(self) -> None:
        try:
            served = httpx.URL(self.url).scheme in ("http", "https") and httpx.URL(self.url).host != ""
        except httpx.InvalidURL:
            served = False
        if not served:
            raise ValueError(f"the URL must begin with http:// or https://, unlike {self.url!r}")

    @property
    def root(self) -> str:
        """The URL without a slash or ``/v1`` at its end. OpenAI's clients require ``/v1``, so people often give it."""
        return self.url.rstrip("/").removesuffix("/v1").rstrip("/")

    def build_request(
        self,
        client: httpx.Client | httpx.AsyncClient,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        key: str | None,
        further: Mapping[str, str] = MappingProxyType({}),
    ) -> httpx.Request:
        headers = {b"Authorization": self._authorization_header()} if self.api_key else {}
        if key is not None:
            headers[b"Idempotency-Key"] = key.encode()
        headers |= {name.encode(): value.encode() for name, value in further.items()}
        return client.build_request(
            method,
            f"{self.root}/v1/{path}",
            json=body,
            headers=headers,
            timeout=httpx.Timeout(self.timeout, connect=CONNECT_SECONDS),
        )

    def make_retries(self, key: str | None) -> "Retries":
        """The retries of one request."""
        return Retries(self.retries, has_key=key is not None)

    def _authorization_header(self) -> bytes:
        """The key is sent in UTF-8, because sha256sum gets it so from a terminal."""
        return b"Bearer " + (self.api_key or "").strip(" \t\r\n").encode("utf-8", "surrogateescape")


@dataclass
class Retries:
    """Decides whether one request is sent again.

    limit: how often at most. has_key: whether the service knows the request again, and works on it once.
    """

    limit: int
    has_key: bool
    _failures: int = 0

    def next_wait(self, error: RedraftError) -> float | None:
        """Seconds to wait before the request is sent again; None to give up.

        Without a key, only requests that the service refused for now, or that were never sent, are sent again.
        """
        if isinstance(error, Busy) and error.code == "still_at_work":
            return float(error.retry_after or 1)  # not a failure: the answer will come
        wait = self._wait_after(error)
        if wait is None or self._failures >= self.limit:
            return None
        self._failures += 1
        return wait

    def _wait_after(self, error: RedraftError) -> float | None:
        match error:
            case Busy(code="deadline_exceeded"):
                return None  # the request's own time limit is over, and another try would take as long
            case Busy(retry_after=int(seconds)) if seconds <= LONGEST_WAIT_SECONDS:
                return float(seconds)
            case ConnectionFailed(sent=sent) if self.has_key or not sent:
                return reconnect_delay(self._failures)
            case ProblemError(status=502 | 504) if self.has_key:  # a proxy's
                return reconnect_delay(self._failures)
            case _:
                return None


def reconnect_delay(attempt: int) -> float:
    """Seconds to wait before a connection is made again. ``attempt``: how often it failed before."""
    return min(FIRST_RECONNECT_SECONDS * 2.0**attempt, LONGEST_WAIT_SECONDS)
