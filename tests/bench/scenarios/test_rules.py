"""Random sets of rules: each compiles, or is refused by name, and what came of each is told."""

import json
from pathlib import Path

from bench.harness.results import Records
from bench.scenarios.made_rules import make_rules
from bench.scenarios.rules import LIMITS, Outcome, run, summarize, try_seed
from service.engines.scripted import Script, ScriptedEngine
from service.programs.compile import Programs
from service.programs.models import ServedModels
from service.tasks.task import load_tasks
from service.wire.requests import RefineRequest


def programs(engine: ScriptedEngine) -> Programs:
    return Programs(load_tasks(), LIMITS, ServedModels((engine.model,)))


def test_the_service_takes_every_rule() -> None:
    for seed in range(300):
        body = {"prompt": "Write.", "evaluators": make_rules(seed)}
        assert RefineRequest.model_validate_json(json.dumps(body)).evaluators


def test_the_same_seed_makes_the_same_rules_and_others_make_others() -> None:
    made = [json.dumps(make_rules(seed)) for seed in range(200)]
    assert made == [json.dumps(make_rules(seed)) for seed in range(200)]
    assert len(set(made)) > 190


async def test_seeds_that_have_a_result_are_not_tried_again(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    results: Records[Outcome] = Records(tmp_path / "rules.jsonl", Outcome)

    await run(engine, programs(engine), range(6), results)

    assert sorted(outcome.seed for outcome in results.read()) == list(range(6))


async def test_a_text_that_breaks_what_was_enforced_is_a_fault() -> None:
    engine = ScriptedEngine(script=Script(reply=lambda call: "No.", takes_grammars=True, grammar_breaks=True))

    outcomes = [await try_seed(engine, programs(engine), seed) for seed in range(40)]

    assert {"broken", "contradiction"} <= {outcome.kind for outcome in outcomes}
    broken = next(outcome for outcome in outcomes if outcome.kind == "broken")
    assert broken.enforced
    assert broken.note.endswith(": No.")


def test_the_summary_names_every_fault() -> None:
    text = summarize([Outcome(1, "kept", ["length.words"]), Outcome(2, "empty", ["length.words"], note="x")])

    assert "2 texts under 2 rules: 1 ended and follow them" in text
    assert "seed 2 empty: x" in text
