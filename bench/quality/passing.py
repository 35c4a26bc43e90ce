"""What a passing text costs: the tokens and the time that runs take until a text passes every verifier they see."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.harness.page import markdown_table
from bench.quality.arms import ARMS
from bench.quality.runs import Run

REFERENCES = ("free", "best_of_n", "ask_again")
"""The arms that the others are compared with."""


@dataclass(frozen=True)
class Cost:
    """Of the first passing text of a run; infinite if there is none."""

    tokens: float
    seconds: float


NEVER = Cost(math.inf, math.inf)


def cost_of_passing(run: Run, budget: int) -> Cost:
    """What the run had spent when its first text passed every visible verifier, if that was within the budget."""
    for step in run.steps:
        if all(step.visible) and step.tokens <= budget:
            return Cost(step.tokens, math.inf if step.seconds is None else step.seconds)
    return NEVER


def medians(runs: Mapping[str, Sequence[Run]], budget: int, reference: str = "free") -> Mapping[str, Cost]:
    """By arm, the median cost over the prompts and seeds that the reference passes within the budget."""
    passed = {(run.prompt, run.seed) for run in runs[reference] if cost_of_passing(run, budget) != NEVER}
    found = {}
    for arm, of_arm in runs.items():
        costs = [cost_of_passing(run, budget) for run in of_arm if (run.prompt, run.seed) in passed]
        if costs:
            found[arm] = Cost(median(cost.tokens for cost in costs), median(cost.seconds for cost in costs))
    return found


def table(runs: Mapping[str, Sequence[Run]], budget: int) -> str:
    """The medians as a Markdown table, each with its ratio to those of the reference arms."""
    found = medians(runs, budget) if "free" in runs else {}
    references = [arm for arm in REFERENCES if arm in found]
    columns = ["arm", "all tokens / passing runs", "tokens, median", "seconds, median"]
    columns += [f"{unit} / {ARMS[arm].label}" for unit in ("tokens", "seconds") for arm in references]
    rows = []
    for arm, cost in found.items():
        ratios = [_ratio(cost.tokens, found[other].tokens) for other in references]
        ratios += [_ratio(cost.seconds, found[other].seconds) for other in references]
        rows.append([ARMS[arm].label, _each(runs[arm], budget), _number(cost.tokens), _number(cost.seconds), *ratios])
    return markdown_table(columns, rows)


def share_by(runs: Sequence[Run], budget: int, *, tokens: float = math.inf, seconds: float = math.inf) -> float:
    """The share of runs that had a passing text by then."""
    costs = [cost_of_passing(run, budget) for run in runs]
    return sum(cost != NEVER and cost.tokens <= tokens and cost.seconds <= seconds for cost in costs) / len(costs)


def _each(runs: Sequence[Run], budget: int) -> str:
    """What all runs spent together, for each that passes."""
    passed = sum(cost_of_passing(run, budget) != NEVER for run in runs)
    return f"{sum(min(run.tokens, budget) for run in runs) / passed:.0f}" if passed else ""


def _number(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) else "none by then"


def _ratio(value: float, to: float) -> str:
    return f"{value / to:.2f}" if math.isfinite(value) and math.isfinite(to) else ""
