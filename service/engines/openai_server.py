"""One server that speaks OpenAI's API, over HTTP: what it answers, and its failures as Redraft's errors.

Errors: InvalidRequest where the server refuses what it was asked, EngineUnavailable where it cannot be reached, fails,
or answers something else than it should. Cancelling a call closes its connection, and a server like vLLM's then ends
the work.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from service.engines.base import FinishReason, Usage
from service.errors import EngineUnavailable, InvalidRequest

CONNECT_SECONDS = 5.0
REFUSED = (httpx.codes.BAD_REQUEST, httpx.codes.REQUEST_ENTITY_TOO_LARGE, httpx.codes.UNPROCESSABLE_ENTITY)
LONGEST_MESSAGE = 500  # characters of what a server says of a failure
A = TypeVar("A", bound=BaseModel)


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


class ErrorBody(BaseModel):
    message: str


class ErrorAnswer(BaseModel):
    error: ErrorBody


class Event(BaseModel):
    """What every event of a stream may be instead of what it should be."""

    error: ErrorBody | None = None


class OpenAIServer:
    """``url`` is the server's address, with or without ``/v1`` at its end; ``key`` its bearer key.

    A call may take as long as it needs: its program's deadline bounds it.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._client = httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=256),
        )

    async def get(self, path: str, answer: type[A]) -> A:
        async with self._translated():
            response = await self._client.get(path)
            self._check(response)
            return answer.model_validate_json(response.content)

    async def post(self, path: str, body: Mapping[str, Any], answer: type[A]) -> A:
        async with self._translated():
            response = await self._client.post(path, json=body)
            self._check(response)
            return answer.model_validate_json(response.content)

    async def stream(self, path: str, body: Mapping[str, Any], answer: type[A]) -> AsyncGenerator[A, None]:
        """What the events of a stream hold, up to ``[DONE]``."""
        body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        async with self._translated(), self._client.stream("POST", path, json=body) as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
            self._check(response)
            async for line in response.aiter_lines():
                data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
                if data == "[DONE]":
                    return
                if data:
                    if error := Event.model_validate_json(data).error:
                        raise EngineUnavailable(f"{self.url} failed within a stream: {error.message}")
                    yield answer.model_validate_json(data)
        raise EngineUnavailable(f"{self.url} broke off a stream")

    async def check(self, path: str) -> None:
        """Return if the server answers at the path."""
        async with self._translated():
            self._check(await self._client.get(path))

    async def has(self, path: str) -> bool:
        """Whether the server has something at a path to which bodies are posted."""
        async with self._translated():
            return (await self._client.post(path, json={})).status_code != httpx.codes.NOT_FOUND

    async def close(self) -> None:
        await self._client.aclose()

    def _check(self, response: httpx.Response) -> None:
        if response.status_code in REFUSED:
            raise InvalidRequest(f"the engine's server refuses the request: {_message(response)}")
        if response.status_code != httpx.codes.OK:
            raise EngineUnavailable(f"{self.url} answers {response.status_code}: {_message(response)}")

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise EngineUnavailable(f"{self.url} cannot be reached: {error or type(error).__name__}") from error
        except ValidationError as error:
            raise EngineUnavailable(f"{self.url} answers what an OpenAI server would not") from error


def _message(response: httpx.Response) -> str:
    try:
        text = ErrorAnswer.model_validate_json(response.content).error.message
    except ValidationError:
        text = response.text or response.reason_phrase
    return text[:LONGEST_MESSAGE]
