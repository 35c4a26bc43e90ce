"""What is left of a caller's limit, in the header fields of draft-ietf-httpapi-ratelimit-headers.

The limit is on requests in progress, not on requests in a time: ``r`` says how many more the caller may send now, and
it grows as soon as one of them ends. OpenAI's clients read their own fields for it.
"""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import OPENAI_PATHS
from service.programs.admission import Admission

POLICY = "concurrency"
FIELDS = ("RateLimit-Policy", "RateLimit")
OPENAI_FIELDS = ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests")


class RateLimits:
    """Add the fields to every response to a caller that is known. ``limit``: requests of one caller in progress."""

    def __init__(self, app: ASGIApp, admission: Admission, limit: int) -> None:
        self.app = app
        self.admission = admission
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_fields(message: Message) -> None:
            if message["type"] == "http.response.start" and (caller := scope["state"].get("caller")) is not None:
                self._add(MutableHeaders(scope=message), scope["path"], self.limit - self.admission.held_by(caller))
            await send(message)

        await self.app(scope, receive, send_with_fields if scope["type"] == "http" else send)

    def _add(self, headers: MutableHeaders, path: str, remaining: int) -> None:
        policy = f'"{POLICY}";q={self.limit};qu="concurrent-requests"'
        headers.update(dict(zip(FIELDS, (policy, f'"{POLICY}";r={remaining}'), strict=True)))
        if path.startswith(OPENAI_PATHS):
            headers.update(dict(zip(OPENAI_FIELDS, (str(self.limit), str(remaining)), strict=True)))
