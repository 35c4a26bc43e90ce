"""Chats with tools through the service, before a real HTTP server that calls them."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.api.openai.test_translate import PATH, refusal, refused, streamed
from tests.support.chat_server import ARGUMENTS, NO_TOOLS, ChatServer, before
from tests.support.serving import Served

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string", "default": None}}}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "It tells.", "parameters": PARAMETERS}}
TIME = {"type": "function", "function": {"name": "time"}}
HELLO = {"role": "user", "content": "How warm is Oslo?"}
ASKED = {"model": "scripted", "messages": [HELLO], "tools": [WEATHER, TIME]}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "".join(ARGUMENTS)}}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "12 degrees"}
HISTORY = [HELLO, {"role": "assistant", "content": None, "tool_calls": [CALL]}, RESULT]
NAMED = {"type": "function", "function": {"name": "time"}}


@pytest.fixture
def server() -> ChatServer:
    return ChatServer()


@pytest.fixture
async def front(server: ChatServer) -> AsyncIterator[Served]:
    async with before(server) as front:
        yield front


async def test_a_tool_call_comes_back_and_is_counted(front: Served) -> None:
    response = await front.post(PATH, ASKED)
    page = (await front.client.get("/metrics")).text

    body = response.json()
    assert response.status_code == 200, body
    assert body["id"].startswith("gen-")
    assert (body["object"], body["model"]) == ("chat.completion", "scripted")
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": None, "refusal": None, "tool_calls": [CALL]},
            "finish_reason": "tool_calls",
            "logprobs": None,
        }
    ]
    assert body["usage"] == {
        "prompt_tokens": 20,
        "completion_tokens": 6,
        "total_tokens": 26,
        "prompt_tokens_details": {"cached_tokens": 16},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert 'redraft_tokens_total{kind="prompt",model="scripted",role="draft"} 20.0' in page
    assert 'redraft_tokens_total{kind="cached",model="scripted",role="draft"} 16.0' in page
    assert 'redraft_step_seconds_count{model="scripted",role="draft"} 1.0' in page
    assert f'redraft_requests_total{{endpoint="{PATH}",status="200"}} 1.0' in page


async def test_the_server_is_asked_what_was_validated_and_nothing_else(front: Served, server: ChatServer) -> None:
    schema = {"name": "x", "strict": True, "schema": PARAMETERS}
    stated = {
        "messages": [{**HELLO, "name": "ann"}, *HISTORY[1:], {"role": "developer", "content": "Be brief."}],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "max_completion_tokens": 40,
        "temperature": 0,
        "stop": "END",
        "seed": 3,
        "response_format": {"type": "json_schema", "json_schema": schema},
        "metadata": {"a": "b"},
        "user": "ann",
    }
    assert (await front.post(PATH, {**ASKED, **stated})).status_code == 200

    [asked] = server.asked
    assert asked == {
        "model": "scripted",
        "messages": [*HISTORY, {"role": "system", "content": "Be brief."}],
        "tools": [WEATHER, TIME],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "max_tokens": 40,
        "temperature": 0.0,
        "top_p": 1.0,
        "stop": ["END"],
        "seed": 3,
        "response_format": {"type": "json_schema", "json_schema": {"name": "reply", "schema": PARAMETERS}},
    }


async def test_a_named_tool_is_called(front: Served, server: ChatServer) -> None:
    body = (await front.post(PATH, {**ASKED, "tool_choice": NAMED})).json()

    assert server.asked[0]["tool_choice"] == NAMED
    assert body["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "time"
    assert body["choices"][0]["finish_reason"] == "stop"


async def test_what_a_tool_gave_is_answered_also_when_no_tool_is_offered_any_more(front: Served) -> None:
    for tools in ({"tools": [WEATHER]}, {}, {"tools": [], "tool_choice": "none"}):
        asked = {"model": "scripted", "messages": [HELLO, {"role": "assistant", "tool_calls": [CALL]}, RESULT], **tools}
        [choice] = (await front.post(PATH, asked)).json()["choices"]
        assert choice["message"] == {"role": "assistant", "content": "It is 12 degrees", "refusal": None}
        assert choice["finish_reason"] == "stop"


async def test_calls_and_texts_are_streamed_as_they_come(front: Served) -> None:
    chunks = await streamed(front, {**ASKED, "stream_options": {"include_usage": True}})
    texts = await streamed(front, {**ASKED, "messages": HISTORY})

    first, begun, more, finish, usage = chunks
    assert len({(c["id"], c["object"], c["created"], c["model"]) for c in chunks}) == 1
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    call = {**CALL, "index": 0, "function": {"name": "weather", "arguments": ARGUMENTS[0]}}
    assert begun["choices"][0]["delta"] == {"tool_calls": [call]}
    assert more["choices"][0]["delta"] == {"tool_calls": [{"index": 0, "function": {"arguments": ARGUMENTS[1]}}]}
    assert finish["choices"] == [{"index": 0, "delta": {}, "finish_reason": "tool_calls", "logprobs": None}]
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 26)
    assert [c["choices"][0]["delta"].get("content") for c in texts] == ["", "It is ", "12 degrees", None]
    assert not any("usage" in chunk for chunk in texts)


@pytest.mark.parametrize(
    ("stated", "param"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools.0.type"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"tools": [{"type": "function", "function": 5}]}, "tools.0.function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "function", "function": {"name": "x", "surprise": 1}}]}, "tools.0.function.surprise"),
        ({"tools": [{"type": "function", "function": {"name": "x", "parameters": {"enum": ["x" * 40_000]}}}]},
         "tools.0.function.parameters"),
        ({"tools": [TIME] * 129}, "tools"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "nothing"}}}, "tool_choice.function.name"),
        ({"tools": None, "tool_choice": "auto"}, "tool_choice"),
        ({"parallel_tool_calls": "yes"}, "parallel_tool_calls"),
        ({"n": 2}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"redraft": {"task": "summarize"}}, "redraft.task"),
        ({"model": "scripted:refine"}, "tools"),
        ({"model": "scripted:refine", "tools": [], "messages": HISTORY}, "messages.1.tool_calls"),
        ({"model": "scripted:refine", "tools": [], "messages": [HELLO, RESULT]}, "messages.1.role"),
        ({"messages": [HELLO, {"role": "assistant"}]}, "messages.1.content"),
        ({"messages": [HELLO, {"role": "tool", "content": "x"}]}, "messages.1.tool_call_id"),
        ({"messages": [{**HELLO, "tool_call_id": "x"}]}, "messages.0.tool_call_id"),
        ({"messages": [{**HELLO, "tool_calls": [CALL]}]}, "messages.0.tool_calls"),
        ({"messages": [HELLO, {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "x"}}]}]},
         "messages.1.tool_calls.0.function.arguments"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(stated: dict[str, Any], param: str) -> None:
    assert refused({**ASKED, **stated}).errors[0].field == param


async def test_the_operator_s_bounds_hold(front: Served, server: ChatServer) -> None:
    response = await front.post(PATH, {**ASKED, "max_tokens": 100_000})

    assert refusal(response) == (400, "invalid_request_error", "max_tokens", "invalid_request")
    assert server.asked == []


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_without_tools_says_so(served: Served, stream: bool) -> None:
    response = await served.post(PATH, {**ASKED, "stream": stream})

    assert refusal(response) == (400, "invalid_request_error", "tools", "invalid_request")
    assert "REDRAFT_ENGINE=openai" in response.json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_without_tools_says_so_in_its_own_words(stream: bool) -> None:
    server = ChatServer(tools=False)
    async with before(server) as front:
        response = await front.post(PATH, {**ASKED, "stream": stream})

    assert refusal(response) == (400, "invalid_request_error", "tools", "invalid_request")
    assert NO_TOOLS in response.json()["error"]["message"]
    assert len(server.asked) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_fails_is_made_again_elsewhere(stream: bool) -> None:
    servers = ChatServer(), ChatServer()
    async with before(*servers) as front:
        for server in servers:
            server.failures = 1
        response = await front.post(PATH, {**ASKED, "stream": stream})

    assert response.status_code == 200
    assert "call_1" in response.text
    assert [len(server.asked) for server in servers] in ([1, 2], [2, 1])


async def test_what_breaks_off_in_a_stream_is_not_begun_again(front: Served, server: ChatServer) -> None:
    server.breaks = True
    response = await front.post(PATH, {**ASKED, "stream": True})

    *_, last = [line for line in response.text.splitlines() if line]
    assert response.status_code == 200
    assert "call_1" in response.text
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_unavailable"
    assert len(server.asked) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_the_server_s_work(front: Served, server: ChatServer, stream: bool) -> None:
    server.held = asyncio.Event()
    asking = asyncio.create_task(front.post(PATH, {**ASKED, "stream": stream}))
    await front.until(lambda: server.in_flight == 1)
    asking.cancel()
    await asyncio.wait([asking])

    await front.until(lambda: server.in_flight == 0)
    await front.at_rest()


@pytest.mark.parametrize("stream", [False, True])
async def test_time_runs_out(stream: bool) -> None:
    server = ChatServer()
    async with before(server, max_seconds=0.2) as front:
        server.held = asyncio.Event()
        response = await front.post(PATH, {**ASKED, "stream": stream})
        await front.at_rest()

    if not stream:
        assert response.status_code == 503
        assert '"deadline_exceeded"' in response.text
    else:  # what was said by then is a message that is cut
        assert "call_1" in response.text
        assert '"finish_reason":"length"' in response.text.replace(" ", "")
        assert response.text.rstrip().endswith("data: [DONE]")


async def test_what_is_said_first_reaches_the_client_before_the_rest_is_written(
    front: Served, server: ChatServer
) -> None:
    server.held = asyncio.Event()
    async with front.client.stream("POST", PATH, json={**ASKED, "stream": True}) as response:
        lines = response.aiter_lines()
        while "call_1" not in await anext(lines):
            assert server.in_flight == 1
        server.held.set()
        assert [line async for line in lines if line][-1] == "data: [DONE]"
