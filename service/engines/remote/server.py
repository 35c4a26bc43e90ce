"""One server that speaks OpenAI's API, over HTTP: what it answers, and its failures as Redraft's errors.

Errors: those of failures.py for what the server says, TooMuch for more than was asked for, EngineUnavailable
where it cannot be reached. Cancelling a call closes its connection, and a server like vLLM's then ends the work.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, TypeVar

import httpx
from annotated_types import Ge
from pydantic import ValidationError
from pydantic_core import to_json

from service.engines.remote.answers import Completed
from service.engines.remote.bodies import (
    BYTES_A_TOKEN_ID,
    DONE,
    FAILURE_BYTES,
    LEAST_BYTES,
    LIST_BYTES,
    MOST_BYTES,
    TooMuch,
    most_bytes,
    read,
    read_beginning,
    read_events,
)
from service.engines.remote.failures import (
    Answer,
    FailureBody,
    NotOffered,
    WrongAnswer,
    error_in,
    failure,
    read_error,
)
from service.engines.remote.proxy import proxy_for
from service.errors import EngineBusy, EngineUnavailable, InvalidRequest
from service.spans import Attributes, current

log = logging.getLogger(__name__)

SCHEME_PORTS = {"http": 80, "https": 443}
CHAT = "/v1/chat/completions"
TOKENIZE = "/tokenize"
MODELS = "/v1/models"
CONNECT_SECONDS = 5.0
KEEP_ALIVE_SECONDS = 2.0
"""Less than servers wait before they close an idle connection, so that no call meets one that is closing."""
SHORT_SECONDS = 10.0
"""For what a server answers without its model."""
LONGEST_SHOWN = 200
LEAST_OF_A_KEY = 4
"""Servers that repeat a key leave at least its middle out."""
END_SECONDS = 1.0
"""From the last event of a stream to the end of its response."""


class TokenizeAnswer(Answer):
    """The tokens of a prompt; vLLM's own. ``token_strs``: where they are asked for."""

    count: Annotated[int, Ge(0)]
    tokens: list[int]
    token_strs: list[str] | None = None


A = TypeVar("A", bound=Answer)
C = TypeVar("C", bound=Completed)


