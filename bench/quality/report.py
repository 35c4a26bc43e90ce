"""What the runs amount to: a table, a plot of score against tokens spent, and intervals by paired bootstrap.

Every mean is one over prompts, each by the mean of its seeds, so that a prompt counts once however many seeds it has.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import fmean

import numpy as np
from matplotlib.figure import Figure

from bench.harness.origin import origin
from bench.harness.page import markdown_table
from bench.harness.plot import save_svg
from bench.quality import kinds, passing, prose
from bench.quality.arms import ARMS
from bench.quality.prompts import BenchPrompt
from bench.quality.runs import AT_ONCE, Origin, Run, Step
from service.learning.statistics import Interval

RESAMPLES = 10_000
BASELINE, RIVAL = "single_draft", "free"

RunsByArm = Mapping[str, Sequence[Run]]


class NothingToCompare(Exception):
    """No prompt and seed has been run by all arms."""


@dataclass(frozen=True)
class Comparison:
    """``runs``: those of the prompts and seeds that every arm has. ``left_out``: how many more there are."""

    runs: RunsByArm
    left_out: int


def by_arm(runs: Iterable[Run]) -> Comparison:
    """The runs of each arm that can be compared; arms that no longer exist are left out."""
    runs = list(runs)
    found: dict[str, dict[tuple[str, int], Run]] = {arm: {} for arm in ARMS}
    for run in runs:
        if run.arm in found:
            found[run.arm][run.prompt, run.seed] = run
    of_arms = {arm: its for arm, its in found.items() if its}
    shared = sorted(set.intersection(*map(set, of_arms.values()))) if of_arms else []
    if not shared:
        counts = ", ".join(f"{arm} {count}" for arm, count in Counter(run.arm for run in runs).items())
        raise NothingToCompare(f"No prompt and seed has been run by every arm. Runs by arm: {counts or 'none'}.")
    kept = {arm: [its[key] for key in shared] for arm, its in of_arms.items()}
    return Comparison(kept, len(runs) - sum(map(len, kept.values())))


def reached_by(run: Run, tokens: int) -> Step:
    """What the run had reached with at most ``tokens`` spent, or its first draft where even that had cost more."""
    affordable = [step for step in run.steps if step.tokens <= tokens]
    return affordable[-1] if affordable else run.steps[0]


def follows_all(step: Step) -> bool:
    """Whether every instruction is followed, the hidden one too."""
    return all((*step.visible, *step.hidden))


def by_prompt(runs: Iterable[Run], value: Callable[[Run], float]) -> Mapping[str, float]:
    """Of each prompt the mean over its seeds."""
    values = defaultdict(list)
    for run in runs:
        values[run.prompt].append(value(run))
    return {prompt: fmean(of_prompt) for prompt, of_prompt in values.items()}


def mean_over_prompts(runs: Iterable[Run], value: Callable[[Run], float]) -> float:
    return fmean(by_prompt(runs, value).values())


def followed_by(tokens: int) -> Callable[[Run], float]:
    """1 for a run that follows all instructions once it has spent so much, else 0."""
    return lambda run: float(follows_all(reached_by(run, tokens)))


def difference(means: Mapping[str, float], than: Mapping[str, float]) -> Interval:
    """How much higher the prompts' means are than those of another arm.

    Prompts are resampled, each with all its seeds (a cluster bootstrap), and both arms by the same draw.
    """
    gains = np.array([means[prompt] - than[prompt] for prompt in sorted(means)])
    draws = np.random.default_rng(0).integers(len(gains), size=(RESAMPLES, len(gains)))
    low, high = np.percentile(gains[draws].mean(axis=1), [2.5, 97.5])
    return Interval(float(gains.mean()), float(low), float(high))


@dataclass(frozen=True)
class Summary:
    """An arm at a budget of tokens. ``tokens``: the mean spent. The last four compare it: with each run's own first
    draft, in numbers of runs, and with other arms."""

    arm: str
    all_followed: float
    visible_followed: float
    hidden_followed: float | None
    tokens: float
    wrong_to_right: int
    right_to_wrong: int
    over_baseline: Interval | None
    over_rival: Interval | None


def summaries(runs: RunsByArm, tokens: int) -> Sequence[Summary]:
    followed = {arm: by_prompt(of_arm, followed_by(tokens)) for arm, of_arm in runs.items()}

    def over(arm: str, other: str) -> Interval | None:
        return difference(followed[arm], followed[other]) if other in followed and other != arm else None

    return [_summary(arm, of_arm, tokens, over(arm, BASELINE), over(arm, RIVAL)) for arm, of_arm in runs.items()]


def _summary(
    arm: str, runs: Sequence[Run], tokens: int, over_baseline: Interval | None, over_rival: Interval | None
) -> Summary:
    def share(of_runs: Sequence[Run], passes: Callable[[Step], bool]) -> float:
        return mean_over_prompts(of_runs, lambda run: passes(reached_by(run, tokens)))

    with_hidden = [run for run in runs if run.steps[0].hidden]
    changes = Counter((follows_all(run.steps[0]), follows_all(reached_by(run, tokens))) for run in runs)
    return Summary(
        arm=arm,
        all_followed=share(runs, follows_all),
        visible_followed=share(runs, lambda step: all(step.visible)),
        hidden_followed=share(with_hidden, lambda step: all(step.hidden)) if with_hidden else None,
        tokens=mean_over_prompts(runs, lambda run: min(run.tokens, tokens)),
        wrong_to_right=changes[False, True],
        right_to_wrong=changes[True, False],
        over_baseline=over_baseline,
        over_rival=over_rival,
    )


COLUMNS = (
    "arm",
    "all instructions followed",
    "all but the hidden one",
    "the hidden one",
    "tokens spent",
    "wrong → right",
    "right → wrong",
    "over the single draft, points",
    "over adaptive, free, points",
)


def table(found: Sequence[Summary]) -> str:
    """The summaries as a Markdown table."""
    rows = []
    for summary in found:
        shares = (summary.all_followed, summary.visible_followed, summary.hidden_followed)
        gains = (summary.over_baseline, summary.over_rival)
        rows.append(
            [
                ARMS[summary.arm].label,
                *("" if share is None else f"{share:.1%}" for share in shares),
                *(f"{summary.tokens:.0f}", str(summary.wrong_to_right), str(summary.right_to_wrong)),
                *(gain.in_points() if gain else "" for gain in gains),
            ]
        )
    return markdown_table(COLUMNS, rows)


def endings(runs: RunsByArm) -> str:
    """How many texts the runs of each arm made, and why they stopped, as a Markdown table."""
    rows = []
    for arm, of_arm in runs.items():
        reasons = Counter(run.stop_reason for run in of_arm).most_common()
        shares = ", ".join(f"`{reason}` {count / len(of_arm):.0%}" for reason, count in reasons)
        ends = sum((Counter(run.ends) for run in of_arm), Counter[str]())
        texts = ", ".join(f"`{end}` {count / ends.total():.0%}" for end, count in ends.most_common())
        alarms = str(sum(len(run.alarms) for run in of_arm))
        rows.append(
            [ARMS[arm].label, f"{mean_over_prompts(of_arm, lambda run: run.candidates):.1f}", shares, texts, alarms]
        )
    return markdown_table(("arm", "texts evaluated, mean", "stop reasons", "how texts ended", "alarms"), rows)


PAGE = """# What refining is worth, and rules in the decoder

