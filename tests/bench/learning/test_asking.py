"""Both models of a pipeline are asked the same, with seeds of their own."""

from pathlib import Path

from bench.harness.results import Results
from bench.learning.asking import Answer, Origin, Questions, ask, choose_questions, missing_models
from service.engines.base import Sample
from service.engines.scripted import Script, ScriptedEngine
from service.learning.paper import make_paper
from service.learning.practice import make_prompts
from service.learning.recipe import load_recipe
from tests.support.adapters import make_manifest

RECIPE = load_recipe("quick")
SEED = 3


def questions() -> Questions:
    paper = make_paper(make_prompts(200), RECIPE.practice.kept_out, RECIPE.examining)
    return choose_questions(SEED, make_manifest("a", recipe=RECIPE), paper, prompts=4, refined=2)


def results_in(folder: Path) -> Results[Origin, Answer]:
    results: Results[Origin, Answer] = Results(folder / "answers.jsonl", Origin, Answer)
    results.begin(Origin("base", "quick", "abc"))
    return results


async def test_a_model_is_asked_once_in_three_ways(tmp_path: Path) -> None:
    asked, results = questions(), results_in(tmp_path)
    engine = ScriptedEngine(Script(reply=lambda call: "we know it well."))

    assert missing_models(SEED, results) == ["base", "adapter"]
    await ask(engine, "base", asked, results)

    answers = results.read()
    assert [answer.way for answer in answers] == ["greedy"] * 4 + ["sampled"] * 4 + ["refined"] * 2
    assert {(answer.seed, answer.model) for answer in answers} == {(SEED, "base")}
    calls = engine.calls_of(Sample)
    assert [call.sampling.temperature for call in calls[:8]] == [0.0] * 4 + [RECIPE.examining.temperature] * 4
    assert len({call.sampling.seed for call in calls[4:8]}) == 4

    assert missing_models(SEED, results) == ["adapter"]
    assert missing_models(SEED + 1, results) == ["base", "adapter"]


async def test_each_rule_of_a_prompt_is_verified_by_its_kind(tmp_path: Path) -> None:
    asked, results = questions(), results_in(tmp_path)

    await ask(ScriptedEngine(Script(reply=lambda call: "we know it well.")), "adapter", asked, results)

    for answer, prompt in zip(results.read(), asked.prompts, strict=False):
        assert set(answer.followed) == set(prompt.kinds)
        assert answer.passed == all(answer.followed.values())
        for kind in set(prompt.kinds) & {"lowercase"}:
            assert answer.followed[kind]
        for kind in set(prompt.kinds) & {"uppercase"}:
            assert not answer.followed[kind]
