"""The exam's loop: the service's own, with a bound on what each prompt costs."""

from collections import Counter

from service.engines.base import Sample
from service.engines.scripted import EngineCall, Script, ScriptedEngine
from service.errors import EngineUnavailable
from service.learning.recipe import Refining, load_recipe
from service.learning.refining import refine_all
from tests.learning import made

EXAMINING = load_recipe("quick").examining
REFINING = Refining(prompts=2, tokens=400, margin=0.2)
PROMPTS = [made.prompt("a"), made.prompt("b", "Write about sugar.", {"type": "keywords", "include": ["sugar"]})]


async def test_a_prompt_ends_with_its_first_passing_text_or_its_budget() -> None:
    engine = ScriptedEngine(Script(reply=lambda call: "There is salt in it."))
    passed, not_passed = await refine_all(engine, PROMPTS, EXAMINING, REFINING)

    assert (passed.passed, passed.failed) == (True, False)
    assert (not_passed.passed, not_passed.failed) == (False, False)
    assert 0 < passed.tokens < not_passed.tokens <= 400


async def test_the_same_model_gets_the_same_seeds() -> None:
    one, other = ScriptedEngine(), ScriptedEngine()
    await refine_all(one, PROMPTS, EXAMINING, REFINING)
    await refine_all(other, PROMPTS, EXAMINING, REFINING)

    seeds = [[call.sampling.seed for call in engine.calls_of(Sample)] for engine in (one, other)]
    assert None not in seeds[0]
    assert Counter(seeds[0]) == Counter(seeds[1])


async def test_a_prompt_has_its_seeds_whatever_came_before_it_in_the_same_look() -> None:
    together, alone = ScriptedEngine(), ScriptedEngine()
    await refine_all(together, PROMPTS, EXAMINING, REFINING)
    await refine_all(alone, PROMPTS[1:], EXAMINING, REFINING, first=1)

    def seeds(engine: ScriptedEngine) -> Counter[object]:
        asked = [call for call in engine.calls_of(Sample) if "sugar" in str(call.prompt)]
        return Counter(call.sampling.seed for call in asked)

    assert seeds(alone) == seeds(together) != Counter()


async def test_an_engine_that_fails_says_nothing_of_the_model() -> None:
    calls = list[EngineCall]()

    def fail(call: EngineCall) -> None:
        calls.append(call)
        if len(calls) > 4:
            raise EngineUnavailable("it is gone")

    [found] = await refine_all(ScriptedEngine(Script(fault=fail)), PROMPTS[:1], EXAMINING, REFINING)
    assert found.failed
