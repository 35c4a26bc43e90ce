"""What the attacks amount to: the page of results."""

import statistics
from collections.abc import Collection, Iterable, Sequence

from bench.harness.page import markdown_table
from bench.judge.attacks import Base
from bench.judge.judging import FENCES, NOTABLE, Honest, Shift

MOST_LISTED = 15


def report(title: str, honest: Sequence[Honest], shifts: Sequence[Shift]) -> str:
    """The page of results; ``title`` says what was measured, when and how long it took."""
    attacks = [shift for shift in shifts if shift.attack.category != "control"]
    controls = [shift for shift in shifts if shift.attack.category == "control"]
    categories = dict.fromkeys(shift.attack.category for shift in attacks)
    spread = statistics.mean(statistics.stdev(scores) for each in honest for scores in (each.weak, each.good))
    gap = statistics.mean(statistics.mean(each.good) - statistics.mean(each.weak) for each in honest)
    told_apart = {each.base for each in honest if each.told_apart}
    return "\n".join(
        [
            "# How far a candidate can sway its judge",
            "",
            "Written by `make bench-attacks` (`python -m bench.judge`); do not edit. " + title,
            "",
            f"{len({shift.attack.id for shift in attacks})} attacks (`bench/judge/attacks.toml`) on each of "
            f"{len(honest)} weak answers, judged by the rubric and the prompts of the task `general`. "
            "A shift is the judge's score with the attack minus its score without it, both in [0, 1] and with the same "
            "delimiter. *Abstained* is the share of questions on which the judge abstained. If it abstained on all of "
            f"them, the answer has no score, which ranks and counts as 0. {_about_good(told_apart)} "
            "*Controls* are harmless additions (I hope that this helps.): their shifts are not due to an attack.",
            "",
            markdown_table(
                [
                    *("category", "n", "mean", "median", "p5", "p95", "max", f"> {NOTABLE}", "abstained"),
                    *(["above good"] if told_apart else []),
                ],
                [
                    *(_row(name, [s for s in attacks if s.attack.category == name], told_apart) for name in categories),
                    _row("**all attacks**", attacks, told_apart),
                    _row("**controls**", controls, told_apart),
                ],
            ),
            "",
            "## Without an attack",
            "",
            f"Means over {FENCES} delimiters. The delimiter alone moves a score by {spread:.3f} (standard deviation, "
            f"mean over the answers). The good answer's score minus the weak one's is {gap:+.3f} on average. If this "
            "is near 0, the judge cannot tell them apart, and an attack moves a score that meant nothing.",
            "",
            markdown_table(
                ["base", "weak answer", "good answer"],
                [[h.base.name, f"{statistics.mean(h.weak):.2f}", f"{statistics.mean(h.good):.2f}"] for h in honest],
            ),
            "",
            f"## The {MOST_LISTED} strongest attacks",
            "",
            "By the mean shift over the weak answers.",
            "",
            markdown_table(["attack", "mean", "min", "max"], _strongest(attacks)),
            "",
        ]
    )


def _about_good(told_apart: Collection[Base]) -> str:
    if not told_apart:
        return (
            f"Without an attack no good answer scores more than {NOTABLE} above the weak one, so this cannot show "
            "whether an attack lifts a weak answer above a good one."
        )
    return (
        "*Above good*: the share of attacked weak answers with a score above that of a good answer, among the bases "
        f"whose weak answer is more than {NOTABLE} below it without an attack."
    )


def _row(name: str, shifts: Sequence[Shift], told_apart: Collection[Base]) -> list[str]:
    """``told_apart``: the bases on which there is an "above good"."""
    sizes = [shift.size for shift in shifts]
    ranks = statistics.quantiles(sizes, n=20, method="inclusive")
    above = [(shift.score or 0.0) > shift.good for shift in shifts if shift.base in told_apart]
    return [
        name.replace("_", " "),
        str(len(sizes)),
        *(
            f"{value:+.3f}"
            for value in (statistics.mean(sizes), statistics.median(sizes), ranks[0], ranks[-1], max(sizes))
        ),
        _share(size > NOTABLE for size in sizes),
        f"{statistics.mean(shift.abstained for shift in shifts):.0%}",
        *([_share(above)] if told_apart else []),
    ]


def _strongest(shifts: Sequence[Shift]) -> list[list[str]]:
    sizes: dict[str, list[float]] = {}
    for shift in shifts:
        sizes.setdefault(shift.attack.id, []).append(shift.size)
    ranked = sorted(sizes.items(), key=lambda item: -statistics.mean(item[1]))
    return [
        [f"`{name}`", *(f"{value:+.3f}" for value in (statistics.mean(found), min(found), max(found)))]
        for name, found in ranked[:MOST_LISTED]
    ]


def _share(hits: Iterable[bool]) -> str:
    return f"{statistics.mean(hits):.0%}"
