"""Which kinds of rules are followed: the names of docs/reference/constraints.md."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from bench.harness.page import markdown_table
from bench.quality.arms import ARMS
from bench.quality.prompts import BenchPrompt, StatedVerifier
from bench.quality.runs import Run, Step

NEVER_STATED = ("code_tests", "language", "number")
"""Types that are only checked."""


def kinds_of(verifier: StatedVerifier) -> Sequence[str]:
    """The names of a verifier's rules.

    >>> kinds_of({"type": "length", "unit": "words", "max": 9})
    ['length.words']
    """
    match verifier:
        case {"type": "length", "unit": unit}:
            return [f"length.{unit}"]
        case {"type": "format", "kind": kind}:
            return [f"format.{kind}"]
        case {"type": "keywords"}:
            return [f"keywords.{name}" for name in ("include", "exclude", "counts", "letters") if name in verifier]
        case _:
            return [str(verifier["type"])]


def shares(
    runs: Mapping[str, Sequence[Run]], prompts: Iterable[BenchPrompt], reached: Callable[[Run], Step]
) -> Mapping[str, Mapping[str, Sequence[bool]]]:
    """By kind and arm, whether the rules that runs see are followed. ``reached``: the text of a run that counts."""
    rules = {prompt.id: [kinds_of(verifier) for verifier in prompt.evaluators] for prompt in prompts}
    found: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for arm, of_arm in runs.items():
        for run in of_arm:
            for kinds, passed in zip(rules[run.prompt], reached(run).visible, strict=False):
                for kind in kinds:
                    found[kind][arm].append(passed)
    return found


def table(runs: Mapping[str, Sequence[Run]], prompts: Iterable[BenchPrompt], reached: Callable[[Run], Step]) -> str:
    """The shares as a Markdown table, the most frequent kind first."""
    found = shares(runs, prompts, reached)
    rows = []
    for kind in sorted(found, key=lambda kind: -max(map(len, found[kind].values()))):
        of_kind = found[kind]
        stated = "only checked" if kind in NEVER_STATED else "stated"
        count = str(max(map(len, of_kind.values())))
        rows.append([f"`{kind}`", stated, count, *(f"{fmean(of_kind[arm]):.0%}" for arm in runs)])
    return markdown_table(["rule", "", "runs", *(ARMS[arm].label for arm in runs)], rows)
