"""OpenAI's own client against the whole service: an app changes its base URL and nothing else."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from openai.types.chat.chat_completion import Choice
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from pydantic import BaseModel

from service.api.openai.translate import ChatRequest
from service.engines.scripted import EngineCall, Script
from service.errors import EngineDead
from tests.support.chat_server import NO_TOOLS, ChatServer, before
from tests.support.scripts import stall
from tests.support.serving import Served, serving

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Write about the sea."}]
SALT = {"redraft": {"evaluators": [{"type": "keywords", "include": ["salt"]}], "judge": False}}
TOOLS: list[ChatCompletionToolParam] = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
]


class Weather(BaseModel):
    warm: bool


@asynccontextmanager
async def client_of(served: Served, key: str = "none") -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{served.client.base_url}/v1", api_key=key, max_retries=0) as client:
        yield client


@pytest.fixture
async def client(served: Served) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(served) as client:
        yield client


async def test_the_synchronous_client_writes_streams_and_refines(served: Served) -> None:
    def work() -> tuple[str | None, list[str | None], Any]:
        with OpenAI(base_url=f"{served.client.base_url}/v1", api_key="none", max_retries=0) as client:
            written = client.chat.completions.create(model="scripted", messages=MESSAGES)
            with client.chat.completions.create(model="scripted", messages=MESSAGES, stream=True) as stream:
                pieces = [chunk.choices[0].delta.content for chunk in stream]
            refined = client.chat.completions.create(model="scripted:refine", messages=MESSAGES, extra_body=SALT)
            return written.choices[0].message.content, pieces, refined

    written, pieces, refined = await asyncio.to_thread(work)

    assert written == "Waves."
    assert pieces == ["", "Waves.", None]
    assert refined.choices[0].message.content == "Salt waves."
    assert refined.redraft["stop_reason"] == "target"


async def test_the_models_are_listed(client: AsyncOpenAI) -> None:
    names = [model.id async for model in client.models.list()]

    assert {"scripted", "scripted:refine", "scripted:best-of-n"} <= set(names)
    assert (await client.models.retrieve("scripted:best-of-n")).id == "scripted:best-of-n"


async def test_an_answer_can_be_sent_back(client: AsyncOpenAI, served: Served) -> None:
    first = await client.chat.completions.create(model="scripted", messages=MESSAGES, n=2, seed=1, user="ann")
    again = [*MESSAGES, first.choices[1].message, {"role": "user", "content": "More."}]
    second = await client.chat.completions.create(model="scripted", messages=again)  # type: ignore[arg-type] # as in OpenAI's own examples

    assert [choice.finish_reason for choice in first.choices] == ["stop", "stop"]
    assert second.usage is not None
    assert second.usage.total_tokens == second.usage.prompt_tokens + second.usage.completion_tokens
    assert [turn.text for turn in served.engine.calls[-1].conversation.turns()][1:] == ["Waves.", "More."]


async def test_a_stream_with_its_usage(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="scripted", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    *told, last = [chunk async for chunk in stream]

    assert "".join(chunk.choices[0].delta.content or "" for chunk in told) == "Waves."
    assert told[-1].choices[0].finish_reason == "stop"
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 1


async def test_a_streamed_refine_tells_its_events(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="scripted:self-refine", messages=MESSAGES, stream=True, extra_body=SALT
    )
    chunks = [chunk async for chunk in stream]

    extras = [chunk.model_extra or {} for chunk in chunks]
    events = [extra["redraft"]["event"] for extra in extras if "redraft" in extra]
    assert (events[0], events[-1]) == ("started", "done")
    assert {"candidate", "evaluation", "critique", "round"} < set(events)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Salt waves."


@pytest.mark.parametrize("model", ["scripted", "scripted:refine"])
async def test_the_client_s_stream_helper_puts_the_chunks_together(client: AsyncOpenAI, model: str) -> None:
    async with client.chat.completions.stream(model=model, messages=MESSAGES) as stream:
        final = await stream.get_final_completion()

    assert final.choices[0].message.role == "assistant"
    assert final.choices[0].message.content in ("Waves.", "Salt waves.")
    assert final.choices[0].finish_reason == "stop"


async def test_a_model_s_schema_is_parsed() -> None:
    async with serving(Script()) as served, client_of(served) as client:
        parsed = await client.chat.completions.parse(model="scripted", messages=MESSAGES, response_format=Weather)

    assert parsed.choices[0].message.parsed == Weather(warm=True)


async def test_refusals_are_the_client_s_own_exceptions(client: AsyncOpenAI) -> None:
    create = client.chat.completions.create
    with pytest.raises(openai.NotFoundError) as missing:
        await create(model="gpt-4o", messages=MESSAGES)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as hot:
        await create(model="scripted", messages=MESSAGES, temperature=3)
    assert (hot.value.param, hot.value.type) == ("temperature", "invalid_request_error")
    assert hot.value.request_id
    with pytest.raises(openai.BadRequestError) as nested:
        await create(model="scripted:refine", messages=MESSAGES, extra_body={"redraft": {"search": {"rounds": 99}}})
    assert nested.value.param == "redraft.search.rounds"
    for model in ("scripted", "scripted:refine"):
        with pytest.raises(openai.BadRequestError) as tools:
            await create(model=model, messages=MESSAGES, tools=TOOLS)
        assert tools.value.param == "tools"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_is_called_and_what_it_gave_is_sent_back(stream: bool) -> None:
    async with before(ChatServer()) as front, client_of(front) as client:
        create = client.chat.completions.create
        asked: Choice
        if stream:
            async with client.chat.completions.stream(model="scripted", messages=MESSAGES, tools=TOOLS) as events:
                asked = (await events.get_final_completion()).choices[0]
        else:
            asked = (await create(model="scripted", messages=MESSAGES, tools=TOOLS)).choices[0]
        [call] = asked.message.tool_calls or []
        assert call.type == "function"
        given = {"role": "tool", "tool_call_id": call.id, "content": "12 degrees"}
        messages = [*MESSAGES, asked.message, given]
        told = await create(model="scripted", messages=messages, tools=TOOLS)  # type: ignore[arg-type] # as above

    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})
    assert asked.finish_reason == "tool_calls"
    assert told.choices[0].message.content == "It is 12 degrees"
    assert told.choices[0].finish_reason == "stop"


async def test_the_synchronous_client_calls_tools_whole_and_streamed() -> None:
    def work(url: str) -> tuple[str | None, str]:
        with OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            whole = client.chat.completions.create(model="scripted", messages=MESSAGES, tools=TOOLS)
            [call] = whole.choices[0].message.tool_calls or []
            with client.chat.completions.create(
                model="scripted", messages=MESSAGES, tools=TOOLS, stream=True, tool_choice="required"
            ) as stream:
                deltas = [delta for chunk in stream for delta in chunk.choices[0].delta.tool_calls or []]
            streamed = "".join((delta.function and delta.function.arguments) or "" for delta in deltas)
            return call.function.arguments if call.type == "function" else None, streamed

    async with before(ChatServer()) as front:
        whole, streamed = await asyncio.to_thread(work, f"{front.client.base_url}/v1")

    assert whole == streamed == '{"city": "Oslo"}'


async def test_a_server_without_tools_is_the_client_s_own_exception() -> None:
    async with before(ChatServer(tools=False)) as front, client_of(front) as client:
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError, match=NO_TOOLS) as refused:
                await client.chat.completions.create(model="scripted", messages=MESSAGES, tools=TOOLS, stream=stream)
            assert refused.value.param == "tools"


async def test_a_wrong_key_and_a_caller_s_limit_are_the_client_s_own_exceptions() -> None:
    key = f"ann:{hashlib.sha256(b'secret').hexdigest()}"
    async with serving(api_keys=key, max_programs_per_key=1) as served:
        async with client_of(served, "wrong") as client:
            with pytest.raises(openai.AuthenticationError) as wrong:
                await client.chat.completions.create(model="scripted", messages=MESSAGES)
        async with client_of(served, "secret") as client:
            stall(served.engine, lambda call: True)
            busy = asyncio.create_task(client.chat.completions.create(model="scripted", messages=MESSAGES))
            await served.until(lambda: served.engine.in_flight == 1)
            with pytest.raises(openai.RateLimitError) as limited:
                await client.chat.completions.create(model="scripted", messages=MESSAGES)
            busy.cancel()
            await asyncio.wait([busy])
        await served.at_rest()

    assert wrong.value.code == "invalid_api_key"
    assert limited.value.code == "rate_limit_exceeded"
    assert int(limited.value.response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("model", ["scripted", "scripted:refine"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_full_service_is_an_internal_server_error(model: str, stream: bool) -> None:
    async with serving(max_programs=1, max_queued=0) as served, client_of(served) as client:
        stall(served.engine, lambda call: True)
        busy = asyncio.create_task(client.chat.completions.create(model="scripted", messages=MESSAGES))
        await served.until(lambda: served.engine.in_flight == 1)
        with pytest.raises(openai.InternalServerError) as full:
            await client.chat.completions.create(model=model, messages=MESSAGES, stream=stream)
        busy.cancel()
        await asyncio.wait([busy])
        await served.at_rest()

    assert (full.value.status_code, full.value.code) == (503, "overloaded")
    assert int(full.value.response.headers["retry-after"]) >= 1


async def test_a_failure_in_a_stream_is_the_client_s_own_exception() -> None:
    def dying(call: EngineCall) -> None:
        raise EngineDead("it was killed")

    async with serving(Script(fault=dying)) as served, client_of(served) as client:
        stream = await client.chat.completions.create(model="scripted:refine", messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError, match="killed") as failed:
            async for _ in stream:
                pass

    assert failed.value.code == "engine_dead"


def test_every_field_of_the_client_is_followed_ignored_or_refused() -> None:
    theirs = CompletionCreateParamsBase.__annotations__.keys()
    assert ChatRequest.model_fields.keys() == theirs | {"stream", "redraft", "include_reasoning"}


@pytest.mark.parametrize("place", [0, 1])
async def test_the_documented_programs_work(place: int, served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    document = (Path(__file__).parents[3] / "docs/guide/openai.md").read_text()
    program = re.findall(r"^```python\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)[place]
    for shown, true in (("http://127.0.0.1:8000", str(served.client.base_url)), ("SmolLM2-135M-Instruct", "scripted")):
        assert shown in program
        program = program.replace(shown, true)

    await asyncio.to_thread(exec, program, {})

    assert re.match(r"(Salt w|W)aves\.\nfixpoint (Completion|Response)Usage\(", capsys.readouterr().out)
