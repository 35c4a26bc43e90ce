"""LangChain's ChatOpenAI against the whole service."""

import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from service.engines.scripted import Script
from tests.support.chat_server import ChatServer, before
from tests.support.serving import Served, serving

SALT = {"redraft": {"evaluators": [{"type": "keywords", "include": ["salt"]}], "judge": False}}


class Weather(BaseModel):
    warm: bool


def chat(served: Served, model: str, **options: object) -> ChatOpenAI:
    return ChatOpenAI(
        model=model, base_url=f"{served.client.base_url}/v1", api_key=SecretStr("none"), max_retries=0, **options
    )


async def test_it_writes_and_counts() -> None:
    asked = [("system", "Be brief."), ("human", "Write about the sea.")]
    async with serving(Script(reply=lambda call: "Waves.")) as served:
        answer = await chat(served, "scripted", temperature=0.5, max_tokens=20).ainvoke(asked)

    assert answer.content == "Waves."
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 1


@pytest.mark.parametrize(("model", "text"), [("scripted", "Waves."), ("scripted:refine", "Salt waves.")])
async def test_it_streams(served: Served, model: str, text: str) -> None:
    options = {"extra_body": SALT} if model != "scripted" else {}
    pieces = [piece async for piece in chat(served, model, stream_usage=True, **options).astream("The sea?")]

    assert "".join(str(piece.content) for piece in pieces) == text
    assert any(piece.usage_metadata for piece in pieces)


async def test_it_parses_a_model_s_schema() -> None:
    async with serving(Script()) as served:
        structured = chat(served, "scripted").with_structured_output(Weather)
        assert await structured.ainvoke("Is it warm?") == Weather(warm=True)


@pytest.mark.parametrize("strict", [None, True])
async def test_it_makes_typed_answers_by_a_tool_of_an_engine_that_knows_none(strict: bool | None) -> None:
    async with serving(Script()) as served:
        structured = chat(served, "scripted").with_structured_output(Weather, method="function_calling", strict=strict)
        whole = await structured.ainvoke("Is it warm?")
        pieces = [piece async for piece in structured.astream("Is it warm?")]

    assert whole == pieces[-1] == Weather(warm=True)


@tool
def weather(city: str) -> str:
    """Tell how warm a city is."""
    return f"12 degrees in {city}"


async def test_it_binds_tools_and_answers_with_what_they_gave() -> None:
    asked = HumanMessage("How warm is Oslo?")
    async with before(ChatServer()) as front:
        bound = chat(front, "scripted").bind_tools([weather])
        called = await bound.ainvoke([asked])
        [call] = called.tool_calls
        given = ToolMessage(await weather.ainvoke(call["args"]), tool_call_id=call["id"])
        told = await bound.ainvoke([asked, called, given])

    assert (call["name"], call["args"]) == ("weather", {"city": "Oslo"})
    assert told.content == "It is 12 degrees in Oslo"


async def test_it_streams_a_tool_call() -> None:
    async with before(ChatServer()) as front:
        whole = None
        async for piece in chat(front, "scripted").bind_tools([weather], tool_choice="weather").astream("Oslo?"):
            assert isinstance(piece, AIMessageChunk)
            whole = piece if whole is None else whole + piece

    assert whole is not None
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == [("weather", {"city": "Oslo"})]
