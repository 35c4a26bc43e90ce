"""Streams of remote servers that end in the middle: what was written is kept, with what is known of its cost."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from service.engines.base import Completion, Reading, Sample, Sampling, Thought, Usage
from service.engines.remote.chat import ChatCapabilities, ChatEngine
from service.engines.remote.lengths import PromptLengths
from service.engines.remote.server import OpenAIServer
from service.errors import EngineUnavailable
from tests.support.engine_contract import QUESTION
from tests.support.listener import answered, listening

PLAIN = ChatCapabilities(schemas=True, logprobs=True)


def events(*deltas: dict[str, Any], usage: dict[str, int] | None = None) -> bytes:
    """A stream that breaks off after these deltas."""
    told = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}], "usage": usage} for delta in deltas]
    return "".join(f"data: {json.dumps(event)}\n\n" for event in told).encode()


@asynccontextmanager
async def engine_on(body: bytes) -> AsyncIterator[ChatEngine]:
    async with listening(answered(body, 200, "Content-Type: text/event-stream")) as listener:
        server = OpenAIServer(f"http://127.0.0.1:{listener.port}")
        yield ChatEngine(server, "m", PLAIN)
        await server.close()


async def read(engine: ChatEngine, cut: list[Completion]) -> None:
    """Read a stream to its end."""
    reading = Reading(on_cut=cut.append)
    _ = [piece async for piece in engine.stream(Sample(QUESTION, Sampling()), reading=reading)]


async def cut_off(body: bytes) -> Completion:
    cut: list[Completion] = []
    async with engine_on(body) as engine:
        with pytest.raises(EngineUnavailable):
            await read(engine, cut)
    [completion] = cut
    return completion


async def test_a_stream_that_breaks_off_keeps_what_it_said() -> None:
    completion = await cut_off(events({"content": "Red "}, {"content": "is"}, {"content": ""}))

    assert (completion.text, completion.finish_reason) == ("Red is", "length")
    # Nobody told the cost: the prompt's upper bound, and a token for each piece.
    assert completion.usage == Usage(1, PromptLengths().most(QUESTION), 0, 2)


async def test_a_usage_that_was_told_on_the_way_counts() -> None:
    spent = {"prompt_tokens": 20, "completion_tokens": 5}

    assert (await cut_off(events({"content": "Red is"}, usage=spent))).usage == Usage(1, 20, 0, 5)


async def test_thoughts_are_kept_apart() -> None:
    completion = await cut_off(events({"reasoning_content": "Hm. "}, {"content": "Red"}))

    assert (completion.thoughts, completion.text) == ("Hm.", "Red")
    assert completion.usage.reasoning_tokens == 1


async def test_a_stream_that_breaks_off_before_its_first_token_has_nothing_to_keep() -> None:
    cut: list[Completion] = []
    async with engine_on(events({"role": "assistant"})) as engine:
        with pytest.raises(EngineUnavailable):
            await read(engine, cut)

    assert cut == []


async def test_a_stream_that_is_closed_keeps_what_it_said() -> None:
    cut: list[Completion] = []
    said = events({"reasoning_content": "Hm."}, {"content": "Red"}, {"content": " is"})
    async with (
        engine_on(said) as engine,
        aclosing(engine.stream(Sample(QUESTION, Sampling()), reading=Reading(on_cut=cut.append))) as pieces,
    ):
        assert [await anext(pieces), await anext(pieces)] == [Thought("Hm."), "Red"]

    assert [completion.text for completion in cut] == ["Red"]
