"""How texts read that pass: by the model without rules, and by what rules may do to them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from bench.harness.page import markdown_table
from bench.quality.arms import ARMS
from bench.quality.runs import Run, Step

RUN_OF_WORDS = 4
LONG_WORD = 20
"""Letters of a word that hardly any language writes in one, so that words without spaces show."""


def repeated_share(text: str) -> float:
    """The share of runs of four words that were in the text before."""
    words = text.casefold().split()
    found = [tuple(words[start : start + RUN_OF_WORDS]) for start in range(len(words) - RUN_OF_WORDS + 1)]
    return 1 - len(set(found)) / len(found) if found else 0.0


def has_glued_words(text: str) -> bool:
    """Whether a word is longer than LONG_WORD letters."""
    letters = "".join(character if character.isalpha() else " " for character in text)
    return any(len(word) > LONG_WORD for word in letters.split())


def fluency_ratio(steps: Mapping[tuple[str, int], Step], others: Mapping[tuple[str, int], Step]) -> float | None:
    """The mean fluency of passing texts by that of others of the same prompts and seeds; None without any."""
    pairs = [
        (step.fluency, others[key].fluency)
        for key, step in steps.items()
        if key in others and step.fluency is not None and others[key].fluency is not None
    ]
    return sum(mine or 0.0 for mine, _ in pairs) / sum(its or 0.0 for _, its in pairs) if pairs else None


def passing(runs: Sequence[Run], budget: int) -> Mapping[tuple[str, int], Step]:
    """The first passing text of each run that has one within the budget. Code is left out: it is no prose."""
    found = {}
    for run in runs:
        steps = [step for step in run.steps if all(step.visible) and step.tokens <= budget]
        if steps and "code" not in run.prompt:
            found[run.prompt, run.seed] = steps[0]
    return found


COLUMNS = (
    "arm",
    "passing texts",
    "fluency",
    "fluency / adaptive, free, same prompts",
    "repeated 4-grams",
    "words",
    "with a word over 20 letters",
    "of all texts, cut at `max_tokens`",
)


def table(runs: Mapping[str, Sequence[Run]], budget: int) -> str:
    """How the passing texts of each arm read, as a Markdown table."""
    texts = {arm: passing(of_arm, budget) for arm, of_arm in runs.items()}
    rows = []
    for arm, found in texts.items():
        steps = list(found.values())
        if not steps:
            continue
        ends = sum((Counter(run.ends) for run in runs[arm]), Counter[str]())
        ratio = fluency_ratio(found, texts.get("free", {}))
        rows.append(
            [
                ARMS[arm].label,
                str(len(steps)),
                _mean([step.fluency for step in steps if step.fluency is not None]),
                "" if ratio is None else f"{ratio:.3f}",
                f"{fmean(repeated_share(step.text) for step in steps):.1%}",
                f"{fmean(len(step.text.split()) for step in steps):.0f}",
                f"{fmean(has_glued_words(step.text) for step in steps):.1%}",
                f"{ends['length'] / max(1, ends.total()):.0%}",
            ]
        )
    return markdown_table(COLUMNS, rows)


def _mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.3f}" if values else ""
