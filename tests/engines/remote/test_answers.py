"""Answers of servers that are OpenAI's only nearly, each form as it was reported of one."""

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service.engines.base import Completion, Sample, Sampling, Usage
from service.engines.relay import MessageEnd, MessagePiece
from service.engines.remote.answers import CompletedChoice, ModelList, UsageAnswer, finish_reason
from service.engines.remote.chat import ChatAnswer, ChatCapabilities, ChatEngine, TokenLogprob
from service.engines.remote.server import OpenAIServer
from service.errors import EngineUnavailable
from tests.support.engine_contract import QUESTION
from tests.support.listener import answered, listening

USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
COST = Usage(1, 5, 0, 7)


def choice(delta: Any = None, reason: Any = None, **more: Any) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": reason, **more}


TEXT = {"choices": [choice({"role": "assistant", "content": "half a sen"})]}


@asynccontextmanager
async def server(body: Any, kind: str = "application/json") -> AsyncIterator[OpenAIServer]:
    async with listening(answered(body, 200, f"Content-Type: {kind}")) as listener:
        remote = OpenAIServer(f"http://127.0.0.1:{listener.port}")
        yield remote
        await remote.close()


def events(*told: Any, done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(event)}\n\n" for event in told]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


async def streamed(body: bytes) -> tuple[str, Completion]:
    async with server(body, "text/event-stream") as remote:
        engine = ChatEngine(remote, "m", ChatCapabilities(schemas=True, logprobs=True))
        *pieces, last = [item async for item in engine.stream(Sample(QUESTION, Sampling()))]
    assert isinstance(last, Completion)
    return "".join(map(str, pieces)), last


async def relayed(body: bytes) -> MessageEnd:
    asked = {"messages": [{"role": "user", "content": "Hello."}], "max_tokens": 9}
    async with server(body, "text/event-stream") as remote:
        engine = ChatEngine(remote, "m", ChatCapabilities(schemas=True, logprobs=True))
        *pieces, last = [item async for item in engine.relay(asked, stream=True)]
    assert all(isinstance(piece, MessagePiece) for piece in pieces)
    assert isinstance(last, MessageEnd)
    return last


