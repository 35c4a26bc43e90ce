"""Servers whose model thinks, over real HTTP: with a parser of their own, without one, and with the thoughts open."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from service.engines.base import Choose, Completion, Engine, Sample, Sampling, Thought
from service.engines.conversation import Conversation, Turn
from service.engines.relay import MessageEnd, MessagePiece, join_pieces
from service.engines.remote.chat import ChatEngine
from service.engines.remote.connect import Tokenizers, connect
from service.engines.thoughts import Thinking
from tests.support.chat_server import refusal
from tests.support.engine_contract import QUESTION, ThinkingContract
from tests.support.serving import listening

THOUGHTS = "The user wants three colours, and a sentence about each"
ANSWER = "Red is warm, blue is cold, and green is between them."
FORMS = ("reasoning_content", "reasoning", "both", "tags", "open")
ASKED = Sampling(max_tokens=100)


@dataclass
class ThinkingServer:
    """Thinks before each answer, unless it is asked not to in the way that it knows.

    ``form``: how its thoughts are told. ``asked``: the bodies of chats since it was connected.
    """

    form: str
    quiet: str | None = "chat_template_kwargs"
    answer: str = ANSWER
    asked: list[dict[str, Any]] = field(default_factory=list)

    def app(self) -> Starlette:
        return Starlette(
            routes=[Route("/v1/models", self._models), Route("/v1/chat/completions", self._chat, methods=["POST"])]
        )

    async def _models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "thinker"}]})

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        if self.quiet != "reasoning_effort" and "reasoning_effort" in body:
            return refusal("Unrecognized request argument: reasoning_effort")
        quiet = body.get(self.quiet) in ("none", {"enable_thinking": False, "thinking": False})
        pieces = self._pieces(quiet)
        limit = body.get("max_tokens", 4_096)
        finish = "length" if len(pieces) > limit else "stop"
        pieces = pieces[:limit]
        usage = {"prompt_tokens": 9 + len(json.dumps(body["messages"])), "completion_tokens": len(pieces)}
        if body.get("stream"):
            events: list[dict[str, Any]] = [{"choices": [{"delta": piece}]} for piece in pieces]
            events.append({"choices": [{"delta": {}, "finish_reason": finish}]})
            events.append({"choices": [], "usage": usage})
            lines = [*map(json.dumps, events), "[DONE]"]
            return StreamingResponse((f"data: {line}\n\n" for line in lines), media_type="text/event-stream")
        message: dict[str, str] = {}
        for piece in pieces:
            for name, text in piece.items():
                message[name] = message.get(name, "") + text
        return JSONResponse({"choices": [{"message": message, "finish_reason": finish}], "usage": usage})

    def _pieces(self, quiet: bool) -> list[Mapping[str, str]]:
        """A token each."""
        answer: list[Mapping[str, str]] = [{"content": word} for word in _words(self.answer)]
        if quiet:
            return answer
        if self.form in ("tags", "open"):
            start = "<think>\n" if self.form == "tags" else ""
            return [{"content": piece} for piece in _words(f"{start}{THOUGHTS}.\n</think>\n\n{self.answer}")]
        names = ("reasoning_content", "reasoning") if self.form == "both" else (self.form,)
        return [*(dict.fromkeys(names, word) for word in _words(THOUGHTS)), {"content": "\n\n"}, *answer]


def _words(text: str) -> list[str]:
    """Pieces of which some end inside a mark."""
    return [text[begin : begin + 5] for begin in range(0, len(text), 5)]


@asynccontextmanager
async def connected(server: ThinkingServer, thinking: Thinking | None = None) -> AsyncIterator[ChatEngine]:
    async with listening(server.app()) as url:
        engine = await connect(url, "thinker", tokenizers=Tokenizers(), thinking=thinking)
        assert isinstance(engine, ChatEngine)
        server.asked.clear()
        yield engine
        await engine.close()


class TestThinkingServer(ThinkingContract):
    @pytest.fixture(params=FORMS[:-1])
    async def engine(self, request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
        async with connected(ThinkingServer(request.param)) as engine:
            yield engine


@pytest.mark.parametrize("form", FORMS)
async def test_the_first_reply_is_split_whole_or_streamed(form: str) -> None:
    async with connected(ThinkingServer(form)) as engine:
        *pieces, streamed = [item async for item in engine.stream(Sample(QUESTION, ASKED))]
    async with connected(ThinkingServer(form)) as engine:
        whole = await engine.call(Sample(QUESTION, ASKED))

    assert isinstance(streamed, Completion)
    assert (streamed.text, whole.text) == (ANSWER, ANSWER)
    assert streamed.thoughts == whole.thoughts
    assert whole.thoughts.startswith(THOUGHTS)
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == ANSWER
    assert 0 < whole.usage.reasoning_tokens == streamed.usage.reasoning_tokens < whole.usage.completion_tokens


async def test_a_server_that_opens_the_thoughts_is_known_after_its_first_reply() -> None:
    async with connected(ThinkingServer("open")) as engine:
        await engine.call(Sample(QUESTION, ASKED))
        pieces = [item async for item in engine.stream(Sample(QUESTION, ASKED))]
        cut = await engine.call(Sample(QUESTION, Sampling(max_tokens=4)))

    assert sum(isinstance(piece, Thought) for piece in pieces) > 3
    assert (cut.text, cut.finish_reason) == ("", "length")


@pytest.mark.parametrize(
    ("quiet", "sent"),
    [
        ("chat_template_kwargs", {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}}),
        ("reasoning_effort", {"reasoning_effort": "none"}),
        (None, {}),
    ],
)
async def test_thinking_is_turned_off_in_the_way_that_the_server_knows(quiet: str | None, sent: object) -> None:
    server = ThinkingServer("tags", quiet)
    async with connected(server) as engine:
        await engine.call(Sample(QUESTION, Sampling(max_tokens=4, thinking=False)))
        await engine.call(Choose(QUESTION, ("1", "2")))
        free = await engine.call(Sample(QUESTION, ASKED))

    fields = ("chat_template_kwargs", "reasoning_effort")
    bodies = [{name: body[name] for name in fields if name in body} for body in server.asked]
    assert bodies == [sent, sent, {}]
    assert free.thoughts


async def test_a_server_that_does_not_think_is_sent_nothing_about_it() -> None:
    server = ThinkingServer("tags", quiet="messages")
    server.answer = "Yes."
    server._pieces = lambda quiet: [{"content": "Yes."}]  # type: ignore[method-assign]
    async with connected(server) as engine:
        reply = await engine.call(Sample(QUESTION, Sampling(max_tokens=4, thinking=False)))

    assert reply.text == "Yes."
    assert server.asked[0].keys().isdisjoint({"chat_template_kwargs", "reasoning_effort"})


async def test_the_operator_s_variables_are_sent_with_every_chat() -> None:
    server = ThinkingServer("tags")
    async with connected(server, Thinking(variables={"thinking_budget": 9})) as engine:
        await engine.call(Sample(QUESTION, ASKED))
        await engine.call(Sample(QUESTION, Sampling(max_tokens=4, thinking=False)))

    first, second = (body["chat_template_kwargs"] for body in server.asked)
    assert first == {"thinking_budget": 9}
    assert second == {"thinking_budget": 9, "enable_thinking": False, "thinking": False}


async def test_texts_are_left_as_they_are_where_the_operator_says_so() -> None:
    async with connected(ThinkingServer("tags"), Thinking("none")) as engine:
        reply = await engine.call(Sample(QUESTION, ASKED))

    assert reply.text.startswith("<think>")
    assert (reply.thoughts, reply.usage.reasoning_tokens) == ("", 0)


async def test_a_model_that_thinks_may_write_the_marks_that_it_is_asked_for() -> None:
    conversation = Conversation(Turn("user", "Write <think>xml</think>."))
    async with connected(ThinkingServer("tags", answer="<think>xml</think>")) as engine:
        reply = await engine.call(Sample(conversation, ASKED))

    assert reply.text == "<think>xml</think>"
    assert reply.thoughts.startswith(THOUGHTS)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_relayed_message_has_its_thoughts_apart(form: str, stream: bool) -> None:
    body = {"messages": [{"role": "user", "content": "Which three?"}], "max_tokens": 100}
    async with connected(ThinkingServer(form)) as engine:
        *pieces, end = [item async for item in engine.relay(body, stream=stream)]

    message = join_pieces(piece for piece in pieces if isinstance(piece, MessagePiece))
    assert message.content == ANSWER
    assert message.thoughts.startswith(THOUGHTS)
    assert isinstance(end, MessageEnd)
    assert 0 < end.usage.reasoning_tokens < end.usage.completion_tokens
