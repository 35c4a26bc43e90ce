"""Anthropic's own client against the whole service: an app changes its base URL and the model's name."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import Message, MessageParam, ToolParam

from service.engines.scripted import EngineCall, Script
from service.errors import EngineDead
from tests.images.test_fetch import PNG
from tests.support.chat_server import ARGUMENTS, ChatServer, before
from tests.support.serving import Served, serving

MESSAGES: list[MessageParam] = [{"role": "user", "content": "Write about the sea."}]
SALT = {"redraft": {"evaluators": [{"type": "keywords", "include": ["salt"]}], "judge": False}}
WEATHER: ToolParam = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
PATH = "/v1/messages"


@asynccontextmanager
async def client_of(served: Served, key: str = "none") -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=str(served.client.base_url), api_key=key, max_retries=0) as client:
        yield client


@pytest.fixture
async def client(served: Served) -> AsyncIterator[AsyncAnthropic]:
    async with client_of(served) as client:
        yield client


def asked(**fields: Any) -> dict[str, Any]:
    return {"model": "scripted", "max_tokens": 50, "messages": MESSAGES, **fields}


def refused_field(response: Any) -> str:
    body = response.json()
    assert (response.status_code, body["type"], body["error"]["type"]) == (400, "error", "invalid_request_error"), body
    field, _, _ = body["error"]["message"].partition(":")
    return str(field)


async def test_the_synchronous_client_writes_streams_and_refines(served: Served) -> None:
    def work() -> tuple[Message, str, Message, Message]:
        with Anthropic(base_url=str(served.client.base_url), api_key="none", max_retries=0) as client:
            written = client.messages.create(model="scripted", max_tokens=50, messages=MESSAGES)
            with client.messages.stream(model="scripted", max_tokens=50, messages=MESSAGES) as stream:
                streamed = "".join(stream.text_stream)
                whole = stream.get_final_message()
            refined = client.messages.create(model="scripted:refine", max_tokens=50, messages=MESSAGES, extra_body=SALT)
            return written, streamed, whole, refined

    written, streamed, whole, refined = await asyncio.to_thread(work)

    [block] = written.content
    assert block.type == "text"
    assert (block.text, written.stop_reason, written.role) == ("Waves.", "end_turn", "assistant")
    assert written.usage.input_tokens > 0 < written.usage.output_tokens
    assert streamed == "Waves."
    assert whole.content[0].to_dict()["text"] == "Waves."
    assert whole.usage.output_tokens == written.usage.output_tokens
    assert refined.content[0].to_dict()["text"] == "Salt waves."
    assert refined.model_dump()["redraft"]["stop_reason"] == "target"


async def test_a_refine_is_streamed_with_all_that_happens_in_pings(client: AsyncAnthropic, served: Served) -> None:
    async with client.messages.stream(
        model="scripted:refine", max_tokens=50, messages=MESSAGES, extra_body=SALT
    ) as stream:
        whole = await stream.get_final_message()
    response = await served.post(PATH, asked(model="scripted:refine", stream=True, **SALT))
    frames = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]

    assert whole.content[0].to_dict()["text"] == "Salt waves."
    shown = [frame["redraft"]["event"] for frame in frames if frame["type"] == "ping"]
    assert shown[0] == "started"
    assert {"candidate", "evaluation", "critique", "round"} <= set(shown)
    assert [frame["type"] for frame in frames if frame["type"] != "ping"] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert frames[-2]["redraft"]["event"] == "done"


async def test_a_system_text_and_an_image_reach_the_model() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()}
    content = [{"type": "text", "text": "What is it?"}, {"type": "image", "source": source}]
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    request = asked(system=system, messages=[{"role": "user", "content": content}])
    async with serving(Script(takes_images=True)) as seeing, serving() as blind:
        answered = await seeing.post(PATH, request)
        refused = await blind.post(PATH, request)
        turns = list(seeing.engine.calls[0].conversation.turns())

    assert answered.status_code == 200
    assert [(turn.role, len(turn.images)) for turn in turns] == [("system", 0), ("user", 1)]
    assert (turns[0].text, "What is it?" in turns[1].text) == ("Be brief.", True)
    assert refused_field(refused) == "messages.0.content.1"


async def test_a_cut_text_says_so() -> None:
    async with serving(Script(reply=lambda _: "one two three four five six seven eight")) as long:
        body = (await long.post(PATH, asked(max_tokens=2))).json()

    assert body["stop_reason"] == "max_tokens"


async def test_tools_are_called_and_their_results_are_passed_on() -> None:
    server = ChatServer()
    async with before(server) as front, client_of(front) as client:
        called = await client.messages.create(model="scripted", max_tokens=50, messages=MESSAGES, tools=[WEATHER])
        async with client.messages.stream(
            model="scripted", max_tokens=50, messages=MESSAGES, tools=[WEATHER], tool_choice={"type": "auto"}
        ) as stream:
            streamed = await stream.get_final_message()
        history: list[Any] = [
            *MESSAGES,
            {"role": "assistant", "content": [block.to_dict() for block in called.content]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_1", "content": "12 degrees"},
                    {"type": "text", "text": "And tomorrow?"},
                ],
            },
        ]
        await client.messages.create(model="scripted", max_tokens=50, messages=history, tools=[WEATHER])

    assert called.stop_reason == "tool_use"
    call = called.content[-1].to_dict()
    assert (call["type"], call["id"], call["name"]) == ("tool_use", "call_1", "weather")
    assert call["input"] == json.loads("".join(ARGUMENTS))
    assert [block.to_dict() for block in streamed.content] == [block.to_dict() for block in called.content]
    roles = [message["role"] for message in server.asked[-1]["messages"]]
    assert roles == ["user", "assistant", "tool", "user"]
    assert server.asked[-1]["messages"][2] == {"role": "tool", "content": "12 degrees", "tool_call_id": "call_1"}
    assert server.asked[0]["tools"][0]["function"]["parameters"] == WEATHER["input_schema"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"temperature": 9}, "temperature"),
        ({"stop_sequences": ["x"] * 9}, "stop_sequences"),
        ({"top_k": 5}, "top_k"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "messages.0.content.0.type"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools.0.name"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "time"}}, "tool_choice.name"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"type": 5}}}}, "output_config.format"),
        ({"redraft": {"evaluators": []}}, "redraft.evaluators"),
        ({"model": "scripted:refine", "redraft": {"evaluators": [{"type": "no"}]}}, "redraft.evaluators.0.type"),
        ({"surprise": 1}, "surprise"),
    ],
)
async def test_a_field_that_is_wrong_is_named_as_the_caller_did(
    served: Served, fields: dict[str, Any], named: str
) -> None:
    assert refused_field(await served.post(PATH, asked(**fields))) == named


async def test_the_form_of_a_reply_is_followed() -> None:
    schema = {"type": "object", "properties": {"warm": {"type": "boolean"}}, "required": ["warm"]}
    async with serving(Script(reply=lambda _: '{"warm": true}')) as forming:
        format_ = {"format": {"type": "json_schema", "schema": schema}}
        body = (await forming.post(PATH, asked(output_config=format_))).json()

    assert json.loads(body["content"][0]["text"]) == {"warm": True}


async def test_an_unknown_model_is_not_found(client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="there is no such model"):
        await client.messages.create(model="other", max_tokens=5, messages=MESSAGES)


async def test_a_key_is_taken_in_either_header() -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    async with serving(api_keys=f"app:{digest}") as closed:
        async with client_of(closed, "wrong") as client:
            with pytest.raises(anthropic.AuthenticationError) as refused:
                await client.messages.create(model="scripted", max_tokens=5, messages=MESSAGES)
        async with client_of(closed, "secret") as client:
            written = await client.messages.create(model="scripted", max_tokens=5, messages=MESSAGES)
        bearer = await closed.post(PATH, asked(), headers={"Authorization": "Bearer secret"})

    assert refused.value.body == {
        "type": "error",
        "error": {"type": "authentication_error", "message": "send a known key as Authorization: Bearer <key>"},
    }
    assert written.stop_reason == "end_turn"
    assert bearer.status_code == 200


async def test_an_error_in_a_stream_is_raised_by_the_client() -> None:
    def fault(_: EngineCall) -> None:
        raise EngineDead("the engine has died")

    async with serving(Script(fault=fault)) as dying, client_of(dying) as client:
        with pytest.raises(anthropic.APIStatusError, match=r"api_error|overloaded_error"):
            async with client.messages.stream(model="scripted", max_tokens=5, messages=MESSAGES) as stream:
                await stream.get_final_message()


async def test_work_stops_when_the_client_leaves() -> None:
    async with serving(Script(seconds_per_call=3600.0)) as slow, client_of(slow) as client:
        with pytest.raises(anthropic.APITimeoutError):
            await client.messages.create(model="scripted", max_tokens=5, messages=MESSAGES, timeout=0.5)
        async with asyncio.timeout(5):
            while slow.engine.in_flight:
                await asyncio.sleep(0.01)
        assert len(slow.engine.calls) == 1
