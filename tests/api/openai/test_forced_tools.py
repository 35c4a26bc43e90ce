"""Tool calls that a chat insists on, from an engine that knows no tools."""

import json
from datetime import date
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from openai import pydantic_function_tool
from pydantic import BaseModel, Field

from service.engines.base import Sample
from service.engines.scripted import Script
from tests.api.openai.test_tools import ASKED, HELLO, HISTORY, NAMED, PARAMETERS, TIME, WEATHER
from tests.api.openai.test_translate import PATH, refusal, streamed
from tests.support.chat_server import ChatServer, before
from tests.support.serving import serving

ARGUMENTS = {"city": "Oslo"}
NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}
THE_WEATHER = {"type": "function", "function": {"name": "weather"}}


def speak(call: Sample) -> str:
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
        made = served.engine.calls_of(Sample)
        chunks = await streamed(served, {**asked, "stream_options": {"include_usage": True}})
        line = {"custom_id": "a", "url": PATH, "body": asked}
        batch = (await served.post("/v1/batch", {"requests": [line]})).json()["response"]["body"]

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


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=0, le=9)]


class Dog(BaseModel):
    kind: Literal["dog"]
    born: date | None = None


class Order(BaseModel):
    """An order, as applications state them."""

    colour: Colour
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]]
    prices: dict[str, float] = {}
    note: str | None = Field(default=None, description="Anything else.")
    size: tuple[int, int]


def function(parameters: dict[str, Any], name: str = "order") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def forced(*tools: Any) -> dict[str, Any]:
    return {"model": "scripted", "messages": [HELLO], "tools": tools, "tool_choice": "required"}


ORDER = {"colour": "red", "pets": [{"kind": "cat", "lives": 9}], "prices": {"a": 1.5}, "note": None, "size": [1, 2]}


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        (function(Order.model_json_schema()), ORDER),
        (pydantic_function_tool(Cat), {"kind": "cat", "lives": 9}),
        (function({"$schema": "http://json-schema.org/draft-07/schema#", **PARAMETERS}), ARGUMENTS),
        (function({"type": "object"}), {"a": 1}),
        (function({"properties": {"city": {"type": "string"}}, "required": ["city"]}), ARGUMENTS),
        (function({}), {}),
    ],
)
async def test_schemas_as_libraries_write_them_are_taken(tool: Any, arguments: dict[str, Any]) -> None:
    async with serving(Script(reply=lambda call: json.dumps(arguments))) as served:
        response = await served.post(PATH, forced(tool))

    assert response.status_code == 200, response.text
    [call] = response.json()["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == arguments
    assert (served.engine.calls_of(Sample)[-1].schema or {})["type"] == "object"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_schema_that_cannot_be_held_is_refused_by_its_place(stream: bool) -> None:
    tags = {"type": "object", "properties": {"tags": {"type": "array", "items": {}, "uniqueItems": True}}}
    async with serving(Script()) as served:
        response = await served.post(PATH, {**forced(WEATHER, function(tags)), "stream": stream})
        asked = list(served.engine.calls)
        other = await served.post(PATH, {**forced(function(tags), TIME), "tool_choice": NAMED})

    param = "tools.1.function.parameters.properties.tags.uniqueItems"
    assert refusal(response) == (400, "invalid_request_error", param, "invalid_request")
    assert "uniqueItems: " in response.json()["error"]["message"]
    assert asked == []
    assert other.status_code == 200  # what cannot be called is not looked at


async def test_what_is_no_schema_is_refused() -> None:
    async with serving(Script()) as served:
        response = await served.post(PATH, forced(function({"type": "object", "properties": {"a": {"type": "text"}}})))

    assert refusal(response) == (400, "invalid_request_error", "tools.0.function.parameters", "invalid_request")


async def test_a_call_of_one_of_too_many_functions_is_refused() -> None:
    many = [function(PARAMETERS, f"f{index}") for index in range(41)]
    async with serving(Script()) as served:
        response = await served.post(PATH, forced(*many))
        fewer = await served.post(PATH, forced(*many[1:]))

    assert refusal(response) == (400, "invalid_request_error", "tools", "invalid_request")
    assert fewer.status_code == 200


@pytest.mark.parametrize("written", ['{"city": 5}', '"Oslo"', "Oslo"])
async def test_finished_arguments_that_do_not_fit_are_an_error(written: str) -> None:
    async with serving(Script(reply=lambda call: written)) as served:
        whole = await served.post(PATH, forced(WEATHER))
        stream = await served.post(PATH, {**forced(WEATHER), "stream": True})
        cut = await served.post(PATH, {**forced(WEATHER), "stop": "END"})

    assert (whole.status_code, whole.json()["error"]["code"]) == (503, "form_not_kept")
    assert '"form_not_kept"' in stream.text
    assert cut.status_code == 200


async def test_a_server_that_knows_tools_takes_what_schemas_it_likes() -> None:
    server = ChatServer()
    async with before(server) as front:
        tags = {"type": "object", "properties": {"tags": {"type": "array", "uniqueItems": True}}}
        assert (await front.post(PATH, forced(function(tags)))).status_code == 200

    assert server.asked[0]["tools"] == [function(tags)]


@pytest.mark.parametrize("reasoning", [False, True])
async def test_thoughts_before_a_call_are_no_part_of_it(reasoning: bool) -> None:
    script = Script(reply=lambda call: f"<think>Norway.</think>{json.dumps(ARGUMENTS)}")
    async with serving(script) as served:
        asked = {**forced(WEATHER), "include_reasoning": reasoning}
        message = (await served.post(PATH, asked)).json()["choices"][0]["message"]
        deltas = [chunk["choices"][0]["delta"] for chunk in await streamed(served, asked)]

    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == ARGUMENTS
    assert message.get("reasoning_content") == ("Norway." if reasoning else None)
    assert any("reasoning_content" in delta for delta in deltas) is reasoning
