"""One server that speaks OpenAI's API, over HTTP: what it answers, and its failures as Redraft's errors.

Errors: those of openai_failures for what the server says, EngineUnavailable where it cannot be reached or answers
something else than it should. Cancelling a call closes its connection, and a server like vLLM's then ends the work.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from service.engines.base import FinishReason, Usage
from service.engines.openai_failures import Answer, failure, said_by
from service.errors import EngineBusy, EngineUnavailable, InvalidRequest
from service.spans import current

log = logging.getLogger(__name__)

CHAT = "/v1/chat/completions"
TOKENIZE = "/tokenize"
MODELS = "/v1/models"
CONNECT_SECONDS = 5.0
KEEP_ALIVE_SECONDS = 2.0
"""Less than servers wait before they close an idle connection, so that no call meets one that is closing."""
SHORT_SECONDS = 10.0
"""For what a server answers without its model."""
END_SECONDS = 1.0
"""From the last event of a stream to the end of its response."""


class PromptTokens(BaseModel):
    cached_tokens: int | None = None


class UsageAnswer(BaseModel):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: PromptTokens | None = None

    def usage(self) -> Usage:
        """The cost of one call; no cached tokens where the server does not tell of them."""
        cached = (self.prompt_tokens_details and self.prompt_tokens_details.cached_tokens) or 0
        return Usage(1, self.prompt_tokens, cached, self.completion_tokens)


def finish_reason(said: str | None) -> FinishReason:
    """Why a reply ended; EngineUnavailable if the server gave it up."""
    if said in ("abort", "error"):
        raise EngineUnavailable("the engine's server gave a reply up")
    return "length" if said == "length" else "stop"


class TokenizeAnswer(Answer):
    count: int
    tokens: list[int]


A = TypeVar("A", bound=Answer)


class OpenAIServer:
    """``url`` is the server's address, with or without ``/v1`` at its end; ``key`` its bearer key.

    A call may take as long as it needs: its program's deadline bounds it.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._client = httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            event_hooks={"request": [_join_trace]},
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=256, keepalive_expiry=KEEP_ALIVE_SECONDS
            ),
        )

    async def get(self, path: str, answer: type[A]) -> A:
        async with self._translated():
            return self._read(await self._client.get(path, timeout=SHORT_SECONDS), answer)

    async def post(self, path: str, body: Mapping[str, Any], answer: type[A], *, seconds: float | None = None) -> A:
        """``seconds``: the longest silence, None for no end."""
        async with self._translated():
            timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS)
            return self._read(await self._client.post(path, json=body, timeout=timeout), answer)

    async def stream(self, path: str, body: Mapping[str, Any], answer: type[A]) -> AsyncGenerator[A, None]:
        """What the events of a stream hold, up to ``[DONE]``."""
        body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        async with self._translated(), self._client.stream("POST", path, json=body) as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
            self._check(response)
            events = _data(response)
            async for data in events:
                if data == b"[DONE]":
                    await _end(events)
                    return
                yield self._event(data, answer)
        raise EngineUnavailable("the engine's server broke off what it wrote")

    async def check(self, path: str) -> None:
        """Return if the server answers at the path."""
        async with self._translated():
            self._check(await self._client.get(path))

    async def close(self) -> None:
        await self._client.aclose()

    def _read(self, response: httpx.Response, answer: type[A]) -> A:
        self._check(response)
        return answer.model_validate_json(response.content)

    def _event(self, data: bytes, answer: type[A]) -> A:
        try:
            event = answer.model_validate_json(data)
            error = event.error
        except ValidationError:
            error = Answer.model_validate_json(data).error
            if error is None:
                raise
        if error is not None:
            self._failed("a stream", error.message)
            raise EngineUnavailable("the engine's server failed while it wrote")
        return event

    def _check(self, response: httpx.Response) -> None:
        if response.status_code == httpx.codes.OK:
            return
        error = failure(response)
        if not isinstance(error, InvalidRequest | EngineBusy):
            self._failed(f"status {response.status_code}", said_by(response).message)
        raise error

    def _failed(self, what: str, message: str) -> None:
        """Tell the operator what callers are not told."""
        log.warning("an engine's server failed", extra={"server": self.url, "failure": what, "reason": message})

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise EngineUnavailable(f"the engine's server cannot be reached ({type(error).__name__})") from error
        except ValidationError as error:
            raise EngineUnavailable("the engine's server answers what an OpenAI server would not") from error


async def _join_trace(request: httpx.Request) -> None:
    """Let the server know of which trace its work is a part."""
    request.headers.update(current().headers)


async def _data(response: httpx.Response) -> AsyncIterator[bytes]:
    """The data of a stream's events. Only line feeds end a line: httpx would also cut at characters within a text."""
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line.removeprefix(b"data:").strip()


async def _end(events: AsyncIterator[bytes]) -> None:
    """Read on to the response's end, or its connection is not used again. One that does not end is closed."""
    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(END_SECONDS):
            async for _ in events:
                pass
