"""What the runs amount to: a table, a plot of score against tokens spent, and intervals by paired bootstrap."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np

from bench.quality.arms import ARMS
from bench.quality.prompts import BenchPrompt
from bench.quality.runs import Run, Step

matplotlib.use("svg")
from matplotlib import pyplot

RESAMPLES = 10_000
BASELINE, RIVAL = "single_draft", "best_of_n"

Scores = Mapping[str, Sequence[float]]
"""For each prompt the score of every seed."""


def at(run: Run, tokens: int) -> Step:
    """What the run had reached with at most ``tokens`` spent, or its first draft where even that had cost more."""
    affordable = [step for step in run.steps if step.tokens <= tokens]
    return affordable[-1] if affordable else run.steps[0]


def right(step: Step) -> bool:
    """Whether every instruction is followed, the hidden one too."""
    return all((*step.visible, *step.hidden))


@dataclass(frozen=True)
class Interval:
    """A mean, or a difference of means, with the 95 % interval of its bootstrap."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.mean:+.1f} ({100 * self.low:+.1f} to {100 * self.high:+.1f})"


def difference(scores: Scores, than: Scores) -> Interval:
    """How much higher ``scores`` are than those of another arm on the same prompts.

    Prompts are resampled, each with all its seeds (a cluster bootstrap), and both arms by the same draw.
    """
    prompts = sorted(scores)
    gains = np.array([np.mean(scores[prompt]) - np.mean(than[prompt]) for prompt in prompts])
    draws = np.random.default_rng(0).integers(len(gains), size=(RESAMPLES, len(gains)))
    low, high = np.percentile(gains[draws].mean(axis=1), [2.5, 97.5])
    return Interval(float(gains.mean()), float(low), float(high))


@dataclass(frozen=True)
class Summary:
    """An arm at a budget of tokens. Shares are of runs; ``tokens`` is the mean spent."""

    arm: str
    right: float
    visible: float
    hidden: float | None
    tokens: float
    mended: int
    spoilt: int
    over_baseline: Interval | None
    over_rival: Interval | None


def by_arm(runs: Iterable[Run]) -> Mapping[str, Sequence[Run]]:
    """The runs of each arm, of those prompts and seeds that every arm has."""
    found: dict[str, dict[tuple[str, int], Run]] = {arm: {} for arm in ARMS}
    for run in runs:
        found[run.arm][run.prompt, run.seed] = run
    of_arm = {arm: cells for arm, cells in found.items() if cells}
    shared = sorted(set[tuple[str, int]].intersection(*map(set, of_arm.values()))) if of_arm else []
    return {arm: [cells[cell] for cell in shared] for arm, cells in of_arm.items()}


def scores_at(runs: Sequence[Run], tokens: int) -> Scores:
    scores = defaultdict(list)
    for run in runs:
        scores[run.prompt].append(float(right(at(run, tokens))))
    return scores


def summaries(runs: Mapping[str, Sequence[Run]], tokens: int) -> Sequence[Summary]:
    scores = {arm: scores_at(of_arm, tokens) for arm, of_arm in runs.items()}

    def over(arm: str, other: str) -> Interval | None:
        return difference(scores[arm], scores[other]) if other in scores and other != arm else None

    return [_summary(arm, of_arm, tokens, over(arm, BASELINE), over(arm, RIVAL)) for arm, of_arm in runs.items()]


def _summary(
    arm: str, runs: Sequence[Run], tokens: int, over_baseline: Interval | None, over_rival: Interval | None
) -> Summary:
    reached = [at(run, tokens) for run in runs]
    drafted = [run.steps[0] for run in runs]
    concealing = [step for step in reached if step.hidden]
    pairs = list(zip(drafted, reached, strict=True))
    return Summary(
        arm=arm,
        right=float(np.mean([right(step) for step in reached])),
        visible=float(np.mean([all(step.visible) for step in reached])),
        hidden=float(np.mean([all(step.hidden) for step in concealing])) if concealing else None,
        tokens=float(np.mean([min(run.tokens, tokens) for run in runs])),
        mended=sum(right(after) and not right(before) for before, after in pairs),
        spoilt=sum(right(before) and not right(after) for before, after in pairs),
        over_baseline=over_baseline,
        over_rival=over_rival,
    )


