"""Tool calls that a chat insists on, from an engine that knows no tools."""

import json
from typing import Any

import pytest

from service.engines.scripted import Call, Script
from tests.api.test_openai import PATH, refusal, streamed
from tests.api.test_openai_tools import ASKED, HELLO, HISTORY, NAMED, PARAMETERS, WEATHER
from tests.engines.chat_server import ChatServer, before
from tests.serving import serving

ARGUMENTS = {"city": "Oslo"}
NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}
THE_WEATHER = {"type": "function", "function": {"name": "weather"}}


def speak(call: Call) -> str:
    """Chooses the weather, in Oslo."""
    if call.schema is None:
        return "weather"
    return json.dumps(ARGUMENTS if call.schema == PARAMETERS else {})


@pytest.mark.parametrize(
    ("choice", "tools", "name", "arguments", "finish", "calls"),
    [
        (THE_WEATHER, ASKED["tools"], "weather", ARGUMENTS, "stop", 1),
        (NAMED, ASKED["tools"], "time", {}, "stop", 1),
        ("required", [WEATHER], "weather", ARGUMENTS, "tool_calls", 1),
        ("required", ASKED["tools"], "weather", ARGUMENTS, "tool_calls", 2),
    ],
)
async def test_a_forced_call_is_made(
    choice: Any, tools: list[Any], name: str, arguments: dict[str, Any], finish: str, calls: int
) -> None:
    asked = {**ASKED, "tools": tools, "tool_choice": choice}
    async with serving(Script(reply=speak)) as served:
        body = (await served.post(PATH, asked)).json()
        made = list(served.engine.calls)
        chunks = await streamed(served, {**asked, "stream_options": {"include_usage": True}})
        line = {"custom_id": "a", "url": PATH, "body": asked}
        batch = (await served.post("/v1/batches", {"requests": [line]})).json()["response"]["body"]

    [answer] = body["choices"]
    [call] = answer["message"]["tool_calls"]
    assert answer["message"]["content"] is None
    assert (call["type"], call["function"]["name"]) == ("function", name)
    assert call["id"].startswith("call-")
    assert json.loads(call["function"]["arguments"]) == arguments
    assert answer["finish_reason"] == batch["choices"][0]["finish_reason"] == finish
    assert batch["choices"][0]["message"]["tool_calls"][0]["function"] == call["function"]

    assert len(made) == calls
    assert made[-1].schema == (PARAMETERS if name == "weather" else NO_ARGUMENTS)
    assert made[0].prompt.startswith(HELLO["content"])
    assert name in made[-1].prompt
    assert ("It tells." in made[-1].prompt) is (name == "weather")

    *pieces, usage = chunks
    deltas = [piece["choices"][0]["delta"] for piece in pieces]
    streamed_calls = [said for delta in deltas for said in delta.get("tool_calls", ())]
    assert streamed_calls[0]["function"]["name"] == name
    assert json.loads("".join(said["function"].get("arguments") or "" for said in streamed_calls)) == arguments
    assert pieces[-1]["choices"][0]["finish_reason"] == finish
    assert usage["usage"]["completion_tokens"] == body["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"tool_choice": "auto"},
        {"tool_choice": "none"},
        {"tool_choice": "required", "messages": HISTORY},
        {"tool_choice": NAMED, "messages": [HELLO, {"role": "assistant", "content": "Well,"}]},
    ],
)
async def test_anything_else_is_refused_as_the_engine_knows_no_tools(stated: dict[str, Any]) -> None:
    async with serving(Script(reply=speak)) as served:
        response = await served.post(PATH, {**ASKED, **stated})

    assert refusal(response) == (400, "invalid_request_error", "tools", "invalid_request")
    assert served.engine.calls == []


@pytest.mark.parametrize("tools", [[WEATHER], ASKED["tools"]])
async def test_a_call_that_is_cut_says_so(tools: list[Any]) -> None:
    script = Script(reply=lambda call: "{ " * 9 if call.schema else "weather")
    async with serving(script) as served:
        asked = {**ASKED, "tools": tools, "tool_choice": "required", "max_tokens": 2}
        [answer] = (await served.post(PATH, asked)).json()["choices"]

    assert answer["finish_reason"] == "length"


async def test_a_server_that_knows_tools_makes_forced_calls_itself() -> None:
    server = ChatServer()
    async with before(server) as front:
        assert (await front.post(PATH, {**ASKED, "tool_choice": "required"})).status_code == 200

    [asked] = server.asked
    assert asked["tool_choice"] == "required"
    assert asked["messages"] == [HELLO]
