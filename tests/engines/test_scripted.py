import asyncio
import math
from dataclasses import replace

import pytest

from service.engines.base import Choose, Engine, Sample, Sampling, Weigh
from service.engines.conversation import Conversation, Turn
from service.engines.scripted import Script, ScriptedEngine
from service.engines.siblings import sample_siblings
from service.errors import EngineDead
from tests.support.engine_contract import GREEDY, QUESTION, EngineContract, LikelihoodContract, ThinkingContract


class TestScriptedEngine(EngineContract, LikelihoodContract):
    @pytest.fixture
    def engine(self) -> Engine:
        return ScriptedEngine()


class TestShapingEngine(EngineContract):
    @pytest.fixture
    def engine(self) -> Engine:
        return ScriptedEngine(Script(takes_grammars=True))


class TestSeeingEngine(EngineContract):
    @pytest.fixture
    def engine(self) -> Engine:
        return ScriptedEngine(Script(takes_images=True))


def thinking(call: Sample) -> str:
    answer = "Red is warm, blue is cold, and green is between them."
    thinks = call.sampling is None or call.sampling.thinking
    return f"<think>The user wants three colours.</think>\n\n{answer}" if thinks else answer


class TestThinkingEngine(ThinkingContract):
    @pytest.fixture
    def engine(self) -> Engine:
        return ScriptedEngine(Script(reply=thinking))


async def test_a_script_says_what_is_replied_and_how_options_weigh() -> None:
    engine = ScriptedEngine(Script(reply=lambda call: call.prompt.upper(), weights=lambda call: [0.25, 0.5]))

    reply = await engine.call(Sample(Conversation(Turn("user", "hello there")), GREEDY))
    choice = await engine.call(Choose(QUESTION, ("a", "b")))

    assert reply.text == "HELLO THERE"
    assert choice.logprobs == pytest.approx((-1.386294, -0.693147))


async def test_a_reply_that_is_one_of_the_choices_is_kept_and_another_gives_way() -> None:
    choices = ("yes", "no", "maybe")
    asked = Sampling(choices=choices)

    kept = await ScriptedEngine(Script(reply=lambda call: "maybe")).call(Sample(QUESTION, asked))
    chosen = [(await ScriptedEngine().call(Sample(QUESTION, replace(asked, seed=seed)))).text for seed in range(20)]
    again = [(await ScriptedEngine().call(Sample(QUESTION, replace(asked, seed=seed)))).text for seed in range(20)]

    assert kept.text == "maybe"
    assert set(chosen) == set(choices)
    assert chosen == again


async def test_a_script_says_how_likely_each_token_of_a_given_reply_is() -> None:
    engine = ScriptedEngine(Script(likelihood=lambda call, token: 0.25 if token in call.prompt else 0.0))

    found = await engine.call(Weigh(Conversation(Turn("user", "hello there")), "hello you there"))

    assert found.logprobs == pytest.approx((-1.386294, -math.inf, -1.386294))
    assert engine.calls_of(Weigh)[0].reply == "hello you there"


async def test_a_fault_is_raised_and_nothing_stays_in_flight() -> None:
    def fault(call: object) -> None:
        raise OSError("broken")

    engine = ScriptedEngine(Script(fault=fault))

    with pytest.raises(OSError, match="broken"):
        await engine.call(Sample(QUESTION, GREEDY))
    assert engine.in_flight == 0


async def test_death_ends_what_runs_and_refuses_what_comes() -> None:
    engine = ScriptedEngine(Script(seconds_per_call=3600))
    running = asyncio.ensure_future(sample_siblings(engine, Sample(QUESTION, GREEDY), 2))
    for _ in range(3):
        await asyncio.sleep(0)
    assert engine.in_flight == 2

    engine.kill()

    with pytest.raises(EngineDead):
        await running
    with pytest.raises(EngineDead):
        await engine.check()
    with pytest.raises(EngineDead):
        await engine.call(Choose(QUESTION, ("1",)))
    assert engine.in_flight == 0


async def test_the_prompt_of_a_call_is_its_last_user_turn() -> None:
    engine = ScriptedEngine()
    conversation = Conversation(Turn("user", "one")).with_reply("two").with_user("three").with_user("four")

    await engine.call(Sample(conversation, Sampling()))

    assert engine.calls[0].prompt == "three\n\nfour"
