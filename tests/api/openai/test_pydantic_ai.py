"""Pydantic AI's agents against the whole service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, PromptedOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from service.engines.base import Sample
from service.engines.scripted import Script
from tests.support.chat_server import ChatServer, before
from tests.support.serving import Served, serving


class Weather(BaseModel):
    """How the weather is."""

    warm: bool


class Place(BaseModel):
    city: str


def weather(city: str) -> str:
    """How warm a city is."""
    return f"12 degrees in {city}"


@asynccontextmanager
async def model(served: Served, name: str = "scripted") -> AsyncIterator[OpenAIChatModel]:
    async with AsyncOpenAI(base_url=f"{served.client.base_url}/v1", api_key="none", max_retries=0) as client:
        yield OpenAIChatModel(name, provider=OpenAIProvider(openai_client=client))


@pytest.mark.parametrize("name", ["scripted", "scripted:refine"])
async def test_an_agent_answers_and_goes_on(name: str) -> None:
    async with serving(Script(reply=lambda call: "Waves.")) as served, model(served, name) as asked:
        agent = Agent(asked, instructions="Be brief.")
        first = await agent.run("Write about the sea.")
        history: list[ModelMessage] = first.all_messages()
        second = await agent.run("More.", message_history=history)

    assert first.output == second.output == "Waves."
    assert first.usage.output_tokens > 0


async def test_an_agent_streams(served: Served) -> None:
    async with model(served) as asked, Agent(asked).run_stream("Write about the sea.") as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]

    assert "".join(pieces) == "Waves."


async def test_typed_output_by_a_schema() -> None:
    async with serving(Script()) as served, model(served) as asked:
        answer = await Agent(asked, output_type=NativeOutput(Weather)).run("Is it warm?")

    assert answer.output == Weather(warm=True)


async def test_typed_output_by_the_prompt() -> None:
    async with serving(Script(reply=lambda call: '{"warm": true}')) as served, model(served) as asked:
        answer = await Agent(asked, output_type=PromptedOutput(Weather)).run("Is it warm?")

    assert answer.output == Weather(warm=True)


async def test_typed_output_by_a_tool() -> None:
    async with before(ChatServer()) as front, model(front) as asked:
        answer = await Agent(asked, output_type=Place).run("Where is it?")

    assert answer.output == Place(city="Oslo")


async def test_typed_output_by_a_tool_of_an_engine_that_knows_none() -> None:
    async with serving(Script()) as served, model(served) as asked:
        answer = await Agent(asked, output_type=Weather).run("Is it warm?")
        async with Agent(asked, output_type=Weather).run_stream("Is it warm?") as stream:
            streamed = await stream.get_output()

    assert answer.output == streamed == Weather(warm=True)
    assert answer.usage.output_tokens > 0


async def test_one_of_several_types_of_output_is_chosen() -> None:
    def choose(call: Sample) -> str:
        return '{"city": "Oslo"}' if call.schema else "final_result_Place"

    async with serving(Script(reply=choose)) as served, model(served) as asked:
        kinds: Any = [Weather, Place]
        answer = await Agent(asked, output_type=kinds).run("Where is it?")

    assert answer.output == Place(city="Oslo")


async def test_tools_next_to_plain_text_need_a_server_that_calls_them(served: Served) -> None:
    async with model(served) as asked:
        with pytest.raises(ModelHTTPError, match="REDRAFT_ENGINE=openai"):
            await Agent(asked, tools=[weather]).run("How warm is Oslo?")


async def test_a_tool_is_called_and_its_answer_told() -> None:
    async with before(ChatServer()) as front, model(front) as asked:
        answer = await Agent(asked, tools=[weather]).run("How warm is Oslo?")

    assert answer.output == "It is 12 degrees in Oslo"
