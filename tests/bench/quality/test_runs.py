"""Runs by an engine that follows a script: what an arm asks, what a text had cost, and going on after a cut."""

import json
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.harness.results import OtherOrigin
from bench.quality import __main__ as command
from bench.quality.arms import ARMS
from bench.quality.prompts import BenchPrompt, load_prompts
from bench.quality.runs import Bench, Origin, PlannedRun, Run, Step, open_results
from service.engines.base import Sample, Usage, Weigh
from service.engines.scripted import EngineCall
from service.errors import EngineDead
from service.evaluators.code.sandbox import Sandbox
from service.evaluators.toolbox import Toolbox
from service.programs.compile import Programs
from service.programs.models import ServedModels
from service.refinement.events import Event
from service.refinement.loop import refine
from service.refinement.program import Refine
from service.tasks.task import load_tasks
from tests.support.scripts import BilledEngine, engine, is_doubt, rated

SEA = BenchPrompt(
    id="general-900",
    task="general",
    prompt="Write about the sea.",
    evaluators=({"type": "keywords", "include": ["salt"]},),
    hidden=({"type": "keywords", "include": ["zanzibar"]},),
    max_tokens=20,
    solution="Salt off Zanzibar.",
)
TASKS = load_tasks()
BUDGET = 100_000
each_arm = pytest.mark.parametrize("arm", ARMS)


def bench(engine: BilledEngine, *, budget: int = BUDGET) -> Bench:
    programs = Programs(TASKS, command.BOUNDS, ServedModels((engine.model,)))
    return Bench(engine, programs, Origin("scripted", budget, "abc1234"), weighs=False)


def searching(*texts: str) -> BilledEngine:
    """An engine whose texts are these, one after the other, whatever asks for them; the last one is repeated. A critic
    always has a remark."""
    said = iter(texts)

    def reply(call: Sample) -> str:
        return '{"issues": ["Say more."]}' if call.schema is not None else next(said, texts[-1])

    return engine(reply=reply, weights=lambda call: [0.05, 0.95] if is_doubt(call) else rated(0.5))


def tokens(usage: Usage) -> int:
    return usage.prompt_tokens + usage.completion_tokens


def billed(engine: BilledEngine) -> Usage:
    return sum(engine.bill.values(), Usage())


def follows(visible: bool, hidden: bool) -> tuple[Sequence[bool], Sequence[bool]]:
    return [visible], [hidden]


def reached(run: Run) -> list[tuple[Sequence[bool], Sequence[bool]]]:
    return [(step.visible, step.hidden) for step in run.steps]


@each_arm
async def test_the_service_takes_the_request_of_every_arm(arm: str) -> None:
    sandbox = await Sandbox.find()
    programs = Programs(TASKS, command.BOUNDS, ServedModels(("scripted",)), tools=Toolbox(sandbox))
    for prompt in load_prompts():
        if sandbox is None and any(stated["type"] == "code_tests" for stated in prompt.evaluators):
            continue
        program = programs.compile_refine(PlannedRun(prompt, arm, 2).request(1250))
        assert (program.budget.tokens, program.sampling.max_tokens) == (1250, prompt.max_tokens)
        assert program.sampling.seed == 2_000_000
        verifiers = [evaluator for evaluator in program.evaluators if evaluator.authority == "verifier"]
        of_task = len(TASKS[prompt.task].evaluators)
        assert len(verifiers) - of_task == (len(prompt.evaluators) if ARMS[arm].verified else 0)
        judged = ARMS[arm].request["judge"]
        assert len(program.evaluators) - len(verifiers) == judged
        assert (program.search.critic == "model") == (arm == "judge_self_refine")