STREAMS = {
    "as OpenAI": events(TEXT, {"choices": [choice({}, "length")]}, {"choices": [], "usage": USAGE}),
    "usage with a blank choice": events(
        TEXT, {"choices": [choice({}, "length")]}, {"choices": [choice({})], "usage": USAGE}
    ),
    "null choices": events(TEXT, {"choices": [choice({}, "length")]}, {"choices": None, "usage": USAGE}),
    "no choices": events(TEXT, {"choices": [choice({}, "length")]}, {"usage": USAGE}),
    "null delta": events(TEXT, {"choices": [choice(None, "length")], "usage": USAGE}),
    "no delta": events(TEXT, {"choices": [{"finish_reason": "length"}], "usage": USAGE}),
    "null content": events(TEXT, {"choices": [choice({"content": None}, "length")], "usage": USAGE}),
    "blank reasons": events(
        {"choices": [choice({"content": "half a sen"}, "")], "usage": None},
        {"choices": [choice({}, "length")], "usage": USAGE},
        {"choices": [choice({}, "")]},
    ),
    "usage in each": events(
        {**TEXT, "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
        {"choices": [choice({}, "length")], "usage": USAGE},
    ),
    "null events": events(None, TEXT, {}, {"choices": [choice({}, "length")], "usage": USAGE}),
    "a prompt's filter first": events(
        {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
        TEXT,
        {"choices": [choice({}, "length")], "usage": USAGE},
    ),
    "without [DONE]": events(TEXT, {"choices": [choice({}, "length")], "usage": USAGE}, done=False),
    "parts": events(
        {"choices": [choice({"content": [{"type": "text", "text": "half a sen"}]})]},
        {"choices": [choice({}, "length")], "usage": USAGE},
    ),
    "strange log-probabilities": events(
        {"choices": [choice({"content": "half a sen"}, "length", logprobs={"content": ["x"]})], "usage": USAGE}
    ),
}


@pytest.mark.parametrize("body", STREAMS.values(), ids=STREAMS)
async def test_a_stream_is_understood(body: bytes) -> None:
    text, completion = await streamed(body)
    end = await relayed(body)

    assert (text, completion.text, completion.finish_reason) == ("half a sen", "half a sen", "length")
    assert (end.finish_reason, end.usage, completion.usage) == ("length", COST, COST)


async def test_a_stream_that_breaks_after_its_reason_is_whole() -> None:
    body = events(TEXT, {"choices": [choice({}, "stop")], "usage": USAGE}, done=False)
    head = f"HTTP/1.1 200 -\r\nContent-Type: text/event-stream\r\nContent-Length: {len(body) + 20}\r\n\r\n".encode()

    async def broken(writer: Any) -> None:
        writer.write(head + body)
        writer.close()

    async with listening(broken) as listener:
        remote = OpenAIServer(f"http://127.0.0.1:{listener.port}")
        told = [event async for event in remote.stream("/v1/chat/completions", {}, ChatAnswer)]
        await remote.close()

    assert told[-1].finished


@pytest.mark.parametrize(
    "body",
    [
        {"choices": None, "usage": USAGE},
        {"choices": []},
        {},
        {"error": "Unexpected endpoint or method. (POST /v1/chat/completions)"},
        {"error": {"message": "out of memory", "code": 500}},
        {"object": "error", "message": "out of memory"},
        {"detail": "Not Found"},
    ],
)
async def test_an_answer_without_a_choice_is_a_failure_of_the_server_s(body: Any) -> None:
    async with server(body) as remote:
        engine = ChatEngine(remote, "m", ChatCapabilities(schemas=True, logprobs=True))
        with pytest.raises(EngineUnavailable):
            await engine.call(Sample(QUESTION, Sampling()))


@pytest.mark.parametrize("message", [None, {"content": None}, {}, {"role": "assistant", "content": ""}])
async def test_an_answer_may_have_no_text(message: Any) -> None:
    body = {"choices": [{"message": message, "finish_reason": "content_filter"}], "usage": USAGE, "error": None}
    async with server(body) as remote:
        engine = ChatEngine(remote, "m", ChatCapabilities(schemas=True, logprobs=True))
        reply = await engine.call(Sample(QUESTION, Sampling()))

    assert reply == Completion("", "content_filter", COST)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("stop", "stop"),
        ("eos_token", "stop"),
        ("stop_sequence", "stop"),
        (None, "stop"),
        ("", "stop"),
        ("length", "length"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("content_filter", "content_filter"),
        ("SAFETY", "content_filter"),
        ("sensitive", "content_filter"),
    ],
)
def test_a_reason_is_told_in_openai_s_words(said: str | None, reason: str) -> None:
    assert finish_reason(said) == reason


@pytest.mark.parametrize("said", ["abort", "error", "network_error", "insufficient_system_resource"])
def test_a_reply_that_was_given_up_is_none(said: str) -> None:
    with pytest.raises(EngineUnavailable, match="gave a reply up"):
        finish_reason(said)


@pytest.mark.parametrize("said", [7, {}, [], True])
def test_a_reason_that_is_no_word_is_none(said: Any) -> None:
    assert CompletedChoice.model_validate({"finish_reason": said}).finish_reason is None


def test_cached_tokens_are_a_part_of_the_prompt_s() -> None:
    told = UsageAnswer.model_validate({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}})
    assert told.usage() == Usage(1, 5, 5, 0)


@pytest.mark.parametrize(("told", "read"), [(-1.5, -1.5), (0.7, 0.0), (math.nan, -math.inf), (math.inf, 0.0)])
def test_nothing_is_more_probable_than_certain(told: float, read: float) -> None:
    assert TokenLogprob(token="a", logprob=told).logprob == read


@pytest.mark.parametrize(
    ("told", "names"),
    [
        ({"object": "list", "data": [{"id": "a"}, {"id": "b", "root": 7, "max_model_len": "long"}]}, ["a", "b"]),
        ({"data": None}, []),
        ([{"id": "a"}], ["a"]),
        ({"data": [{"name": "a"}, None, "b", {"id": 1}]}, []),
    ],
)
def test_a_list_of_models_has_what_has_an_id(told: Any, names: list[str]) -> None:
    assert [card.id for card in ModelList.model_validate(told).data] == names


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("chatcmpl-1", "chatcmpl-1"),
        ("org/Model-1.5:free", "org/Model-1.5:free"),
        ("", None),
        (7, None),
        (None, None),
        ("Once upon a time", None),
        ("Once\nupon", None),
        ("x" * 257, None),
    ],
)
def test_an_id_or_a_model_that_may_be_a_text_is_not_a_name(told: Any, name: str | None) -> None:
    """They go into traces, which hold no texts."""
    answer = ChatAnswer.model_validate({**TEXT, "id": told, "model": told})
    assert (answer.id, answer.model) == (name, name)
