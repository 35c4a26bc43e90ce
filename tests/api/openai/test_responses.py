"""The Responses API by OpenAI's own client against the whole service."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response, ResponseFunctionToolCall, ResponseOutputMessage
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from pydantic import BaseModel

from service.api.openai.response_requests import ResponseRequest
from service.engines.base import Sample
from service.engines.scripted import EngineCall, Script
from service.errors import EngineDead
from tests.support.chat_server import ChatServer, before
from tests.support.serving import Served, reply, serving

SEA = "Write about the sea."
SALT = {"redraft": {"evaluators": [{"type": "keywords", "include": ["salt"]}], "judge": False}}
TOOL: Any = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": False}


class Weather(BaseModel):
    warm: bool


def thinking(call: Sample) -> str:
    return f"<think>Hm, words.</think>{reply(call)}"


@asynccontextmanager
async def client_of(served: Served) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{served.client.base_url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def client(served: Served) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(served) as client:
        yield client


async def events_of(stream: Any) -> list[Any]:
    return [event async for event in stream]


async def test_a_text_is_written_for_a_text(client: AsyncOpenAI, served: Served) -> None:
    response = await client.responses.create(
        model="scripted", input=SEA, instructions="Be brief.", metadata={"a": "b"}, max_output_tokens=50, store=False
    )

    assert response.output_text == "Salt waves."
    assert (response.status, response.error, response.incomplete_details) == ("completed", None, None)
    assert (response.instructions, response.metadata) == ("Be brief.", {"a": "b"})
    assert (response.max_output_tokens, response.previous_response_id, response.tools) == (50, None, [])
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    turns = served.engine.calls[-1].conversation.turns()
    assert [(turn.role, turn.text) for turn in turns] == [("system", "Be brief."), ("user", SEA)]


async def test_the_synchronous_client_writes_streams_and_refines(served: Served) -> None:
    def work() -> tuple[str, list[str], Any]:
        with OpenAI(base_url=f"{served.client.base_url}/v1", api_key="none", max_retries=0) as client:
            written = client.responses.create(model="scripted", input=SEA)
            with client.responses.create(model="scripted", input=SEA, stream=True) as stream:
                kinds: list[str] = [event.type for event in stream]
            refined = client.responses.create(model="scripted:refine", input=SEA, extra_body=SALT)
            return written.output_text, kinds, refined

    written, kinds, refined = await asyncio.to_thread(work)

    assert written == "Waves."
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert refined.output_text == "Salt waves."
    assert refined.redraft["stop_reason"] == "target"
    assert "text" not in refined.redraft


async def test_a_stream_has_openai_s_events_in_their_order(client: AsyncOpenAI) -> None:
    events = await events_of(await client.responses.create(model="scripted", input=SEA, stream=True))

    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    begun, added, last = events[0].response, events[2].item, events[-1].response
    assert (begun.status, begun.output, begun.usage) == ("in_progress", [], None)
    assert (added.status, added.content) == ("in_progress", [])
    assert events[5].text == last.output_text == "Waves."
    assert events[7].item == last.output[0]
    assert {event.item_id for event in events[3:7]} == {last.output[0].id}


async def test_a_streamed_refine_tells_its_events_and_then_its_text(client: AsyncOpenAI) -> None:
    stream = await client.responses.create(model="scripted:self-refine", input=SEA, stream=True, extra_body=SALT)
    events = await events_of(stream)

    told = [event.model_extra["redraft"]["event"] for event in events if event.model_extra]
    assert told[0] == "started"
    assert {"candidate", "evaluation", "critique", "round"} < set(told)
    assert {event.type for event in events if event.model_extra} == {"response.in_progress"}
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert deltas == ["Salt waves."]
    assert events[-1].response.redraft["stop_reason"] == "target"


async def test_the_stream_s_helper_puts_a_typed_answer_together() -> None:
    async with serving(Script()) as served, client_of(served) as client:
        async with client.responses.stream(model="scripted", input=SEA, text_format=Weather) as stream:
            streamed = await stream.get_final_response()
        parsed = await client.responses.parse(model="scripted", input=SEA, text_format=Weather)
        free = await client.responses.create(
            model="scripted", input=SEA, text={"format": {"type": "json_object"}}, temperature=0.0
        )

    assert streamed.output_parsed == parsed.output_parsed == Weather(warm=True)
    assert parsed.text is not None
    assert parsed.text.format is not None
    assert parsed.text.format.type == "json_schema"
    assert isinstance(json.loads(free.output_text), dict)


async def test_an_answer_can_be_sent_back(client: AsyncOpenAI, served: Served) -> None:
    first = await client.responses.create(model="scripted", input=SEA)
    items: Any = [{"role": "user", "content": SEA}, *first.output, {"role": "user", "content": "More."}]
    await client.responses.create(model="scripted", input=items)

    turns = served.engine.calls[-1].conversation.turns()
    assert [(turn.role, turn.text) for turn in turns] == [("user", SEA), ("assistant", "Waves."), ("user", "More.")]


@pytest.mark.parametrize("stream", [False, True])
async def test_thoughts_are_an_item_before_the_text(stream: bool) -> None:
    async with serving(Script(reply=thinking)) as served, client_of(served) as client:
        for model in ("scripted", "scripted:refine"):
            if stream:
                events = await events_of(await client.responses.create(model=model, input=SEA, stream=True))
                response: Response = events[-1].response
                deltas = [event.delta for event in events if event.type == "response.reasoning_text.delta"]
                assert "".join(deltas) == "Hm, words."
            else:
                response = await client.responses.create(model=model, input=SEA)
            thought, message = response.output
            assert thought.type == "reasoning"
            assert thought.content is not None
            assert [part.text for part in thought.content] == ["Hm, words."]
            assert isinstance(message, ResponseOutputMessage)
            assert response.usage is not None
            assert response.usage.output_tokens_details.reasoning_tokens > 0
        again: Any = [*response.output, {"role": "user", "content": "More."}]
        assert (await client.responses.create(model="scripted", input=again)).output_text


@pytest.mark.parametrize("stream", [False, True])
async def test_a_text_that_was_cut_is_incomplete(stream: bool) -> None:
    async with serving(Script(reply=lambda call: "one two three four")) as served, client_of(served) as client:
        if stream:
            events = await events_of(
                await client.responses.create(model="scripted", input=SEA, max_output_tokens=2, stream=True)
            )
            assert events[-1].type == "response.incomplete"
            response: Response = events[-1].response
        else:
            response = await client.responses.create(model="scripted", input=SEA, max_output_tokens=2)

    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    [message] = response.output
    assert isinstance(message, ResponseOutputMessage)
    assert message.status == "incomplete"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_is_called_and_what_it_gave_is_sent_back(stream: bool) -> None:
    server = ChatServer()
    async with before(server) as front, client_of(front) as client:
        create = client.responses.create
        if stream:
            events = await events_of(await create(model="scripted", input=SEA, tools=[TOOL], stream=True))
            kinds = [event.type for event in events]
            assert kinds.count("response.function_call_arguments.done") == 1
            assert "response.output_text.delta" not in kinds
            asked: Response = events[-1].response
        else:
            asked = await create(model="scripted", input=SEA, tools=[TOOL], tool_choice="auto")
        [call] = asked.output
        assert isinstance(call, ResponseFunctionToolCall)
        given = {"type": "function_call_output", "call_id": call.call_id, "output": "12 degrees"}
        items: Any = [{"role": "user", "content": SEA}, call, given]
        told = await create(model="scripted", input=items, tools=[TOOL])

    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Oslo"})
    assert told.output_text == "It is 12 degrees"
    assert [message["role"] for message in server.asked[-1]["messages"]] == ["user", "assistant", "tool"]
    assert asked.tools[0].type == "function"


async def test_a_function_can_be_forced_without_tool_support(client: AsyncOpenAI) -> None:
    tool: Any = {**TOOL, "parameters": Weather.model_json_schema()}
    choice: Any = {"type": "function", "name": "weather"}
    response = await client.responses.create(model="scripted", input=SEA, tools=[tool], tool_choice=choice)

    [call] = response.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert Weather.model_validate_json(call.arguments) == Weather(warm=True)
    assert response.tool_choice == openai.types.responses.ToolChoiceFunction(type="function", name="weather")


async def test_a_request_without_hurry_says_its_tier(client: AsyncOpenAI) -> None:
    response = await client.responses.create(model="scripted", input=SEA, service_tier="flex")

    assert response.service_tier == "flex"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"input": 5}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0"),
        ({"input": [{"role": "user", "content": 5}]}, "input.0.content"),
        ({"input": [{"role": "user"}]}, "input.0.content"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "input.0.content.0.type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:x"}]}]},
            "input.0.content.0.image_url",
        ),
        (
            {
                "instructions": "Look.",
                "input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}],
            },
            "input.0.content.0.file_id",
        ),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "a b", "arguments": ""}]}, "input.0.name"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "tools"),
        ({"temperature": 9}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {"uniqueItems": 1}}}}, "text.format"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tools": [TOOL]}, "tools"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "f"}}, "tool_choice.name"),
        ({"redraft": {"search": {}}}, "redraft.search"),
        ({"model": "scripted:refine", "redraft": {"search": {"rounds": 99}}}, "redraft.search.rounds"),
        ({"include": ["message.output_text.logprobs"]}, "include.0"),
        ({"seed": 1}, "seed"),
    ],
)
async def test_what_cannot_be_followed_is_refused_by_its_name(served: Served, body: Any, param: str) -> None:
    response = await served.post("/v1/responses", {"model": "scripted", "input": SEA, **body})

    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param), error


async def test_refusals_are_the_client_s_own_exceptions(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await client.responses.create(model="gpt-4o", input=SEA)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="nothing is stored here"):
        await client.responses.create(model="scripted", input=SEA, previous_response_id="resp_1")
    with pytest.raises(openai.BadRequestError) as long:
        await client.responses.create(model="scripted", input="word " * 9_000)
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "input")
    for call in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
        with pytest.raises(openai.NotFoundError, match="REDRAFT_STORE"):
            await call("resp_1")


async def test_a_failure_in_a_stream_ends_the_response_and_is_the_client_s_own_exception() -> None:
    def dying(call: EngineCall) -> None:
        raise EngineDead("it was killed")

    async with serving(Script(fault=dying)) as served, client_of(served) as client:
        *_, (name, error), (last, failed) = await served.stream(
            "/v1/responses", {"model": "scripted:refine", "input": SEA}
        )
        stream = await client.responses.create(model="scripted:refine", input=SEA, stream=True)
        with pytest.raises(openai.APIError, match="killed") as raised:
            await events_of(stream)

    assert (name, error["type"], error["code"], error["message"]) == ("error", "error", "engine_dead", "it was killed")
    assert (last, failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["response"]["error"] == {"code": "server_error", "message": "it was killed"}
    assert failed["sequence_number"] == error["sequence_number"] + 1
    assert raised.value.code == "engine_dead"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_idempotency_key_is_honoured(served: Served, stream: bool) -> None:
    body = {"model": "scripted", "input": SEA, "stream": stream}
    first, again = [await served.post("/v1/responses", body, headers={"Idempotency-Key": "k"}) for _ in range(2)]

    assert first.content == again.content
    assert len(served.engine.calls) == 1


def test_every_field_of_the_client_is_followed_ignored_or_refused() -> None:
    theirs = ResponseCreateParamsBase.__annotations__.keys()
    assert ResponseRequest.model_fields.keys() == theirs | {"stream", "redraft"}
