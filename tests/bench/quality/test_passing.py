"""What a passing text costs, how it reads, and which kinds of rules it follows."""

import math

import pytest

from bench.quality import kinds, passing, prose
from bench.quality.prompts import BenchPrompt, load_prompts
from bench.quality.runs import Run, Step


def run(*steps: Step, arm: str = "free", prompt: str = "creative-900", seed: int = 0) -> Run:
    return Run(prompt, arm, seed, steps, 1000, "budget", 9, len(steps), {"stop": 3, "length": 1})


def step(tokens: int, passes: bool, text: str = "", fluency: float | None = None) -> Step:
    return Step(tokens, [passes], [], tokens / 10, text, "stop", fluency)


def test_a_run_has_paid_for_its_first_passing_text() -> None:
    made = run(step(100, False), step(300, True), step(400, True))

    assert passing.cost_of_passing(made, 1000) == passing.Cost(300, 30.0)
    assert passing.cost_of_passing(made, 299) == passing.NEVER
    assert passing.cost_of_passing(run(step(100, False)), 1000) == passing.NEVER


def test_medians_are_over_the_runs_that_the_free_search_passes() -> None:
    free = [run(step(400, True)), run(step(100, False), prompt="creative-901")]
    ruled = [run(step(100, True), arm="always"), run(step(900, True), arm="always", prompt="creative-901")]

    found = passing.medians({"free": free, "always": ruled}, 1000)

    assert found == {"free": passing.Cost(400, 40.0), "always": passing.Cost(100, 10.0)}


def test_an_arm_that_seldom_passes_has_no_median() -> None:
    free = [run(step(400, True), seed=seed) for seed in range(3)]
    seldom = [run(step(90, seed == 0), arm="ask_again", seed=seed) for seed in range(3)]

    assert math.isinf(passing.medians({"free": free, "ask_again": seldom}, 1000)["ask_again"].tokens)
    [row] = [line for line in passing.table({"free": free, "ask_again": seldom}, 1000).splitlines() if "again" in line][
        1:
    ]
    assert row.startswith("| ask again with the errors | 3000 | none by then | none by then |")


def test_the_share_of_passing_runs_grows_with_what_is_spent() -> None:
    runs = [run(step(100, False), step(300, True)), run(step(500, True))]

    assert [passing.share_by(runs, 1000, tokens=tokens) for tokens in (299, 300, 500)] == [0, 0.5, 1]
    assert [passing.share_by(runs, 1000, seconds=seconds) for seconds in (29, 30, 50)] == [0, 0.5, 1]


def test_four_words_that_come_again_are_repeated() -> None:
    assert prose.repeated_share("a b c d e") == 0
    assert prose.repeated_share("a b c d a b c d") == pytest.approx(1 / 5)
    assert prose.repeated_share("a b") == 0


def test_words_without_spaces_between_them_show() -> None:
    assert prose.has_glued_words("it was reallyhotwheniwatched")
    assert not prose.has_glued_words("the well-known internationalization of responsibilities")


def test_fluency_is_compared_on_the_same_prompts() -> None:
    mine = {("a", 0): step(1, True, fluency=0.6), ("b", 0): step(1, True, fluency=0.1)}
    its = {("a", 0): step(1, True, fluency=0.8), ("c", 0): step(1, True, fluency=0.9)}

    assert prose.fluency_ratio(mine, its) == 0.6 / 0.8
    assert prose.fluency_ratio(mine, {}) is None


def test_code_is_no_prose() -> None:
    assert prose.passing([run(step(1, True), prompt="code-001")], 1000) == {}


def test_every_kind_of_rule_has_a_name() -> None:
    rules = {kind for prompt in load_prompts() for verifier in prompt.evaluators for kind in kinds.kinds_of(verifier)}

    assert {"length.words", "keywords.include", "format.no_commas", "starts_with", "regex"} <= rules


def test_rules_are_followed_by_kind() -> None:
    prompt = BenchPrompt(
        id="general-900",
        task="general",
        prompt="Write.",
        evaluators=({"type": "keywords", "include": ["a"], "exclude": ["b"]}, {"type": "regex", "pattern": "c"}),
        max_tokens=20,
        solution="a c",
    )
    made = run(Step(9, [True, False], []), prompt=prompt.id)

    found = kinds.shares({"free": [made]}, [prompt], lambda run: run.steps[0])

    assert found == {
        "keywords.include": {"free": [True]},
        "keywords.exclude": {"free": [True]},
        "regex": {"free": [False]},
    }
    assert "| `regex` | stated | 1 | 0% |" in kinds.table({"free": [made]}, [prompt], lambda run: run.steps[0])
