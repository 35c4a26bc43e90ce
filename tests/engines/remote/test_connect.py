"""What a server can do, found out over real HTTP whenever it comes up."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from starlette.responses import Response

from service.engines.base import Completion, Sample, Sampling
from service.engines.conversation import Conversation, Turn
from service.engines.remote.chat import ChatEngine
from service.engines.remote.connect import Tokenizers, connect
from service.engines.siblings import sample_siblings
from service.errors import EngineBusy, EngineUnavailable
from tests.support.chat_server import COUNT, ChatServer, refusal
from tests.support.engine_contract import GREEDY, QUESTION
from tests.support.serving import listening

FORM = {"type": "object", "properties": {"yes": {"type": "boolean"}}}
Fault = Callable[[dict[str, Any]], Response | None]


@asynccontextmanager
async def connected(server: ChatServer) -> AsyncIterator[ChatEngine]:
    async with listening(server.app()) as url:
        engine = await connect(url, "scripted", tokenizers=Tokenizers())
        assert isinstance(engine, ChatEngine)
        server.asked.clear()
        yield engine
        await engine.close()


def where(field: str, answer: Callable[[], Response | None]) -> Fault:
    """Answers so what has that field."""
    return lambda body: answer() if field in body else None


def oops() -> Response:
    return Response("oops", 500)


@pytest.mark.parametrize(
    ("fault", "limit"),
    [
        (lambda body: None, "max_tokens"),
        (where("max_completion_tokens", lambda: refusal("extra fields not permitted")), "max_tokens"),
        (
            where("max_tokens", lambda: refusal("Unsupported parameter: 'max_tokens'", "unsupported_parameter")),
            "max_completion_tokens",
        ),
    ],
)
async def test_the_most_tokens_are_asked_for_as_the_server_calls_them(fault: Fault, limit: str) -> None:
    server = ChatServer(fault=fault)
    async with connected(server) as engine:
        await engine.call(Sample(QUESTION, Sampling(max_tokens=17)))
        async for _ in engine.stream(Sample(QUESTION, Sampling(max_tokens=17))):
            pass
        asked = {"messages": [{"role": "user", "content": "Hello."}], "max_tokens": 17}
        async for _ in engine.relay(asked, stream=False):
            pass

    assert [{name: value for name, value in body.items() if name.startswith("max_")} for body in server.asked] == [
        {limit: 17}
    ] * 3


async def test_a_server_that_fails_at_schemas_is_asked_for_json_in_words() -> None:
    server = ChatServer(fault=where("response_format", oops))
    async with connected(server) as engine:
        await engine.call(Sample(QUESTION, GREEDY, FORM))

    [asked] = server.asked
    assert "response_format" not in asked
    assert "Reply with JSON" in asked["messages"][-1]["content"]


async def test_a_server_that_failed_once_has_what_it_was_asked_for() -> None:
    failures = iter([oops()])
    server = ChatServer(fault=where("response_format", lambda: next(failures, None)))
    async with connected(server) as engine:
        await engine.call(Sample(QUESTION, GREEDY, FORM))

    assert "response_format" in server.asked[0]


@pytest.mark.parametrize("answer", [oops, lambda: refusal("no")])
async def test_a_server_that_answers_no_plain_chat_cannot_serve(answer: Callable[[], Response]) -> None:
    async with listening(ChatServer(fault=lambda body: answer()).app()) as url:
        with pytest.raises(EngineUnavailable, match="answers no chat"):
            await connect(url, "scripted", tokenizers=Tokenizers())


@pytest.mark.parametrize("field", ["response_format", "messages"])
async def test_a_server_that_is_busy_is_not_one_that_lacks_something(field: str) -> None:
    fault = where(field, lambda: Response(status_code=429, headers={"Retry-After": "9"}))
    async with listening(ChatServer(fault=fault).app()) as url:
        with pytest.raises(EngineBusy) as busy:
            await connect(url, "scripted", tokenizers=Tokenizers())

    assert busy.value.retry_after == 9


OPEN = Sampling(max_tokens=32_768, open_ended=True)


async def said(engine: ChatEngine, conversation: Conversation, sampling: Sampling) -> None:
    """Whole, streamed, and several at once."""
    await engine.call(Sample(conversation, sampling))
    async for _ in engine.stream(Sample(conversation, sampling)):
        pass
    await sample_siblings(engine, Sample(conversation, sampling), 2)


@pytest.mark.parametrize(
    ("context_tokens", "sampling", "stated"),
    [
        (None, OPEN, None),
        (None, replace(OPEN, max_tokens=100), 100),
        (100, OPEN, 100 - COUNT),
        (100_000, OPEN, 32_768),
        (100_000, Sampling(max_tokens=50), 50),
    ],
)
async def test_a_reply_without_a_limit_may_have_what_the_context_holds(
    context_tokens: int | None, sampling: Sampling, stated: int | None
) -> None:
    server = ChatServer(context_tokens=context_tokens)
    async with connected(server) as engine:
        await said(engine, Conversation(Turn("user", "Hello.")), sampling)

    assert [body.get("max_tokens") for body in server.asked] == [stated] * 4


async def test_a_conversation_s_tokens_are_counted_once() -> None:
    server = ChatServer(context_tokens=100)
    conversation = Conversation(Turn("user", "Hello."))
    async with connected(server) as engine:
        counts = server.counts
        await engine.fit(conversation)
        await said(engine, conversation, OPEN)

    assert server.counts == counts + 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_that_wants_a_shorter_reply_than_it_was_left_gets_its_way(stream: bool) -> None:
    def full(body: dict[str, Any]) -> Response | None:
        told = (
            "This model's maximum context length is 50 tokens. However, you requested 60 tokens (20 in the messages, "
        )
        return None if body.get("max_tokens") else refusal(told + "40 in the completion).")

    server = ChatServer(fault=full)
    async with connected(server) as engine:
        if stream:
            *_, reply = [piece async for piece in engine.stream(Sample(QUESTION, OPEN))]
        else:
            reply = await engine.call(Sample(QUESTION, OPEN))

    assert isinstance(reply, Completion)
    assert reply.text == "Hello."
    assert [body.get("max_tokens") for body in server.asked] == [None, 30]
