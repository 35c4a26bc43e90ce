"""What the waves amount to: a table for each cell, the bars, and a plot."""

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import fmean, median

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bench.harness.origin import origin
from bench.harness.page import markdown_table, tabulate_bars
from bench.harness.plot import save_svg
from bench.harness.spread import Spread, format_number
from bench.performance.account import Account
from bench.performance.arms import ARMS
from bench.performance.lengths import FIXED
from bench.performance.programs import ROUNDS
from bench.performance.results import Cell, Rates, Results, Wave
from bench.performance.waves import floor

B1, B2 = "textbook", "one_chat"
EXACT = ("redraft", "redraft_judge")
"""The arms whose token accounts have a bar."""
JUDGED_CRITERIA = 3
"""Those of the task ``general``."""

Group = tuple[Cell, str]
"""A cell and lengths, in which arms are compared."""
ByArm = Mapping[str, Sequence[Wave]]


def group_waves(waves: Iterable[Wave]) -> Mapping[Group, ByArm]:
    """The waves by cell and lengths, then by arm as ARMS has them, in order of repetition."""
    groups: dict[Group, dict[str, list[Wave]]] = defaultdict(lambda: {arm: [] for arm in ARMS})
    for wave in sorted(waves, key=lambda wave: (wave.key.lengths, wave.key.cell, wave.key.repetition)):
        groups[wave.key.cell, wave.key.lengths][wave.key.arm].append(wave)
    return {group: {arm: of_arm for arm, of_arm in arms.items() if of_arm} for group, arms in groups.items()}


def speedup(waves: Sequence[Wave], baseline: Sequence[Wave]) -> Spread | None:
    """How many times as many programs per minute as another arm; each repetition against the same one's.

    None where no repetition has both.
    """
    walls = {wave.key.repetition: wave.wall for wave in baseline}
    ratios = [walls[wave.key.repetition] / wave.wall for wave in waves if wave.key.repetition in walls]
    return Spread.of(ratios) if ratios else None


def over_floor(waves: Sequence[Wave], rates: Iterable[Rates]) -> Spread:
    """How many times as long as the floor."""
    rates = list(rates)
    return Spread.of([wave.wall / floor(wave, rates) for wave in waves])


def recomputed_ratio(accounts: Sequence[Account], *, rounding: bool) -> float:
    """Computed prompt tokens over those never seen, the ones lost to rounding counted or not."""
    computed = sum(account.computed - (0 if rounding else account.rounding) for account in accounts)
    return computed / sum(account.never_seen for account in accounts)


COLUMNS = (
    "arm",
    "programs/min",
    "decoded/s",
    "s p50",
    "s p95",
    "times B1",
    "times B2",
    "wall / floor",
    "calls",
    "prompt tokens",
    "of them computed",
    "decoded",
    "computed / never seen",
    "without rounding",
)


def table(arms: ByArm, rates: Sequence[Rates]) -> str:
    """One row an arm; counts are means of a program."""
    rows = []
    for arm, waves in arms.items():
        seconds = [each for wave in waves for each in wave.seconds]
        accounts = [wave.account for wave in waves]
        ratios = [None if ARMS[arm].shipped else speedup(waves, arms.get(base, ())) for base in (B1, B2)]
        rows.append(
            [
                ARMS[arm].label,
                str(Spread.of([wave.programs_per_minute for wave in waves])),
                format_number(median(wave.counted.generated / wave.wall for wave in waves)),
                *(format_number(float(np.percentile(seconds, rank))) for rank in (50, 95)),
                *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
                f"{over_floor(waves, rates).value:.2f}",
                f"{_of_a_program(waves, lambda wave: wave.counted.calls):.1f}",
                *(
                    f"{_of_a_program(waves, count):,.0f}"
                    for count in (
                        lambda wave: wave.counted.prompt_tokens,
                        lambda wave: wave.counted.computed,
                        lambda wave: wave.counted.generated,
                    )
                ),
                *(f"{recomputed_ratio(accounts, rounding=rounding):.3f}" for rounding in (True, False)),
            ]
        )
    return markdown_table(COLUMNS, rows)


