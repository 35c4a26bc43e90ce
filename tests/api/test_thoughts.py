"""Thoughts over HTTP: never in a text, never judged, told only if asked for, always counted."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.engines.base import Sample
from service.engines.remote.connect import Tokenizers, connect
from service.engines.scripted import Script
from service.engines.served import ServedEngine
from service.settings import Settings
from tests.engines.remote.test_thoughts import ANSWER, THOUGHTS, ThinkingServer
from tests.support.scripts import role_of
from tests.support.serving import Served, listening, serving

CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "Reply with JSON."}]}
REFINE = {
    "prompt": "Reply with JSON.",
    "judge": False,
    "evaluators": [{"type": "format", "kind": "json"}, {"type": "length", "unit": "words", "max": 4}],
    "search": {"rounds": 1, "critic": "model"},
}


def thinking(call: Sample) -> str:
    """Thinks, no matter who asks."""
    match role_of(call):
        case "critique":
            answer = json.dumps({"issues": ["Say more."]})
        case "revise":
            answer = '{"a": 2}'
        case _:
            answer = '{"a": 1}'
    return f"<think>A brace {{ or two, and many words besides.</think>\n\n{answer}"


async def whole(served: Served, chat: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages of an answer."""
    body = (await served.post("/v1/chat/completions", chat)).json()
    return [choice["message"] for choice in body["choices"]]


async def streamed(served: Served, chat: dict[str, Any]) -> list[dict[str, Any]]:
    """The deltas of a streamed answer."""
    response = await served.post("/v1/chat/completions", {**chat, "stream": True})
    chunks = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    return [choice["delta"] for chunk in chunks for choice in chunk["choices"]]


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(Script(reply=thinking)) as running:
        yield running


async def test_a_text_has_no_thoughts_and_they_are_told_if_asked_for(served: Served) -> None:
    plain = (await served.post("/v1/generate", {"prompt": "Why?"})).json()
    asked = (await served.post("/v1/generate", {"prompt": "Why?", "reasoning": True})).json()

    [first], [second] = plain["choices"], asked["choices"]
    assert first == {"prompt_index": 0, "index": 0, "text": '{"a": 1}', "finish_reason": "stop"}
    assert second == {**first, "reasoning": "A brace { or two, and many words besides."}
    assert 0 < plain["usage"]["reasoning_tokens"] < plain["usage"]["completion_tokens"]


async def test_a_stream_tells_thoughts_only_if_asked_for(served: Served) -> None:
    plain = await served.stream("/v1/generate", {"prompt": "Why?"})
    asked = await served.stream("/v1/generate", {"prompt": "Why?", "reasoning": True})

    def said(frames: list[tuple[str, dict[str, Any]]], kind: str) -> str:
        return "".join(data["text"] for name, data in frames if name == kind)

    assert said(plain, "delta") == said(asked, "delta") == '{"a": 1}'
    assert said(plain, "reasoning") == ""
    assert said(asked, "reasoning").strip() == "A brace { or two, and many words besides."
    assert "text" not in asked[-1][1]["choices"][0]
    assert "reasoning" not in asked[-1][1]["choices"][0]


async def test_no_evaluator_and_no_critic_sees_thoughts(served: Served) -> None:
    body = (await served.post("/v1/refine", {**REFINE, "reasoning": True})).json()

    assert (body["passed"], body["text"]) == (True, '{"a": 1}')
    drafts = body["rounds"][0]["candidates"]
    assert [draft["reasoning"] for draft in drafts] == ["A brace { or two, and many words besides."]
    assert body["usage"]["by_role"]["draft"]["reasoning_tokens"] > 0
    seen = [turn.text for call in served.engine.calls for turn in call.conversation.turns()]
    assert not any("brace" in text for text in seen)


async def test_a_trace_has_no_thoughts_unless_they_are_asked_for(served: Served) -> None:
    body = (await served.post("/v1/refine", REFINE)).json()

    assert not any("reasoning" in candidate for ended in body["rounds"] for candidate in ended["candidates"])


async def test_a_critique_s_feedback_has_no_thoughts(served: Served) -> None:
    body = (await served.post("/v1/critique", {"prompt": "Why?", "candidate": "So.", "judge": False})).json()

    assert body["feedback"] == "Say more."
    assert body["usage"]["reasoning_tokens"] > 0


async def test_a_batch_s_lines_have_their_thoughts_apart(served: Served) -> None:
    line = {"custom_id": "1", "url": "/v1/generate", "body": {"prompt": "Why?", "reasoning": True}}
    answer = (await served.post("/v1/batch", {"requests": [line]})).text

    [choice] = json.loads(answer.splitlines()[0])["body"]["choices"]
    assert (choice["text"], choice["reasoning"][:7]) == ('{"a": 1}', "A brace")


@pytest.mark.parametrize("model", ["scripted", "scripted:refine"])
async def test_openai_s_clients_get_thoughts_as_vllm_tells_them(served: Served, model: str) -> None:
    chat = {**CHAT, "model": model}
    plain = (await served.post("/v1/chat/completions", chat)).json()
    asked = (await served.post("/v1/chat/completions", {**chat, "include_reasoning": True})).json()
    deltas = await streamed(served, {**chat, "include_reasoning": True})

    [first], [second] = ([choice["message"] for choice in body["choices"]] for body in (plain, asked))
    assert "reasoning_content" not in first
    assert second == {**first, "reasoning_content": "A brace { or two, and many words besides."}
    assert plain["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    assert "".join(delta.get("content") or "" for delta in deltas) == second["content"]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas).strip() == second["reasoning_content"]


async def test_a_message_with_thoughts_can_be_sent_back(served: Served) -> None:
    said = {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm.", "reasoning": "Hm."}
    messages = [*CHAT["messages"], said, {"role": "user", "content": "And?"}]

    response = await served.post("/v1/chat/completions", {**CHAT, "messages": messages})

    assert response.status_code == 200, response.text
    assert [turn.text for turn in served.engine.calls[0].conversation.turns()][1] == "Yes."


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/generate", {"prompt": "Why?", "sampling": {"thinking": False}}),
        ("/v1/chat/completions", {**CHAT, "reasoning_effort": "none"}),
    ],
)
async def test_a_request_can_ask_for_no_thoughts(served: Served, path: str, body: dict[str, Any]) -> None:
    assert (await served.post(path, body)).status_code == 200

    [call] = served.engine.calls
    assert isinstance(call, Sample)
    assert not call.sampling.thinking


@pytest.mark.parametrize("stream", [True, False])
async def test_a_chat_with_tools_tells_thoughts_if_asked_for(stream: bool) -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]
    async with listening(ThinkingServer("reasoning_content").app()) as url:

        async def start(_: Settings, tokenizers: Tokenizers) -> ServedEngine:
            return await connect(url, "thinker", tokenizers=tokenizers)

        async with serving(start=start) as front:
            async with asyncio.timeout(10):
                while (await front.client.get("/health/ready")).status_code != 200:
                    await asyncio.sleep(0.01)
            told = streamed if stream else whole
            chat = {**CHAT, "tools": tools}
            plain, asked = await told(front, chat), await told(front, {**chat, "include_reasoning": True})

    assert "".join(part.get("content") or "" for part in plain) == ANSWER
    assert not any("reasoning_content" in part for part in plain)
    assert "".join(part.get("content") or "" for part in asked) == ANSWER
    assert "".join(part.get("reasoning_content") or "" for part in asked) == THOUGHTS