{runs} runs: {prompts} prompts, {seeds} seeds, {arms} arms, each run with {budget} tokens to spend. The
budget counts the prompt and completion tokens of all calls, including the judge's, and counts cached tokens in full.
{left_out}{origin} Made by `make bench-quality`.
[bench/quality](../../bench/quality/README.md) describes the prompts, the arms and the columns.

![Share of runs with a passing text, against tokens and against time](quality.svg)

## Instructions

{instructed_prompts} prompts whose verifiers do not reveal the answer.

{instructed}

The hidden instruction, difference of each arm to the free search in points: {hidden}.

By kind of rule, the share of runs whose text follows it:

{by_kind}

By task, the share of runs that follow all instructions:

{by_task}

### To a passing text

Over the prompts that the free search passes within the budget, by the verifiers that it sees. Time is that on an engine
which all arms share, {at_once} runs at a time.

{to_pass}

### How passing texts read

Prose that passes the visible verifiers. *Fluency* is the score of the evaluator `perplexity`, by the model without
rules.

{prose}

### How runs ended

Complete runs, which may spend {run_budget} tokens. An *alarm* is a text that did not keep to what it was sampled under.

{endings}
{revealed}"""

REVEALED = """
## Answer keys

{count} prompts where a verifier that the search sees is the answer key, so that its feedback reveals the
answer. They show what such feedback is worth, but nothing about finding an answer. The plot and the tables above leave
them out.

