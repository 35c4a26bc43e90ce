"""What runs amount to: whom they are compared with, what is counted at a budget, and how sure it is."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from bench.quality.arms import ARMS
from bench.quality.prompts import BenchPrompt, load_prompts
from bench.quality.report import (
    Comparison,
    NothingToCompare,
    by_arm,
    by_prompt,
    difference,
    endings,
    followed_by,
    follows_all,
    instructed,
    mean_over_prompts,
    page,
    plot,
    reached_by,
    summaries,
    table,
)
from bench.quality.runs import Origin, Run, Step
from service.learning.statistics import Interval

WRONG, RIGHT = ((False,), ()), ((True,), ())
PROMPTS = load_prompts()
[FIRST, SECOND, *_] = [prompt.id for prompt in PROMPTS if not prompt.reveals_answer]
REVEALED = next(prompt.id for prompt in PROMPTS if prompt.reveals_answer)
MADE_BY, MADE_ON = Origin("a-model", 1250, "abc1234"), date(2026, 1, 2)

Verdict = tuple[Sequence[bool], Sequence[bool]]


def run(
    *verdicts: Verdict, arm: str = "single_draft", prompt: str = "p", seed: int = 0, stop_reason: str = "budget"
) -> Run:
    """A run whose texts passed so much, each of them for 100 tokens."""
    steps = [Step(100 * number, *verdict) for number, verdict in enumerate(verdicts, 1)]
    return Run(prompt, arm, seed, steps, 100 * len(steps), stop_reason, len(steps), len(steps))


def seeds_of(prompt: str, *right: bool, arm: str = "single_draft") -> list[Run]:
    return [run(RIGHT if each else WRONG, arm=arm, prompt=prompt, seed=seed) for seed, each in enumerate(right)]


def cells(page: str, start: str) -> list[str]:
    """The cells of the first row that begins so."""
    line = next(line for line in page.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_a_run_has_reached_what_its_tokens_had_paid_for() -> None:
    made = run(WRONG, RIGHT, ((True, True), ()))

    assert [reached_by(made, tokens) for tokens in (100, 199, 200, 1000)] == [made.steps[i] for i in (0, 0, 1, 2)]
    assert reached_by(made, 50) == made.steps[0]


@pytest.mark.parametrize(
    ("visible", "hidden", "all_followed"),
    [((True, True), (), True), ((True, False), (), False), ((True,), (True,), True), ((True,), (False,), False)],
)
def test_all_instructions_are_followed_when_the_hidden_one_is_too(
    visible: Sequence[bool], hidden: Sequence[bool], all_followed: bool
) -> None:
    assert follows_all(Step(1, visible, hidden)) is all_followed


def test_identical_arms_do_not_differ() -> None:
    means = {"a": 0.0, "b": 1.0, "c": 1 / 3}

    assert difference(means, means) == Interval(0.0, 0.0, 0.0)


def test_a_gain_that_every_prompt_has_is_certain() -> None:
    assert difference({"a": 0.5, "b": 1.0}, {"a": 0.25, "b": 0.75}) == Interval(0.25, 0.25, 0.25)


def test_the_interval_is_that_of_the_prompts_not_of_the_runs() -> None:
    """One of four prompts gains 1: a resample has it Binomial(4, 1/4) times, whose quantiles are 0 and 3."""
    gained = difference({"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0}, dict.fromkeys("abcd", 0.0))

    assert gained == Interval(0.25, 0.0, 0.75)


def test_the_same_runs_have_the_same_interval_in_any_order() -> None:
    means = {f"p{number:02}": math.sqrt(number) for number in range(30)}
    others = {f"p{number:02}": math.log(1 + number) for number in range(30)}

    found = difference(means, others)

    assert found == difference(dict(reversed(means.items())), others)
    assert found.low < found.mean < found.high


def test_swapping_the_arms_swaps_the_sign() -> None:
    means, others = {"a": 1.0, "b": 0.5, "c": 0.0}, {"a": 0.0, "b": 0.5, "c": 0.5}
    one, other = difference(means, others), difference(others, means)

    assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low))


def test_a_prompt_counts_once_however_many_seeds_it_has() -> None:
    """By runs this would be 3 of 4 and a gain of 75 points."""
    drafts = [*seeds_of("a", False, False, False), *seeds_of("b", False)]
    better = [*seeds_of("a", True, True, True, arm="beam"), *seeds_of("b", False, arm="beam")]

    assert by_prompt(better, followed_by(1000)) == {"a": 1.0, "b": 0.0}
    assert mean_over_prompts(better, followed_by(1000)) == 0.5
    draft, beam = summaries({"single_draft": drafts, "beam": better}, 1000)
    assert beam.over_baseline is not None
    assert beam.all_followed - draft.all_followed == beam.over_baseline.mean == 0.5
    assert beam.visible_followed == 0.5


def test_tokens_are_the_mean_of_prompts_cut_at_the_budget() -> None:
    long, short = run(WRONG, WRONG, WRONG, prompt="a"), run(WRONG, prompt="b")

    [summary] = summaries({"single_draft": [long, short, run(WRONG, prompt="b", seed=1)]}, 250)

    assert summary.tokens == (250 + 100) / 2


def test_only_what_all_arms_have_is_compared_and_the_rest_is_counted() -> None:
    drafts = [*seeds_of("a", True, False), *seeds_of("b", True)]
    beams = [*reversed(seeds_of("a", True, True, arm="beam")), *seeds_of("c", True, arm="beam")]

    comparison = by_arm([*beams, *drafts])

    assert list(comparison.runs) == ["single_draft", "beam"]
    for of_arm in comparison.runs.values():
        assert [(made.prompt, made.seed) for made in of_arm] == [("a", 0), ("a", 1)]
    assert {made.arm for made in comparison.runs["beam"]} == {"beam"}
    assert comparison.left_out == 2


def test_runs_of_an_arm_that_there_is_no_longer_are_left_out() -> None:
    comparison = by_arm([*seeds_of("a", True), *seeds_of("a", True, arm="monte_carlo")])

    assert comparison == Comparison({"single_draft": seeds_of("a", True)}, left_out=1)


def test_where_nothing_can_be_compared_it_is_said_what_there_is() -> None:
    with pytest.raises(NothingToCompare, match=r"by every arm\. Runs by arm: single_draft 2, beam 1\."):
        by_arm([*seeds_of("a", True, True), *seeds_of("b", True, arm="beam")])
    with pytest.raises(NothingToCompare, match="monte_carlo 1"):
        by_arm(seeds_of("a", True, arm="monte_carlo"))
    with pytest.raises(NothingToCompare, match="none"):
        by_arm([])


def test_a_run_is_held_against_its_own_first_draft() -> None:
    runs = [run(WRONG, RIGHT), run(WRONG, WRONG), run(RIGHT), run(RIGHT, WRONG), run(RIGHT, WRONG, RIGHT)]

    [at_the_end] = summaries({"beam": runs}, 1000)
    [half_way] = summaries({"beam": runs}, 200)
    [at_first] = summaries({"beam": runs}, 100)

    assert (at_the_end.wrong_to_right, at_the_end.right_to_wrong) == (1, 1)
    assert (half_way.wrong_to_right, half_way.right_to_wrong) == (1, 2)
    assert (at_first.wrong_to_right, at_first.right_to_wrong) == (0, 0)


def test_the_share_of_the_hidden_instruction_is_that_of_the_prompts_which_have_one() -> None:
    runs = [run(((True,), (False,)), prompt="a"), run(((False,), (True,)), prompt="b"), run(RIGHT, prompt="c")]

    [summary] = summaries({"single_draft": runs}, 1000)

    assert summary.hidden_followed == 1 / 2
    assert summary.visible_followed == 2 / 3
    assert summary.all_followed == 1 / 3


def test_the_table_has_a_row_an_arm_and_leaves_blank_what_there_is_not() -> None:
    runs = {
        "single_draft": seeds_of("a", False),
        "free": [run(WRONG, WRONG, RIGHT, arm="free", prompt="a")],
        "beam": [run(RIGHT, WRONG, arm="beam", prompt="a")],
    }

    rows = table(summaries(runs, 1000))

    none, full, loss = "+0.0 (+0.0 to +0.0)", "+100.0 (+100.0 to +100.0)", "-100.0 (-100.0 to -100.0)"
    assert cells(rows, "single draft") == ["0.0%", "0.0%", "", "100", "0", "0", "", loss]
    assert cells(rows, "adaptive, free") == ["100.0%", "100.0%", "", "300", "1", "0", full, ""]
    assert cells(rows, "beam") == ["0.0%", "0.0%", "", "200", "0", "1", none, loss]
    assert {line.count("|") for line in rows.splitlines()} == {10}


def test_endings_tell_the_number_of_texts_the_reasons_and_the_alarms() -> None:
    runs = [run(WRONG), *(run(WRONG, WRONG, seed=seed, stop_reason="target") for seed in (1, 2, 3))]
    runs = [replace(made, ends={"stop": made.candidates}) for made in runs]
    runs[0] = replace(runs[0], ends={"length": 1}, alarms=["grammar: length.words"])

    cells_found = cells(endings({"adaptive": runs}), "adaptive")
    assert cells_found == ["1.8", "`target` 75%, `budget` 25%", "`stop` 86%, `length` 14%", "1"]


def compared(*prompts: str) -> Comparison:
    def of_arm(arm: str) -> Iterable[Run]:
        for prompt in prompts:
            yield run(WRONG, RIGHT, arm=arm, prompt=prompt)

    return by_arm([made for arm in ("single_draft", "free", "beam") for made in of_arm(arm)])


def tables(text: str) -> Sequence[Sequence[str]]:
    return [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]


def test_the_page_says_what_was_compared_where_it_came_from_and_what_was_left_out() -> None:
    comparison = by_arm([*(r for of_arm in compared(FIRST, SECOND).runs.values() for r in of_arm), run(RIGHT)])
    text = page(comparison, PROMPTS, 1000, MADE_BY, MADE_ON)

    assert "6 runs: 2 prompts, 1 seeds, 3 arms, each run with 1000 tokens" in text
    assert "1 more runs are left out" in text
    assert "Model a-model, 2026-01-02, commit abc1234." in text
    assert "may spend 1250 tokens" in text
    assert "{" not in text
    for found in tables(text):
        assert len({line.count("|") for line in found}) == 1
    assert "left out" not in page(compared(FIRST), PROMPTS, 1000, MADE_BY, MADE_ON)


def test_the_page_compares_the_hidden_instruction_with_the_free_search() -> None:
    hidden = {"single_draft": (True,), "free": (False,), "beam": (True,)}
    runs = [run(((True,), follows), arm=arm, prompt=FIRST) for arm, follows in hidden.items()]

    assert f"{ARMS['beam'].label} +100.0 (+100.0 to +100.0)" in page(by_arm(runs), PROMPTS, 1000, MADE_BY, MADE_ON)


def test_prompts_whose_verifiers_give_the_answer_away_are_told_apart() -> None:
    comparison = compared(FIRST, SECOND, REVEALED)
    text = page(comparison, PROMPTS, 1000, MADE_BY, MADE_ON)
    followed, revealed = text.split("## Answer keys")

    assert "\n2 prompts whose verifiers do not reveal the answer" in followed
    assert "\n1 prompts where a verifier" in revealed
    assert cells(revealed, "beam")[:2] == ["100.0%", "100.0%"]
    assert {made.prompt for of_arm in instructed(comparison.runs, PROMPTS).values() for made in of_arm} == {
        FIRST,
        SECOND,
    }
    assert [len(found) for found in tables(revealed)] == [5]
    assert "## Answer keys" not in page(compared(FIRST), PROMPTS, 1000, MADE_BY, MADE_ON)


def test_the_tasks_are_told_apart() -> None:
    task_of: Mapping[str, BenchPrompt] = {prompt.task: prompt for prompt in PROMPTS if not prompt.reveals_answer}
    creative, general = task_of["creative"].id, task_of["general"].id
    runs = [*seeds_of(creative, True, False), *seeds_of(general, True)]

    text = page(by_arm(runs), PROMPTS, 1000, MADE_BY, MADE_ON)

    assert cells(text, "`creative`") == ["1", "50%"]
    assert cells(text, "`general`") == ["1", "100%"]
    assert "| `code` |" not in text


def test_the_page_stands_where_only_answer_keys_were_run() -> None:
    text = page(compared(REVEALED), PROMPTS, 1000, MADE_BY, MADE_ON)

    assert "\n0 prompts whose verifiers" in text
    assert cells(text.split("## Answer keys")[1], "beam")[0] == "100.0%"


def test_the_same_runs_are_drawn_alike(tmp_path: Path) -> None:
    runs = compared(FIRST, SECOND).runs
    one, again, other = (tmp_path / f"{name}.svg" for name in ("one", "again", "other"))

    plot(runs, 1000, one)
    plot(runs, 1000, again)
    plot({**runs, "free": [run(WRONG, arm="free", prompt=p) for p in (FIRST, SECOND)]}, 1000, other)

    assert one.read_text().lstrip().startswith("<?xml")
    assert "<svg" in one.read_text()
    assert one.read_bytes() == again.read_bytes() != other.read_bytes()


def test_no_runs_are_an_empty_plot(tmp_path: Path) -> None:
    plot({}, 1000, tmp_path / "none.svg")

    assert "<svg" in (tmp_path / "none.svg").read_text()