def table(found: Sequence[Summary]) -> str:
    """The summaries as a Markdown table."""
    rows = [
        "| arm | all instructions followed | all but the hidden one | the hidden one | tokens spent | wrong → right | "
        "right → wrong | over the single draft, points | over best of n, points |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for summary in found:
        shares = " | ".join(
            "" if share is None else f"{100 * share:.1f} %"
            for share in (summary.right, summary.visible, summary.hidden)
        )
        gains = " | ".join(str(gain) if gain else "" for gain in (summary.over_baseline, summary.over_rival))
        counts = f"{summary.tokens:.0f} | {summary.mended} | {summary.spoilt}"
        rows.append(f"| {ARMS[summary.arm].label} | {shares} | {counts} | {gains} |")
    return "\n".join(rows)


PAGE = """# Does refining pay?

{cells} runs: {prompts} prompts, {seeds} seeds, {arms} arms, each run with {budget} tokens to spend: the prompt and
completion tokens of all its calls, judging included, cached ones in full. {origin} Made by `make bench-quality`.
What the prompts are and how to read the columns: [bench/quality](../bench/quality/README.md).

![Share of runs that follow all instructions, against tokens spent](quality.svg)

## Instructions

{count} prompts whose verifiers do not give the answer away.

{instructions}

By task, the share of runs that follow all instructions:

{by_task}

## Answer keys

{keyed} prompts where a verifier that the search sees is the answer key, so that its feedback says the answer. They show
what such feedback is worth, and nothing about finding an answer; the plot and the table above leave them out.

{answers}
"""


def page(runs: Mapping[str, Sequence[Run]], prompts: Sequence[BenchPrompt], budget: int, origin: str) -> str:
    """The whole report as Markdown."""
    task_of = {prompt.id: prompt.task for prompt in prompts}
    open_, keyed = (of_prompts(runs, {p.id for p in prompts if p.reveals_answer is key}) for key in (False, True))
    made = [run for of_arm in runs.values() for run in of_arm]
    return PAGE.format(
        cells=len(made),
        prompts=len({run.prompt for run in made}),
        seeds=len({run.seed for run in made}),
        arms=len(runs),
        budget=budget,
        origin=origin,
        count=len(_prompts(open_)),
        keyed=len(_prompts(keyed)),
        instructions=table(summaries(open_, budget)),
        by_task=_by_task(open_, task_of, budget),
        answers=table(summaries(keyed, budget)) if _prompts(keyed) else "",
    )


def of_prompts(runs: Mapping[str, Sequence[Run]], prompts: Collection[str]) -> Mapping[str, Sequence[Run]]:
    return {arm: [run for run in of_arm if run.prompt in prompts] for arm, of_arm in runs.items()}


def _prompts(runs: Mapping[str, Sequence[Run]]) -> Collection[str]:
    return {run.prompt for of_arm in runs.values() for run in of_arm}


def _by_task(runs: Mapping[str, Sequence[Run]], task_of: Mapping[str, str], budget: int) -> str:
    rows = [f"| task | prompts | {' | '.join(ARMS[arm].label for arm in runs)} |", "| --- " * (len(runs) + 2) + "|"]
    for task in sorted({task_of[prompt] for prompt in _prompts(runs)}):
        of_task = of_prompts(runs, {prompt for prompt, its in task_of.items() if its == task})
        shares = [100 * np.mean([right(at(run, budget)) for run in of_arm]) for of_arm in of_task.values()]
        cells = " | ".join(f"{share:.0f} %" for share in shares)
        rows.append(f"| `{task}` | {len(_prompts(of_task))} | {cells} |")
    return "\n".join(rows)


def plot(runs: Mapping[str, Sequence[Run]], budget: int, file: Path) -> None:
    """Draw the share of runs that follow all instructions against the tokens spent, one line an arm."""
    pyplot.rcParams["svg.hashsalt"] = "redraft"  # the same picture from the same runs
    figure, axes = pyplot.subplots(figsize=(7.5, 4.5), layout="constrained")
    grid = np.linspace(150, budget, 80)
    for arm, of_arm in runs.items():
        share = [100 * np.mean([right(at(run, int(tokens))) for run in of_arm]) for tokens in grid]
        axes.plot(grid, share, label=ARMS[arm].label, linewidth=2)
    axes.set(xlabel="tokens spent (prompt and completion, judging included)", ylabel="all instructions followed, %")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
