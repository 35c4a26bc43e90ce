"""A small server with OpenAI's chat completions that calls tools, over real HTTP, and the service before it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from service.engines.remote.connect import Tokenizers, connect
from service.engines.remote.replicas import ReplicatedEngine
from service.engines.served import ServedEngine
from service.settings import Settings
from tests.support.serving import Served, listening, serving

NO_TOOLS = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
USAGE = {
    "prompt_tokens": 20,
    "completion_tokens": 6,
    "total_tokens": 26,
    "prompt_tokens_details": {"cached_tokens": 16},
}
COUNT = 20
ARGUMENTS = ('{"city": ', '"Oslo"}')


@dataclass
class ChatServer:
    """Calls the tool that it is told to, or the first; says what a tool's message holds; says hello to all else.

    ``asked``: the bodies of chats since it was connected. ``fault``: what some are answered instead. ``failures``: how
    many of the next ones fail. ``breaks``: streams end after their first piece. ``held``: answers wait for the event.
    ``context_tokens``: what its context holds; it then counts tokens too, as vLLM's server does: COUNT, whatever it is
    asked. ``counts``: how often it counted.
    """

    tools: bool = True
    system: bool = True
    asked: list[dict[str, Any]] = field(default_factory=list)
    fault: Callable[[dict[str, Any]], Response | None] = lambda body: None
    failures: int = 0
    breaks: bool = False
    held: asyncio.Event | None = None
    context_tokens: int | None = None
    counts: int = 0
    in_flight: int = 0

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/models", self._models),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/tokenize", self._tokenize, methods=["POST"]),
            ]
        )

    async def _models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "scripted", "max_model_len": self.context_tokens}]})

    async def _tokenize(self, _: Request) -> Response:
        if self.context_tokens is None:
            return Response("Not Found", 404)
        self.counts += 1
        return JSONResponse({"count": COUNT, "max_model_len": self.context_tokens, "tokens": [0] * COUNT})

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        if self.failures:
            self.failures -= 1
            return Response("oops", 500)
        if (fault := self.fault(body)) is not None:
            return fault
        roles = [message["role"] for message in body["messages"]]
        if "system" in roles and not self.system:
            return refusal("System role not supported")
        if "tools" in body and not self.tools:
            return refusal(NO_TOOLS)
        pieces, finish = _message(body)
        if body.get("stream"):
            return StreamingResponse(self._events(pieces, finish), media_type="text/event-stream")
        await self._hold(request)
        message = {"role": "assistant", "content": None, **_whole(pieces)}
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        return JSONResponse({"id": "x", "object": "chat.completion", "choices": [choice], "usage": USAGE})

    async def _hold(self, request: Request) -> None:
        if self.held is None:
            return
        self.in_flight += 1
        left = asyncio.ensure_future(_left(request))
        held = asyncio.ensure_future(self.held.wait())
        try:
            await asyncio.wait((left, held), return_when=asyncio.FIRST_COMPLETED)
        finally:
            left.cancel()
            held.cancel()
            self.in_flight -= 1

    async def _events(self, pieces: Sequence[dict[str, Any]], finish: str) -> AsyncIterator[bytes]:
        self.in_flight += 1
        try:
            yield _event({"role": "assistant", "content": ""})
            for piece in pieces:
                yield _event(piece)
                if self.breaks:
                    return
                if self.held is not None:
                    await self.held.wait()
            yield _event({}, finish)
            yield b'data: {"choices": [], "usage": ' + json.dumps(USAGE).encode() + b"}\n\n"
            yield b"data: [DONE]\n\n"
        finally:
            self.in_flight -= 1


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def refusal(message: str, code: int | str = 400) -> Response:
    return JSONResponse({"error": {"message": message, "type": "BadRequestError", "param": None, "code": code}}, 400)


def _event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta, 'finish_reason': finish}]})}\n\n".encode()


def _message(body: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """The pieces of the answer, and why it ends."""
    last, choice = body["messages"][-1], body.get("tool_choice", "auto")
    if last["role"] == "tool":
        return [{"content": "It is "}, {"content": last["content"]}], "stop"
    if "tools" not in body or choice == "none":
        return [{"content": "Hello."}], "stop"
    named = isinstance(choice, dict)
    name = choice["function"]["name"] if named else body["tools"][0]["function"]["name"]
    first, second = ARGUMENTS
    begun = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": first}}
    pieces = [{"tool_calls": [begun]}, {"tool_calls": [{"index": 0, "function": {"arguments": second}}]}]
    return pieces, "stop" if named else "tool_calls"  # as vLLM says it


def _whole(pieces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if "content" in pieces[0]:
        return {"content": "".join(piece["content"] for piece in pieces)}
    call = pieces[0]["tool_calls"][0]
    function = {"name": call["function"]["name"], "arguments": "".join(ARGUMENTS)}
    return {"tool_calls": [{"id": call["id"], "type": "function", "function": function}]}


@asynccontextmanager
async def before(*servers: ChatServer, **settings: Any) -> AsyncIterator[Served]:
    """The service before the servers, whose ``asked`` begin once it is ready."""
    async with _urls(servers) as urls:

        async def start(_: Settings, tokenizers: Tokenizers) -> ServedEngine:
            connect_here = partial(connect, model="scripted", tokenizers=tokenizers)
            return await ReplicatedEngine.start("scripted", {url: partial(connect_here, url) for url in urls})

        async with serving(start=start, **settings) as front:
            async with asyncio.timeout(30):
                while (await front.client.get("/health/ready")).status_code != 200:
                    await asyncio.sleep(0.01)
            for server in servers:
                server.asked.clear()
            yield front


@asynccontextmanager
async def _urls(servers: Sequence[ChatServer]) -> AsyncIterator[list[str]]:
    if not servers:
        yield []
        return
    async with listening(servers[0].app()) as url, _urls(servers[1:]) as more:
        yield [url, *more]
