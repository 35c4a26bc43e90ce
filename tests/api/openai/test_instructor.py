"""instructor, which makes typed answers of chat completions, against the whole service."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import instructor
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from service.engines.scripted import Script
from tests.support.chat_server import ChatServer, before
from tests.support.serving import Served, serving

MESSAGES: Any = [{"role": "user", "content": "How is the weather in Oslo?"}]


class Weather(BaseModel):
    """How the weather is."""

    warm: bool


class Place(BaseModel):
    city: str


@asynccontextmanager
async def client(served: Served, mode: instructor.Mode) -> AsyncIterator[instructor.AsyncInstructor]:
    async with AsyncOpenAI(base_url=f"{served.client.base_url}/v1", api_key="none", max_retries=0) as openai:
        yield instructor.from_openai(openai, mode=mode)


@pytest.mark.parametrize("mode", [instructor.Mode.JSON_SCHEMA, instructor.Mode.JSON, instructor.Mode.MD_JSON])
async def test_its_json_modes_make_typed_answers(mode: instructor.Mode) -> None:
    """A schema is held by the engine; otherwise the prompt asks for it, and the model has to keep it."""
    by_schema = mode is instructor.Mode.JSON_SCHEMA
    script = Script() if by_schema else Script(reply=lambda call: '```json\n{"warm": true}\n```')
    if mode is instructor.Mode.JSON:
        script = Script(reply=lambda call: '{"warm": true}')
    async with serving(script) as served, client(served, mode) as typed:
        weather = await typed.chat.completions.create(
            model="scripted", messages=MESSAGES, response_model=Weather, max_retries=0
        )

    assert weather.warm is True


@pytest.mark.parametrize("mode", [instructor.Mode.TOOLS, instructor.Mode.PARALLEL_TOOLS])
async def test_its_tool_modes_reach_a_server_that_calls_tools(mode: instructor.Mode) -> None:
    asked: Any = Iterable[Place] if mode is instructor.Mode.PARALLEL_TOOLS else Place
    async with before(ChatServer()) as front, client(front, mode) as typed:
        answer = await typed.chat.completions.create(
            model="scripted", messages=MESSAGES, response_model=asked, max_retries=0
        )
        places = list(answer) if mode is instructor.Mode.PARALLEL_TOOLS else [answer]

    assert [place.city for place in places] == ["Oslo"]


async def test_its_default_mode_needs_no_server_that_calls_tools() -> None:
    async with (
        serving(Script()) as served,
        AsyncOpenAI(base_url=f"{served.client.base_url}/v1", api_key="none", max_retries=0) as openai,
    ):
        create = instructor.from_openai(openai).chat.completions.create
        weather = await create(model="scripted", messages=MESSAGES, response_model=Weather, max_retries=0)

    assert isinstance(weather, Weather)
    assert weather.warm is True


async def test_it_streams_partial_answers_of_an_engine_that_knows_no_tools() -> None:
    script = Script(reply=lambda call: '{"city": "Oslo"}')
    async with serving(script) as served, client(served, instructor.Mode.TOOLS) as typed:
        create = typed.chat.completions.create_partial
        partial = [place.city async for place in create(model="scripted", messages=MESSAGES, response_model=Place)]

    assert partial[-1] == "Oslo"


async def test_it_streams_partial_answers() -> None:
    async with before(ChatServer()) as front, client(front, instructor.Mode.TOOLS) as typed:
        create = typed.chat.completions.create_partial
        partial = [place.city async for place in create(model="scripted", messages=MESSAGES, response_model=Place)]

    assert partial[-1] == "Oslo"
