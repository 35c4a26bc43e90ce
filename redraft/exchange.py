"""What both clients share of an exchange: the request, and whether to try it again."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from redraft.errors import Busy, ConnectionFailed, RedraftError

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT_SECONDS = 660.0  # a bit more than the service works on a request, so that its own answer comes first
CONNECT_SECONDS = 5.0
# Idle connections are given up before the service closes them, so that no request meets one that is closing.
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=2.0)
LONGEST_WAIT_SECONDS = 60.0  # the service asks for no more
FIRST_RECONNECT_SECONDS = 0.5


@dataclass(frozen=True)
class Exchange:
    """``timeout``: seconds of silence, None for no end. ``retries``: how often a request is sent again, at most."""

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
            raise ValueError(f"a URL that begins with http:// or https:// is needed, not {self.url!r}")

    @property
    def root(self) -> str:
        """The URL without a slash or ``/v1`` at its end: OpenAI's clients want it with that, and so some give it."""
        return self.url.rstrip("/").removesuffix("/v1").rstrip("/")

    def build_request(
        self, client: httpx.Client | httpx.AsyncClient, method: str, path: str, body: Mapping[str, object] | None
    ) -> httpx.Request:
        return client.build_request(
            method,
            f"{self.root}/v1/{path}",
            json=body,
            headers={b"Authorization": self._authorization_header()} if self.api_key else {},
            timeout=httpx.Timeout(self.timeout, connect=CONNECT_SECONDS),
        )

    def _authorization_header(self) -> bytes:
        """In UTF-8, as a terminal gives the key to sha256sum."""
        return b"Bearer " + (self.api_key or "").strip(" \t\r\n").encode("utf-8", "surrogateescape")

    def retry_delay(self, error: RedraftError, attempt: int) -> float | None:
        """Seconds until the request may be sent again after its ``attempt``-th failure, from 0; None for never.

        Only what the service refused and what was never sent is tried again.
        """
        match error:
            case _ if attempt >= self.retries:
                return None
            case Busy(code="deadline_exceeded"):
                return None  # the request's own time is over, and another try would take as long again
            case Busy(retry_after=int(seconds)) if seconds <= LONGEST_WAIT_SECONDS:
                return float(seconds)
            case ConnectionFailed(sent=False):
                return min(FIRST_RECONNECT_SECONDS * 2.0**attempt, LONGEST_WAIT_SECONDS)
            case _:
                return None
