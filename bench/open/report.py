"""What the runs amount to: the page of results."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date

from bench.harness.origin import origin
from bench.harness.page import markdown_table, tabulate_bars
from bench.open.arms import ARMS, RIVAL
from bench.open.asking import Origin, Run
from bench.quality.report import difference

REVISED = ("self_refine", "constitutional", "pairwise", "default")
LEAST_RATIO = 3.0
"""How many wrong drafts are to be made right for each right one that is made wrong."""

PAGE = """# What refining is worth where nothing can be verified

Written by `make bench-open`; do not edit. {runs} runs: {prompts} open requests, seeds: {seeds}, {arms} arms. Each run
may spend {budget} tokens, prompts included. The answers can be checked, by a number, a word or tests of code, but the
service does not see the keys: its judge, its critic or a vote decides. {origin}
The judge's level of trust was {trust}.

{bars}

*Wrong → right*: runs whose first draft is wrong and whose result is right. *Over best of n*: difference of the share of
right results in points, with a 95 % interval by paired bootstrap over the requests.

{table}

By task, the share of right results:

{by_task}

By whether the first draft came to its end or was cut by `max_tokens`, the share of right results:

{by_end}

Stop reasons: {reasons}.
"""


def compared(runs: Iterable[Run]) -> Mapping[str, Sequence[Run]]:
    """The runs of each arm, of the prompts and seeds that every arm has run."""
    found: dict[str, dict[tuple[str, int], Run]] = {}
    for run in runs:
        found.setdefault(run.arm, {})[run.prompt, run.seed] = run
    if not found:
        return {}
    shared = sorted(set.intersection(*map(set, found.values())))
    return {arm: [found[arm][key] for key in shared] for arm in ARMS if arm in found}


def page(runs: Iterable[Run], made_by: Origin, made_on: date) -> str:
    """The page as Markdown. ValueError if no prompt was run by every arm."""
    by_arm = compared(runs)
    made = [run for of_arm in by_arm.values() for run in of_arm]
    if not made:
        raise ValueError("no prompt and seed has been run by every arm")
    return PAGE.format(
        runs=len(made),
        prompts=len({run.prompt for run in made}),
        seeds=len({run.seed for run in made}),
        arms=len(by_arm),
        budget=made_by.budget,
        origin=origin(made_by.model, made_by.commit, made_on),
        trust=", ".join(f"`{level}`" for level in sorted({run.trust for run in made})),
        bars=_bars(by_arm),
        table=_table(by_arm),
        by_task=_by_group(by_arm, "task", lambda run: f"`{_task(run)}`"),
        by_end=_by_group(by_arm, "first draft", lambda run: "complete" if run.complete else "cut"),
        reasons="; ".join(f"{arm}: {_reasons(of_arm)}" for arm, of_arm in by_arm.items()),
    )


def changes(runs: Iterable[Run]) -> tuple[int, int]:
    """How many wrong drafts were made right, and how many right ones wrong."""
    counted = Counter((run.first, run.last) for run in runs)
    return counted[False, True], counted[True, False]


def _bars(by_arm: Mapping[str, Sequence[Run]]) -> str:
    def measure(arm: str) -> tuple[str, bool]:
        better, worse = changes(by_arm[arm])
        return f"{better} : {worse}", better > 0 and better >= LEAST_RATIO * worse

    bars = [
        (f"`{arm}`: wrong → right at least {LEAST_RATIO:.0f} times as often as right → wrong", *measure(arm))
        for arm in REVISED
        if arm in by_arm
    ]
    return tabulate_bars(bars)


def _table(by_arm: Mapping[str, Sequence[Run]]) -> str:
    shares = {arm: _by_prompt(of_arm) for arm, of_arm in by_arm.items()}
    rows = []
    for arm, of_arm in by_arm.items():
        better, worse = changes(of_arm)
        over = difference(shares[arm], shares[RIVAL]).in_points() if RIVAL in shares and arm != RIVAL else ""
        spent = sum(run.tokens for run in of_arm) / len(of_arm)
        rows.append([f"`{arm}`", _share(of_arm), over, str(better), str(worse), f"{spent:.0f}"])
    columns = ("arm", "right", "over best of n, points", "wrong → right", "right → wrong", "tokens spent, mean")
    return markdown_table(columns, rows)


def _by_group(by_arm: Mapping[str, Sequence[Run]], title: str, group: Callable[[Run], str]) -> str:
    groups = sorted({group(run) for of_arm in by_arm.values() for run in of_arm})
    rows = []
    for name in groups:
        of_group = {arm: [run for run in of_arm if group(run) == name] for arm, of_arm in by_arm.items()}
        rows.append([name, *(f"{_share(runs)} of {len(runs)}" if runs else "" for runs in of_group.values())])
    return markdown_table([title, *(f"`{arm}`" for arm in by_arm)], rows)


def _task(run: Run) -> str:
    return run.prompt.rpartition("-")[0]


def _by_prompt(runs: Sequence[Run]) -> Mapping[str, float]:
    found: dict[str, list[bool]] = {}
    for run in runs:
        found.setdefault(run.prompt, []).append(run.last)
    return {prompt: sum(right) / len(right) for prompt, right in found.items()}


def _share(runs: Sequence[Run]) -> str:
    return f"{sum(run.last for run in runs) / len(runs):.0%}"


def _reasons(runs: Sequence[Run]) -> str:
    return ", ".join(f"`{reason}` {count}" for reason, count in Counter(run.stop_reason for run in runs).most_common())