@dataclass(frozen=True)
class Bar:
    """What a measurement is held against. ``measured``: None where the waves for it were not run."""

    text: str
    measured: float | None
    met: bool


def bars(groups: Mapping[Group, ByArm], rates: Sequence[Rates]) -> Sequence[Bar]:
    """Every bar, by the median over repetitions and, where several cells or arms are held to one, by the worst."""

    def at(lengths: str, tokens: int | None = None, programs: int | None = None) -> list[ByArm]:
        return [
            arms
            for (cell, of), arms in groups.items()
            if of == lengths and tokens in (None, cell.prompt_tokens) and programs in (None, cell.programs)
        ]

    def accounts(tokens: int) -> list[float]:
        cells = [*at("fixed", tokens), *at("natural", tokens)]
        found = [arms[arm] for arms in cells for arm in EXACT if arm in arms]
        return [recomputed_ratio([wave.account for wave in waves], rounding=False) for waves in found]

    def faster(arm: str, than: str, cells: Sequence[ByArm]) -> list[float]:
        found = [speedup(arms.get(arm, ()), arms.get(than, ())) for arms in cells]
        return [ratio.value for ratio in found if ratio]

    def floors(programs: int) -> list[float]:
        found = [arms["redraft"] for arms in at("fixed", programs=programs) if "redraft" in arms]
        return [over_floor(waves, rates).value for waves in found]

    return [
        _at_most("computed / never seen, without rounding, 2,048 tokens", accounts(2048), 1.06),
        _at_most("computed / never seen, without rounding, 512 tokens", accounts(512), 1.20),
        _at_least("fixed lengths, 512x8, times B1", faster("redraft", B1, at("fixed", 512, 8)), 1.3),
        _at_least("fixed lengths, 2048x8, times B1", faster("redraft", B1, at("fixed", 2048, 8)), 1.6),
        _at_least("fixed lengths, every cell, times B2", faster("redraft", B2, at("fixed")), 1.0),
        _at_least(
            "natural lengths, speculation and judge, 512x1, times B1",
            faster("speculation_judge", B1, at("natural", 512, 1)),
            1.8,
        ),
        _at_most("fixed lengths, 1 at once, wall / floor", floors(1), 1.15),
        _at_most("fixed lengths, 8 at once, wall / floor", floors(8), 1.25),
    ]


def _at_most(text: str, found: Sequence[float], bar: float) -> Bar:
    worst = max(found, default=None)
    return Bar(f"{text}: at most {bar:.2f}", worst, worst is not None and worst <= bar)


def _at_least(text: str, found: Sequence[float], bar: float) -> Bar:
    worst = min(found, default=None)
    return Bar(f"{text}: at least {bar:.2f}", worst, worst is not None and worst >= bar)


def checks(waves: Sequence[Wave]) -> Sequence[str]:
    """What would make the numbers doubtful, found or not."""
    recorded = [wave for wave in waves if ARMS[wave.key.arm].recorded]
    apart = max((abs(wave.account.computed - wave.counted.computed) for wave in recorded), default=0)
    unequal = [wave for wave in waves if wave.key.lengths == "fixed" and not _of_fixed_length(wave)]
    spared = [
        _judge_calls(wave) + (2 * ROUNDS + 1) * len(wave.seconds) - wave.counted.calls
        for wave in waves
        if wave.key.lengths == "fixed" and _judge_calls(wave)
    ]
    strangers = [wave.strangers for wave in waves]
    evicted = sum(max(0, wave.account.excess) for wave in waves)
    return [
        f"Computed prompt tokens by the records of the engine's calls and by its counters differ by at most {apart}.",
        f"Waves of fixed lengths whose texts and critiques were not as many or as long as planned: {len(unequal)}.",
        f"Judge calls at fixed lengths that were saved because a revision repeated an earlier text: {sum(spared)}.",
        f"Cores busy with other processes: {fmean(strangers):.2f} on average, {max(strangers):.2f} in the worst wave.",
        f"Preemptions: {sum(wave.counted.preemptions for wave in waves)}.",
        f"Tokens computed again that a cache without limits would have had: {evicted:,}.",
    ]


