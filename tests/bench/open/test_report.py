"""Open requests are refined over HTTP, resumed, and counted."""

from datetime import date
from pathlib import Path

import pytest

from bench.open.asking import Origin, Planned, Run, open_results, refine_all
from bench.open.prompts import OpenPrompt
from bench.open.report import changes, compared, page
from redraft import AsyncRedraft
from service.engines.scripted import Script
from tests.support.serving import serving

ORIGIN = Origin("scripted", 3_000, "abc1234")
CAPITAL = OpenPrompt(
    id="general-01",
    task="general",
    prompt="What is the capital of France?",
    key=({"type": "keywords", "include": ["Paris"]},),
    max_tokens=20,
    solution="Paris",
)


def run(arm: str, first: bool, last: bool, *, prompt: str = "general-01", complete: bool = True) -> Run:
    return Run(prompt, arm, 0, first, last, complete, 100, "target", "drive")


async def test_a_run_says_whether_first_draft_and_result_are_right_and_is_not_made_again(tmp_path: Path) -> None:
    results = open_results(tmp_path / "open.jsonl")
    results.begin(ORIGIN)
    planned = [Planned(CAPITAL, arm, 0) for arm in ("draft", "best_of_n")]
    async with (
        serving(Script(reply=lambda call: "It is Paris.")) as served,
        AsyncRedraft(str(served.client.base_url)) as client,
    ):
        await refine_all(planned[:1], client, results, budget=3_000, at_once=2)
        calls = len(served.engine.calls)
        await refine_all(planned, client, results, budget=3_000, at_once=2)

    assert [(found.arm, found.first, found.last) for found in results.read()] == [
        ("draft", True, True),
        ("best_of_n", True, True),
    ]
    assert calls == 1


async def test_a_wrong_answer_is_no_right_one(tmp_path: Path) -> None:
    results = open_results(tmp_path / "open.jsonl")
    results.begin(ORIGIN)
    async with (
        serving(Script(reply=lambda call: "It is Rome.")) as served,
        AsyncRedraft(str(served.client.base_url)) as client,
    ):
        await refine_all([Planned(CAPITAL, "draft", 0)], client, results, budget=3_000, at_once=1)

    [found] = results.read()
    assert (found.first, found.last) == (False, False)


def test_only_prompts_that_every_arm_has_run_are_compared() -> None:
    found = compared([run("draft", True, True), run("vote", True, True), run("vote", True, True, prompt="code-01")])

    assert {arm: len(runs) for arm, runs in found.items()} == {"draft": 1, "vote": 1}


def test_changes_are_counted_from_the_first_draft() -> None:
    assert changes([run("vote", False, True), run("vote", False, True), run("vote", True, False)]) == (2, 1)


def test_the_page_says_which_bars_are_met() -> None:
    prompts = [f"general-{number:02d}" for number in range(4)]
    good = [run("self_refine", number == 0, True, prompt=each) for number, each in enumerate(prompts)]
    bad = [run("pairwise", True, number != 0, prompt=each) for number, each in enumerate(prompts)]
    many = [run("best_of_n", False, number < 2, prompt=each) for number, each in enumerate(prompts)]

    text = page([*good, *bad, *many], ORIGIN, date(2026, 11, 29))

    assert "`self_refine`: wrong → right at least 3 times as often as right → wrong | 3 : 0 | yes |" in text
    assert "`pairwise`: wrong → right at least 3 times as often as right → wrong | 0 : 1 | **no** |" in text
    assert "| `self_refine` | 100% | +50.0" in text


def test_the_page_tells_drafts_that_were_cut_from_the_others() -> None:
    runs = [
        run("vote", False, True, complete=False),
        run("vote", False, False, prompt="code-01"),
        run("draft", False, False, complete=False),
        run("draft", False, False, complete=False, prompt="code-01"),
    ]

    text = page(runs, ORIGIN, date(2026, 11, 29))

    assert "| complete |  | 0% of 1 |" in text
    assert "| cut | 0% of 2 | 100% of 1 |" in text


def test_a_page_needs_a_prompt_that_every_arm_has_run() -> None:
    with pytest.raises(ValueError, match="every arm"):
        page([], ORIGIN, date(2026, 11, 29))