{table}
"""


def page(comparison: Comparison, prompts: Sequence[BenchPrompt], budget: int, made_by: Origin, made_on: date) -> str:
    """The whole report as Markdown."""
    runs = comparison.runs
    followed, revealed = instructed(runs, prompts), _of_prompts(runs, [p for p in prompts if p.reveals_answer])
    made = [run for of_arm in runs.values() for run in of_arm]
    left_out = f"{comparison.left_out} more runs are left out: not every arm has run their prompt and seed. "
    keys = REVEALED.format(count=_count_prompts(revealed), table=table(summaries(revealed, budget)))
    return PAGE.format(
        runs=len(made),
        prompts=len({run.prompt for run in made}),
        seeds=len({run.seed for run in made}),
        arms=len(runs),
        budget=budget,
        left_out=left_out if comparison.left_out else "",
        origin=origin(made_by.model, made_by.commit, made_on),
        instructed_prompts=_count_prompts(followed),
        instructed=table(summaries(followed, budget)),
        hidden=_hidden(followed, budget),
        by_kind=kinds.table(followed, prompts, lambda run: reached_by(run, budget)),
        by_task=_by_task(followed, prompts, budget),
        at_once=AT_ONCE,
        to_pass=passing.table(followed, budget),
        prose=prose.table(followed, budget),
        run_budget=made_by.budget,
        endings=endings(followed),
        revealed=keys if revealed else "",
    )


def _hidden(runs: RunsByArm, budget: int) -> str:
    """How much more often than the free search each arm follows the hidden instruction."""
    shares = {
        arm: by_prompt(with_hidden, lambda run: float(all(reached_by(run, budget).hidden)))
        for arm, of_arm in runs.items()
        if (with_hidden := [run for run in of_arm if run.steps[0].hidden])
    }
    if RIVAL not in shares:
        return "not measured"
    gains = [
        f"{ARMS[arm].label} {difference(shares[arm], shares[RIVAL]).in_points()}" for arm in shares if arm != RIVAL
    ]
    return ", ".join(gains)


def instructed(runs: RunsByArm, prompts: Iterable[BenchPrompt]) -> RunsByArm:
    """The runs of those prompts whose verifiers do not reveal the answer."""
    return _of_prompts(runs, [prompt for prompt in prompts if not prompt.reveals_answer])


def _of_prompts(runs: RunsByArm, prompts: Collection[BenchPrompt]) -> RunsByArm:
    ids = {prompt.id for prompt in prompts}
    kept = {arm: [run for run in of_arm if run.prompt in ids] for arm, of_arm in runs.items()}
    return {arm: of_arm for arm, of_arm in kept.items() if of_arm}


def _count_prompts(runs: RunsByArm) -> int:
    return len({run.prompt for of_arm in runs.values() for run in of_arm})


def _by_task(runs: RunsByArm, prompts: Sequence[BenchPrompt], budget: int) -> str:
    rows = []
    for task in sorted({prompt.task for prompt in prompts}):
        of_task = _of_prompts(runs, [prompt for prompt in prompts if prompt.task == task])
        if of_task:
            shares = [f"{mean_over_prompts(of_arm, followed_by(budget)):.0%}" for of_arm in of_task.values()]
            rows.append([f"`{task}`", str(_count_prompts(of_task)), *shares])
    return markdown_table(["task", "prompts", *(ARMS[arm].label for arm in runs)], rows)


SHOWN = ("best_of_n", "ask_again", "free", "adaptive", "always")
"""The arms of the plot."""


def plot(runs: RunsByArm, budget: int, file: Path) -> None:
    """Draw the share of runs that have a passing text, against tokens on the left and against time on the right."""
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    by_tokens, by_time = figure.subplots(1, 2, sharey=True)
    shown = [arm for arm in SHOWN if arm in runs] or list(runs)
    costs = [passing.cost_of_passing(run, budget).seconds for arm in shown for run in runs[arm]]
    longest = max((seconds for seconds in costs if math.isfinite(seconds)), default=1.0)
    for arm in shown:
        dashes = "--" if arm in passing.REFERENCES else "-"
        spent = np.linspace(50, budget, 96)
        share = [100 * passing.share_by(runs[arm], budget, tokens=float(tokens)) for tokens in spent]
        by_tokens.plot(spent, share, dashes, label=ARMS[arm].label, linewidth=2)
        waited = np.linspace(0, longest, 96)
        share = [100 * passing.share_by(runs[arm], budget, seconds=float(seconds)) for seconds in waited]
        by_time.plot(waited, share, dashes, label=ARMS[arm].label, linewidth=2)
    by_tokens.set(xlabel="tokens spent (prompt and completion)", ylabel="runs with a text that passes, %")
    by_time.set(xlabel="seconds on an engine that all runs share")
    for axes in (by_tokens, by_time):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    if shown:
        by_tokens.legend(frameon=False, loc="best")
    save_svg(figure, file)