def _of_fixed_length(wave: Wave) -> bool:
    """Whether the programs had the planned texts and critiques, each of its length. All other calls are the judge's."""
    texts, programs = ROUNDS + 1, len(wave.seconds)
    written = programs * (texts * FIXED.text + ROUNDS * FIXED.critique)
    judged = wave.counted.calls - programs * (texts + ROUNDS)
    planned = 0 <= judged <= _judge_calls(wave)
    return planned and wave.counted.generated == written + judged


def _judge_calls(wave: Wave) -> int:
    """How many calls the judge has at most. It has fewer where a revision repeats a text that was judged already."""
    return len(wave.seconds) * (ROUNDS + 1) * JUDGED_CRITERIA if wave.key.arm == "redraft_judge" else 0


def section(results: Results, made_on: date) -> str:
    """All of it as Markdown."""
    source, waves, rates = results.origin(), results.waves(), results.rates()
    groups = group_waves(waves)
    parts = [
        f"{origin(source.model, source.commit, made_on)} {source.machine}; {source.versions}; a KV cache of "
        f"{source.cache_gib} GiB for each server; speculation `{json.dumps(source.speculation)}`.",
        "Medians over repetitions, with minimum and maximum. A ratio compares waves of the same repetition. "
        "Seconds are over all programs; tokens and calls are means per program.",
        tabulate_bars(
            (bar.text, None if bar.measured is None else f"{bar.measured:.2f}", bar.met) for bar in bars(groups, rates)
        ),
        "\n".join(f"- {check}" for check in checks(waves)),
    ]
    for (cell, lengths), arms in groups.items():
        of_cell = [each for each in rates if each.cell == cell]
        prefill, decode = (
            Spread.of(values) for values in ([each.prefill for each in of_cell], [each.decode for each in of_cell])
        )
        repetitions = len({wave.key.repetition for waves in arms.values() for wave in waves})
        parts += [
            f"### {cell.prompt_tokens:,} prompt tokens, {cell.programs} at once, {lengths} lengths",
            f"Repetitions: {repetitions}. Prefill {prefill} tokens/s, decode {decode} tokens/s.",
            table(arms, rates),
        ]
    return "\n\n".join(parts)


def plot(waves: Sequence[Wave], file: Path) -> None:
    """Draw the programs per minute of each arm at fixed lengths, one picture a cell; bars end at the median.

    ValueError if there are no waves of fixed lengths.
    """
    groups = {cell: arms for (cell, lengths), arms in group_waves(waves).items() if lengths == "fixed"}
    if not groups:
        raise ValueError("there are no waves of fixed lengths to draw")
    rows, columns = (sorted(found) for found in ({c.prompt_tokens for c in groups}, {c.programs for c in groups}))
    figure = Figure(figsize=(9, 0.6 + 1.6 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    shown = [arm for arm in ARMS if any(arm in arms for arms in groups.values())]
    for axes, (tokens, programs) in zip(grid.flat, itertools.product(rows, columns), strict=True):
        axes.set_visible(Cell(tokens, programs) in groups)
        axes.set_title(f"{tokens:,} prompt tokens, {programs} at once", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_yticks([])
        for place, arm in enumerate(reversed(shown)):
            if found := groups.get(Cell(tokens, programs), {}).get(arm):
                rate = Spread.of([wave.programs_per_minute for wave in found])
                axes.barh(place, rate.value, color=f"C{shown.index(arm)}")
                axes.plot([rate.least, rate.most], [place, place], color="black", linewidth=1)
                axes.annotate(
                    format_number(rate.value), (0, place), (4, 0), textcoords="offset points", va="center", fontsize=8
                )
    patches = [Patch(color=f"C{place}", label=ARMS[arm].label) for place, arm in enumerate(shown)]
    figure.legend(handles=patches, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.suptitle("Programs per minute: more is better", fontsize=10)
    save_svg(figure, file)


def _of_a_program(waves: Sequence[Wave], count: Callable[[Wave], int]) -> float:
    return sum(map(count, waves)) / sum(len(wave.seconds) for wave in waves)
