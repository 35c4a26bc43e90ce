import asyncio

import pytest

from service.engines.base import Engine, Sampling
from service.engines.conversation import Conversation, Turn
from service.engines.scripted import Script, ScriptedEngine
from service.errors import EngineDead
from tests.engines.contract import GREEDY, QUESTION, EngineContract


class TestScriptedEngine(EngineContract):
    @pytest.fixture
    def engine(self) -> Engine:
        return ScriptedEngine()


async def test_a_script_says_what_is_replied_and_how_options_weigh() -> None:
    engine = ScriptedEngine(Script(reply=lambda call: call.prompt.upper(), weights=lambda call: [0.25, 0.5]))

    [reply] = await engine.complete(Conversation(Turn("user", "hello there")), GREEDY)
    choice = await engine.choose(QUESTION, ("a", "b"))

    assert reply.text == "HELLO THERE"
    assert choice.logprobs == pytest.approx((-1.386294, -0.693147))


async def test_a_fault_is_raised_and_nothing_stays_in_flight() -> None:
    def fault(call: object) -> None:
        raise OSError("broken")

    engine = ScriptedEngine(Script(fault=fault))

    with pytest.raises(OSError, match="broken"):
        await engine.complete(QUESTION, GREEDY)
    assert engine.in_flight == 0


async def test_death_ends_what_runs_and_refuses_what_comes() -> None:
    engine = ScriptedEngine(Script(seconds_per_call=3600))
    running = asyncio.ensure_future(engine.complete(QUESTION, GREEDY, n=2))
    for _ in range(3):
        await asyncio.sleep(0)
    assert engine.in_flight == 2

    engine.kill()

    with pytest.raises(EngineDead):
        await running
    with pytest.raises(EngineDead):
        await engine.check()
    with pytest.raises(EngineDead):
        await engine.choose(QUESTION, ("1",))
    assert engine.in_flight == 0


async def test_the_prompt_of_a_call_is_its_last_user_turn() -> None:
    engine = ScriptedEngine()
    conversation = Conversation(Turn("user", "one")).with_reply("two").with_user("three").with_user("four")

    await engine.complete(conversation, Sampling())

    assert engine.calls[0].prompt == "three\n\nfour"