class OpenAIServer:
    """``url`` is the server's address, with or without ``/v1`` at its end; ``key`` its bearer key.

    A call may take as long as it needs: its program's deadline bounds it. EngineMisconfigured where the environment
    names a proxy that cannot be used.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._key = key
        place = httpx.URL(self.url)
        self._place: Attributes = {
            "server.address": place.host,
            "server.port": place.port or SCHEME_PORTS.get(place.scheme),
        }
        self._client = httpx.AsyncClient(
            base_url=self.url,
            headers={"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {}),
            event_hooks={"request": [_join_trace]},
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=256, keepalive_expiry=KEEP_ALIVE_SECONDS
            ),
            proxy=proxy_for(self.url),
            verify=httpx.create_ssl_context() if self.url.startswith("https") else True,
            trust_env=False,
        )

    async def get(self, path: str, answer: type[A]) -> A:
        timeout = httpx.Timeout(SHORT_SECONDS, connect=CONNECT_SECONDS)
        async with self._send("GET", path, timeout=timeout) as response:
            return self._read(await read(response, LIST_BYTES), answer)

    async def post(
        self,
        path: str,
        body: Mapping[str, Any],
        answer: type[A],
        *,
        seconds: float | None = None,
        most: int | None = None,
    ) -> A:
        """What the server answers.

        ``seconds``: the longest silence, None for no end, as in a program's call. ``most``: the bytes that it may
        answer; by default what the tokens that ``body`` asks for can take.
        """
        timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS)
        if seconds is None:
            current().set(self._place)
        async with self._send("POST", path, json=body, timeout=timeout) as response:
            found = self._read(await read(response, most_bytes(body) if most is None else most), answer)
        if seconds is None and isinstance(found, Completed):
            _tell_span(found)
        return found

    async def tokenize(self, body: Mapping[str, Any]) -> TokenizeAnswer:
        """The tokens of a prompt, which has no more of them than bytes."""
        most = LEAST_BYTES + BYTES_A_TOKEN_ID * len(to_json(body))
        return await self.post(TOKENIZE, body, TokenizeAnswer, seconds=SHORT_SECONDS, most=min(most, MOST_BYTES))

    async def stream(self, path: str, body: Mapping[str, Any], answer: type[C]) -> AsyncGenerator[C, None]:
        """What the events of a stream hold, up to ``[DONE]``, or to the end of one that has said why its text ends."""
        options = {"include_usage": True, **body.get("stream_options", {})}
        body = {**body, "stream": True, "stream_options": options}
        begun = finished = False
        current().set(self._place)
        try:
            async with self._send("POST", path, json=body) as response:
                events = read_events(response, most_bytes(body))
                async for data in events:
                    if data == DONE:
                        await _end(events)
                        return
                    if data == b"null":
                        continue  # an event without anything, as some proxies send it to keep a connection
                    event = self._parse_event(data, answer)
                    if not begun:
                        begun = True
                        _tell_span(event)
                    finished = finished or event.finished
                    yield event
        except TooMuch:
            raise
        except EngineUnavailable as error:
            if not finished or not isinstance(error.__cause__, httpx.HTTPError):
                raise
        if not finished:
            raise EngineUnavailable("the engine's server broke off what it wrote")

    async def check(self, path: str) -> None:
        """Return if the server answers at the path."""
        async with self._send("GET", path) as response:
            await read(response, LEAST_BYTES)

    def redact(self, words: str) -> str:
        """The server's own words as anybody may see them: short, in one line, without the key, which some repeat."""
        if words.lstrip().startswith("<"):
            return ""  # a page
        line = " ".join("".join(char if char.isprintable() else " " for char in words[:LONGEST_SHOWN]).split())
        return "" if self._key and self._key[:LEAST_OF_A_KEY] in line else line

    async def close(self) -> None:
        await self._client.aclose()

    @asynccontextmanager
    async def _send(self, method: str, path: str, **request: Any) -> AsyncIterator[httpx.Response]:
        """The response to a request, its body unread. Raises what the server's failure means."""
        try:
            async with self._client.stream(method, path, **request) as response:
                if response.status_code != httpx.codes.OK:
                    raise await self._read_failure(response)
                yield response
        except httpx.HTTPError as error:
            raise EngineUnavailable(f"the engine's server cannot be reached ({type(error).__name__})") from error
        except TooMuch as error:
            self._log_failure(error.detail)
            raise

    async def _read_failure(self, response: httpx.Response) -> Exception:
        body = await read_beginning(response, FAILURE_BYTES)
        value = response.headers.get("Retry-After")
        plain = httpx.Response(
            response.status_code, headers={} if value is None else {"Retry-After": value}, content=body
        )
        error = failure(plain)
        if not isinstance(error, InvalidRequest | EngineBusy | NotOffered):
            self._log_failure(f"status {response.status_code}", read_error(plain))
        return error

    def _read(self, body: bytes, answer: type[A]) -> A:
        try:
            read = answer.model_validate_json(body)
        except ValidationError:
            read = None
        if read is not None and read.error is None and not read.empty:
            return read
        error = error_in(body)
        if error is not None:
            raise WrongAnswer("the engine's server answers with an error, and status 200", error.message)
        if read is None:
            raise WrongAnswer("the engine's server answers what an OpenAI server would not")
        return read

    def _parse_event(self, data: bytes, answer: type[C]) -> C:
        try:
            return self._read(data, answer)
        except WrongAnswer:
            if (error := error_in(data)) is None:
                raise
            self._log_failure("a stream", error)
            raise EngineUnavailable("the engine's server failed while it wrote") from None

    def _log_failure(self, what: str, said: FailureBody | None = None) -> None:
        """Tell the operator what callers are not value. What the server says in words may be a caller's."""
        extra = {"server": self.url, "failure": what}
        if said is not None and said.label:
            extra["reason"] = said.label
        log.warning("an engine's server failed", extra=extra)


def _tell_span(answer: Completed) -> None:
    """By which names the server knows the answer and its model. The current span is that of the call."""
    current().set({"gen_ai.response.id": answer.id, "gen_ai.response.model": answer.model})


async def _join_trace(request: httpx.Request) -> None:
    """Let the server know of which trace its work is a part."""
    request.headers.update(current().headers)


async def _end(events: AsyncIterator[bytes]) -> None:
    """Read on to the response's end, or its connection is not used again. One that does not end is closed."""
    with suppress(TimeoutError, TooMuch, httpx.HTTPError):
        async with asyncio.timeout(END_SECONDS):
            async for _ in events:
                pass