@each_arm
async def test_the_hidden_instruction_reaches_neither_the_loop_nor_the_model(
    arm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs: list[Refine] = []

    def seen(program: Refine, engine: Any) -> AsyncGenerator[Event, None]:
        programs.append(program)
        return refine(program, engine)

    monkeypatch.setattr("bench.quality.runs.refine", seen)
    model = searching("Waves.", "More waves.", "Foam.", "Salt.")

    run = await bench(model).run(PlannedRun(SEA, arm, 0))

    assert model.calls
    for call in model.calls:
        assert "zanzibar" not in " ".join(turn.text for turn in call.conversation.turns()).lower()
    for program in programs:
        assert "zanzibar" not in repr((program.evaluators, program.principles, program.request))
    assert {len(step.hidden) for step in run.steps} == {1}


@each_arm
async def test_the_total_is_the_engine_s_bill(arm: str) -> None:
    model = searching("Waves.", "More waves.", "Foam.", "Salt.")

    run = await bench(model, budget=1250).run(PlannedRun(SEA, arm, 0))

    assert (run.tokens, run.calls) == (tokens(billed(model)), billed(model).calls)
    assert [step.tokens for step in run.steps] == sorted({step.tokens for step in run.steps})
    assert run.steps[-1].tokens <= run.tokens


async def test_a_single_draft_is_one_call() -> None:
    model = searching("Waves of salt.")

    run = await bench(model).run(PlannedRun(SEA, "single_draft", 3))

    [call] = model.calls
    assert isinstance(call, Sample)
    assert call.sampling.seed == 3_000_000
    spent = tokens(billed(model))
    step = Step(spent, [True], [False], text="Waves of salt.", end="stop")
    assert run == Run("general-900", "single_draft", 3, [step], spent, "target", 1, 1, {"stop": 1}, [])


async def test_a_single_draft_is_not_revised_either_where_it_fails() -> None:
    model = searching("Waves.", "Salt.")

    run = await bench(model).run(PlannedRun(SEA, "single_draft", 0))

    assert (run.stop_reason, len(model.calls), reached(run)) == ("rounds", 1, [follows(False, False)])


async def test_best_of_n_is_never_told_a_rule_and_stops_once_a_draft_passes() -> None:
    model = searching("Waves.", "Sand.", "Foam.", "Surf.", "Salt.", "Salt of Zanzibar.")

    run = await bench(model).run(PlannedRun(SEA, "best_of_n", 0))

    assert (run.stop_reason, run.calls) == ("target", 8)
    assert reached(run) == [follows(False, False), follows(True, False)]
    assert {call.conversation for call in model.calls} == {model.calls[0].conversation}
    assert len({sample.sampling.seed for sample in model.calls_of(Sample)}) == 8


async def test_asking_again_shows_the_last_reply_and_what_is_wrong_with_it() -> None:
    model = searching("Waves.", "Foam.", "Salt.")

    run = await bench(model).run(PlannedRun(SEA, "ask_again", 0))

    assert (run.stop_reason, run.calls, run.candidates, run.ends) == ("target", 3, 3, {"stop": 3})
    first, second, third = (call.conversation for call in model.calls)
    assert first.before is None
    assert [turn.text for turn in second.turns()][1:] == ["Waves.", 'Use all of these words: "salt".']
    assert [turn.text for turn in third.turns()][1:] == ["Foam.", 'Use all of these words: "salt".']
    assert reached(run) == [follows(False, False), follows(True, False)]


async def test_asking_again_keeps_to_its_budget() -> None:
    for budget in range(20, 120, 7):
        run = await bench(searching("Waves."), budget=budget).run(PlannedRun(SEA, "ask_again", 0))
        assert run.stop_reason == "budget"
        assert run.tokens <= budget or run.calls == 1


async def test_arms_differ_in_what_helps_them() -> None:
    def search_of(arm: str) -> tuple[object, ...]:
        programs = Programs(TASKS, command.BOUNDS, ServedModels(("scripted",)))
        program = programs.compile_refine(PlannedRun(SEA, arm, 0).request(BUDGET))
        search = program.search
        return search.constraints, search.repairs, search.aborts, program.sampling.landing

    unaided, aided = (False, False, False), (True, True, True)
    assert {arm: search_of(arm) for arm in ("free", "aided", "unaided", "adaptive", "always", "ruled_draft")} == {
        "free": ("off", *unaided),
        "aided": ("off", *aided),
        "unaided": ("auto", *unaided),
        "adaptive": ("auto", *aided),
        "always": ("always", *aided),
        "ruled_draft": ("always", *unaided),
    }


async def test_fluency_is_weighed_by_the_model_for_each_text_that_displaced_another() -> None:
    model = searching("Waves and more waves and foam.", "Salt and waves and more waves.")
    weighing = replace(bench(model), weighs=True)

    run = await weighing.run(PlannedRun(SEA, "ask_again", 0))

    assert [step.fluency is not None for step in run.steps] == [True, True]
    assert len(model.calls_of(Weigh)) == 2


async def test_self_refine_is_told_the_rule() -> None:
    model = searching("Waves.", "Salt.")

    run = await bench(model).run(PlannedRun(SEA, "self_refine", 0))

    assert (run.stop_reason, run.calls) == ("target", 2)
    assert "salt" not in model.calls[0].prompt
    assert "salt" in model.calls[1].prompt


async def test_the_judge_only_arm_is_not_told_the_rule_but_held_to_it() -> None:
    model = searching("Waves.", "Foam.", "Salt.")

    run = await bench(model).run(PlannedRun(SEA, "judge_self_refine", 0))

    assert model.asked("judge")
    assert model.asked("critique")
    told = [sample.conversation.turn.text for sample in model.calls_of(Sample) if sample.schema is None]
    assert len(told) > 2
    assert not any("salt" in text.lower() for text in told)
    assert reached(run) == [follows(False, False)]  # the judge sees no gain in the salt


async def test_a_candidate_costs_its_own_tokens_and_comes_after_those_before_it() -> None:
    """Best of n: nothing but candidates is paid for."""
    model = searching("Waves.", "Sand and more sand.", "Salt.", "Foam.")

    run = await bench(model).run(PlannedRun(SEA, "best_of_n", 0))

    prompt_tokens = tokens(billed(model)) - len(["Waves.", "Sand", "and", "more", "sand.", "Salt.", "Foam."])
    assert prompt_tokens % 4 == 0
    each = prompt_tokens // 4
    assert [step.tokens for step in run.steps] == [each + 1, 3 * each + 1 + 4 + 1]


async def test_drafts_that_are_sampled_side_by_side_are_paid_one_after_the_other() -> None:
    model = searching("Waves.", "Sand.", "Salt.", "Foam.")

    run = await bench(model).run(PlannedRun(SEA, "beam", 0))

    each = tokens(billed(model)) // 4
    assert (run.calls, run.tokens) == (4, 4 * each)
    assert [step.tokens for step in run.steps] == [each, 3 * each]


async def test_judges_and_critics_are_paid_on_top(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ("Waves.", "Waves and salt.")
    model = engine(
        reply=lambda call: (
            '{"issues": ["Say more."]}' if call.schema is not None else texts[call.conversation.before is not None]
        ),
        weights=lambda call: rated(1.0 if texts[1] in call.prompt else 0.25),
    )
    bill: list[tuple[str, int]] = []
    enter = model._enter

    def noted(call: EngineCall, usage: Usage) -> None:
        role = model._role_of(call)
        kind = "text" if role in ("draft", "revise") else role
        bill.append((kind, tokens(usage)))
        enter(call, usage)

    monkeypatch.setattr(model, "_enter", noted)

    run = await bench(model, budget=2_000).run(PlannedRun(SEA, "judge_self_refine", 0))

    criteria = len(TASKS["general"].criteria)
    kinds = [kind for kind, _ in bill]
    judging = ["judge"] * (criteria + 1)
    assert kinds[: 2 * criteria + 6] == ["text", *judging, *["critique"] * 2, "text", *judging]
    by_then = [sum(cost for _, cost in bill[: criteria + 2]), sum(cost for _, cost in bill[: 2 * criteria + 6])]
    assert [step.tokens for step in run.steps] == by_then
    assert reached(run) == [follows(False, False), follows(True, False)]


async def test_a_draft_that_nothing_is_left_to_judge_is_still_what_the_run_returns() -> None:
    model = searching("Waves of salt.")

    run = await bench(model, budget=9).run(PlannedRun(SEA, "judge_self_refine", 0))

    spent = tokens(billed(model))
    step = Step(spent, [True], [False], text="Waves of salt.", end="stop")
    assert run == Run("general-900", "judge_self_refine", 0, [step], spent, "budget", 1, 0, {}, [])


async def test_a_run_whose_engine_died_is_no_result(tmp_path: Path) -> None:
    model = searching("Waves.", "Foam.")

    def dies(call: EngineCall) -> None:
        if len(model.calls) == 2:
            model.kill()

    model.script = replace(model.script, fault=dies)
    made = bench(model)

    with pytest.raises(ExceptionGroup) as failure:
        await made.complete([PlannedRun(SEA, "best_of_n", 0)], open_results(tmp_path / "runs.jsonl"))

    assert failure.group_contains(EngineDead)
    assert read_runs(tmp_path / "runs.jsonl") == (made.origin, [])


def read_runs(file: Path) -> tuple[Origin, Sequence[Run]]:
    results = open_results(file)
    return results.origin(), results.read()


def planned(*seeds: int) -> list[PlannedRun]:
    return [PlannedRun(SEA, arm, seed) for seed in seeds for arm in ("single_draft", "ask_again")]


async def test_runs_are_kept_as_they_were_made(tmp_path: Path) -> None:
    file = tmp_path / "results" / "runs.jsonl"
    made = bench(searching("Salt."))

    await made.complete(planned(0, 1), open_results(file))

    origin, runs = read_runs(file)
    assert origin == made.origin
    assert sorted((run.prompt, run.arm, run.seed) for run in runs) == sorted(run.key for run in planned(0, 1))
    for run in runs:
        assert run == await bench(searching("Salt.")).run(PlannedRun(SEA, run.arm, run.seed))


def test_a_file_is_an_origin_and_a_run_a_line(tmp_path: Path) -> None:
    """The form of files that are kept: they are read for years, so it does not change by accident."""
    file = tmp_path / "runs.jsonl"
    file.write_text(
        '{"model": "m", "budget": 1250, "commit": "64ab30f"}\n\n'
        '{"prompt": "code-003", "arm": "beam", "seed": 0, "steps": [{"tokens": 121, "visible": [true, false], '
        '"hidden": [true]}], "tokens": 130, "stop_reason": "rounds", "calls": 1, "candidates": 2}\n'
    )

    run = Run("code-003", "beam", 0, [Step(121, [True, False], [True])], 130, "rounds", 1, 2)
    assert read_runs(file) == (Origin("m", 1250, "64ab30f"), [run])


async def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    await bench(searching("Salt.")).complete(planned(0), open_results(file))
    before = file.read_text()
    model = searching("Salt.")

    await bench(model).complete(planned(0, 1), open_results(file))

    assert file.read_text().startswith(before)
    assert [run.seed for run in read_runs(file)[1]] == [0, 0, 1, 1]
    assert {sample.sampling.seed for sample in model.calls_of(Sample)} == {1_000_000}
    idle = searching("Salt.")
    await bench(idle).complete(planned(0, 1), open_results(file))
    assert idle.calls == []


@pytest.mark.parametrize("cut", [1, 20, 150])
async def test_a_line_that_was_cut_is_made_again(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "runs.jsonl"
    await bench(searching("Salt.")).complete(planned(0), open_results(file))
    whole = file.read_text()
    made = read_runs(file)[1]
    file.write_text(whole[: -1 - cut])
    model = searching("Salt.")

    assert len(read_runs(file)[1]) == len(made) - 1
    await bench(model).complete(planned(0), open_results(file))

    assert len(model.calls) == 1
    assert read_runs(file)[1] == made


@pytest.mark.parametrize("change", [{"model": "another"}, {"budget": 7}, {"commit": "fff0000"}])
async def test_runs_of_another_origin_are_not_mixed_in(tmp_path: Path, change: dict[str, Any]) -> None:
    file = tmp_path / "runs.jsonl"
    made = bench(searching("Salt."))
    await made.complete(planned(0), open_results(file))
    before, model = file.read_text(), searching("Salt.")
    other = replace(bench(model), origin=replace(made.origin, **change))

    with pytest.raises(OtherOrigin):
        await other.complete(planned(1), open_results(file))

    assert (model.calls, file.read_text()) == ([], before)


Command = Callable[..., None]


@pytest.fixture
def run_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Runs the command on the scripted engine, with ``runs.jsonl`` in the test's own folder."""

    def run(*arguments: str) -> None:
        files = ["--runs", str(tmp_path / "runs.jsonl"), "--out", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["bench.quality", *files, *arguments])
        monkeypatch.setenv("REDRAFT_ENGINE", "scripted")
        command.main()

    return run


def test_the_command_makes_the_runs_and_the_page(
    run_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "load_prompts", lambda: [SEA, replace(SEA, id="general-901", prompt="Sing.")])

    run_command("--seeds", "2", "--arms", "single_draft", "best_of_n", "--budget", "400")

    origin, runs = read_runs(tmp_path / "runs.jsonl")
    assert (origin.model, origin.budget, len(runs)) == ("scripted", 500, 8)
    page = (tmp_path / "quality.md").read_text()
    assert "8 runs: 2 prompts, 2 seeds, 2 arms, each run with 400 tokens" in page
    assert f"commit {origin.commit}." in page
    assert "<svg" in (tmp_path / "quality.svg").read_text()


def test_another_origin_ends_the_command_with_a_sentence(run_command: Command, tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").write_text(json.dumps({"model": "m", "budget": 7, "commit": "64ab30f"}) + "\n")

    with pytest.raises(SystemExit, match=r"results of another origin \(m, 7 tokens a run, commit 64ab30f\)"):
        run_command("--every", "100")


def test_nothing_to_compare_ends_the_command_with_a_sentence(run_command: Command, tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").write_text(json.dumps({"model": "m", "budget": 7, "commit": "64ab30f"}) + "\n")

    with pytest.raises(SystemExit, match="No prompt and seed has been run by every arm"):
        run_command("--report-only")


def test_what_was_opened_is_closed_when_the_engine_does_not_start(
    run_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []

    class Tools(Toolbox):
        async def close(self) -> None:
            closed.append(True)

    async def opened(settings: Any) -> Toolbox:
        return Tools()

    async def fails(settings: Any) -> None:
        raise EngineDead("no engine here")

    monkeypatch.setattr(command, "open_toolbox", opened)
    monkeypatch.setattr(command, "start_engine", fails)

    with pytest.raises(EngineDead):
        run_command()

    assert closed == [True]
