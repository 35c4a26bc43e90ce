"""What the answers amount to: the page of results."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from bench.critic.asking import Answer, Origin
from bench.critic.labels import Item, Labels, Pair
from bench.harness.origin import origin
from bench.harness.page import markdown_table, tabulate, tabulate_bars

WRONG = {"plain": "plainly wrong", "subtle": "subtly wrong"}
FALSE_ALARMS = (0.05, 0.1, 0.2, 0.3)


@dataclass(frozen=True)
class Case:
    """An item with the answers to its three replies."""

    item: Item
    right: Answer
    subtle: Answer
    plain: Answer

    def wrong(self, kind: str) -> Answer:
        return self.plain if kind == "plain" else self.subtle

    def names(self, kind: str) -> bool:
        """Whether the critic's remarks on a wrong reply name its fault."""
        label = self.item.plain if kind == "plain" else self.item.subtle
        return label.is_named_by("\n".join(self.wrong(kind).remarks))


@dataclass(frozen=True)
class Twins:
    """A pair with its answers."""

    pair: Pair
    a: Answer
    b: Answer


def cases(labels: Labels, answers: Iterable[Answer]) -> Sequence[Case]:
    """The items all of whose replies were answered."""
    known = {(answer.id, answer.kind): answer for answer in answers}
    return [
        Case(item, *(known[item.id, kind] for kind in ("right", "subtle", "plain")))
        for item in labels.items
        if all((item.id, kind) in known for kind in ("right", "subtle", "plain"))
    ]


def twins(labels: Labels, answers: Iterable[Answer]) -> Sequence[Twins]:
    known = {(answer.id, answer.kind): answer for answer in answers}
    return [
        Twins(pair, known[pair.id, "a"], known[pair.id, "b"])
        for pair in labels.pairs
        if (pair.id, "a") in known and (pair.id, "b") in known
    ]


def share(hits: Iterable[bool]) -> float | None:
    """None of nothing."""
    counted = list(hits)
    return sum(counted) / len(counted) if counted else None


def area(good: Sequence[float], bad: Sequence[float]) -> float | None:
    """How often a bad one is above a good one, ties counting half: the area under the curve of recall."""
    if not good or not bad:
        return None
    return statistics.mean((b > g) + (b == g) / 2 for b in bad for g in good)


def recall_at(false_alarms: float, good: Sequence[float], bad: Sequence[float]) -> float | None:
    """The largest share of the bad that a threshold finds which is below at most this share of the good."""
    if not good or not bad:
        return None
    allowed = sorted(good, reverse=True)[int(false_alarms * len(good))] if false_alarms < 1 else -1.0
    return sum(value > allowed for value in bad) / len(bad)


def ordered_rightly(pairs: Iterable[tuple[float, float]]) -> float | None:
    """The share of pairs whose first is the larger, ties counting half."""
    counted = [(first > second) + (first == second) / 2 for first, second in pairs]
    return statistics.mean(counted) if counted else None


def judged(found: Sequence[Case], kind: str) -> Sequence[tuple[Answer, Answer]]:
    """The right and the wrong answers that both have a judge's score."""
    pairs = [(case.right, case.wrong(kind)) for case in found]
    return [(right, wrong) for right, wrong in pairs if right.score is not None and wrong.score is not None]


def covered(found: Sequence[Case]) -> float | None:
    """Of the pairs whose scores differ by more than the error that the judge states, the share in the right order."""
    pairs = [*judged(found, "plain"), *judged(found, "subtle")]
    clear = [(r, w) for r, w in pairs if abs((r.score or 0) - (w.score or 0)) > max(r.stderr or 0, w.stderr or 0)]
    return ordered_rightly(((r.score or 0.0), (w.score or 0.0)) for r, w in clear)


def page(labels: Labels, answers: Sequence[Answer], source: Origin, made_on: date) -> str:
    """The whole page."""
    found, alike = cases(labels, answers), twins(labels, answers)
    made = origin(source.model, source.commit, made_on)
    head = (
        f"Written by `make bench-critic` (`python -m bench.critic`); do not edit. {made} {len(found)} labelled "
        f"requests of the {source.split} split, each with a right, a subtly wrong and a plainly wrong reply, and "
        f"{len(alike)} pairs of equally good replies, asked about by `POST /v1/critique` with the defaults. *Found*: "
        "the critic names at least one issue. *Named*: of those found, the share whose issues contain the keywords of "
        "the labelled fault. [The log](log.md) has the forms that were tried."
    )
    parts = [
        "# What critic and judge find",
        head,
        _bars(found),
        "## By task and language",
        _by_group(found),
        "## The curve",
        "Recall at other thresholds of the fault probability, by the share of right replies that it blames. The area "
        "is the probability that a wrong reply has a higher fault probability than a right one.",
        _curve(found),
        "## The judge",
        "How often the right reply of a request scores higher than the wrong one, ties counting half.",
        _judge(found),
        "## Replies that differ in looks only",
        "The second reply of a pair is longer, in another style, praises itself or is padded; both are equally right "
        "or wrong. *Shift*: the second one's value minus the first one's.",
        _pairs(alike),
        "## Cost",
        _cost(answers),
    ]
    return "\n\n".join(parts) + "\n"


def _bars(found: Sequence[Case]) -> str:
    def percent(value: float | None) -> str | None:
        return None if value is None else f"{value:.0%}"

    def row(text: str, value: float | None, least: float) -> tuple[str, str | None, bool]:
        return text, percent(value), value is not None and value >= least

    alarms = share(bool(case.right.remarks) for case in found)
    named = share(case.names(kind) for kind in ("plain", "subtle") for case in found if case.wrong(kind).remarks)
    return tabulate_bars(
        [
            row("finds fault with ≥ 80 % of plainly wrong replies", _found(found, "plain"), 0.8),
            row("finds fault with ≥ 50 % of subtly wrong replies", _found(found, "subtle"), 0.5),
            ("blames ≤ 20 % of right replies", percent(alarms), alarms is not None and alarms <= 0.2),
            row("names the labelled fault in ≥ 70 % of those found", named, 0.7),
            row("the judge ranks right above plainly wrong in ≥ 95 %", _ranked(found, "plain"), 0.95),
            row("the judge ranks right above subtly wrong in ≥ 75 %", _ranked(found, "subtle"), 0.75),
            row("of scores that differ by more than the stated error, ≥ 90 % are in order", covered(found), 0.9),
        ]
    )


def _found(found: Sequence[Case], kind: str) -> float | None:
    return share(bool(case.wrong(kind).remarks) for case in found)


def _ranked(found: Sequence[Case], kind: str) -> float | None:
    return ordered_rightly(((r.score or 0.0), (w.score or 0.0)) for r, w in judged(found, kind))


def _by_group(found: Sequence[Case]) -> str:
    groups: dict[str, list[Case]] = {"all": list(found)}
    for case in found:
        groups.setdefault({"en": "English", "zh": "Chinese"}[case.item.language], []).append(case)
    for case in sorted(found, key=lambda case: case.item.task):
        groups.setdefault(f"`{case.item.task}`", []).append(case)
    columns: Mapping[str, Callable[[tuple[str, Sequence[Case]]], str]] = {
        "": lambda row: row[0],
        "requests": lambda row: str(len(row[1])),
        "found, plain": lambda row: _percent(_found(row[1], "plain")),
        "found, subtle": lambda row: _percent(_found(row[1], "subtle")),
        "blamed, right": lambda row: _percent(share(bool(case.right.remarks) for case in row[1])),
        "named, plain": lambda row: _percent(share(c.names("plain") for c in row[1] if c.plain.remarks)),
        "named, subtle": lambda row: _percent(share(c.names("subtle") for c in row[1] if c.subtle.remarks)),
        "judge, plain": lambda row: _percent(_ranked(row[1], "plain")),
        "judge, subtle": lambda row: _percent(_ranked(row[1], "subtle")),
    }
    return tabulate(columns, groups.items())


def _curve(found: Sequence[Case]) -> str:
    good = [case.right.fault_probability or 0.0 for case in found]
    rows = []
    for kind in ("plain", "subtle"):
        bad = [case.wrong(kind).fault_probability or 0.0 for case in found]
        area_under = area(good, bad)
        cells = [_percent(recall_at(alarms, good, bad)) for alarms in FALSE_ALARMS]
        rows.append([WRONG[kind], *cells, "" if area_under is None else f"{area_under:.2f}"])
    return markdown_table(["", *(f"{alarms:.0%} blamed" for alarms in FALSE_ALARMS), "area"], rows)


def _judge(found: Sequence[Case]) -> str:
    rows = []
    for kind in ("plain", "subtle"):
        pairs = judged(found, kind)
        gaps = [(right.score or 0.0) - (wrong.score or 0.0) for right, wrong in pairs]
        errors = [wrong.stderr or 0.0 for _, wrong in pairs]
        abstained = share(case.wrong(kind).score is None for case in found)
        ranked = _percent(_ranked(found, kind))
        rows.append([WRONG[kind], ranked, _mean(gaps), _mean(errors), _percent(abstained)])
    return markdown_table(["against", "ranked rightly", "mean gap", "stated error", "abstained"], rows)


def _pairs(alike: Sequence[Twins]) -> str:
    kinds = dict.fromkeys(each.pair.kind for each in alike)
    rows = []
    for kind in kinds:
        chosen = [each for each in alike if each.pair.kind == kind]
        scores = [
            ((each.b.score or 0) - (each.a.score or 0), max(each.a.stderr or 0, each.b.stderr or 0))
            for each in chosen
            if each.a.score is not None and each.b.score is not None
        ]
        shifts = [(each.b.fault_probability or 0) - (each.a.fault_probability or 0) for each in chosen]
        rows.append(
            [
                kind,
                str(len(chosen)),
                _mean([shift for shift, _ in scores]),
                _percent(share(abs(shift) <= error for shift, error in scores)),
                _mean(shifts),
                _percent(share(bool(each.a.remarks) == bool(each.b.remarks) for each in chosen)),
            ]
        )
    columns = ["kind", "pairs", "judge's shift", "within its error", "fault probability's shift", "same verdict"]
    return markdown_table(columns, rows)


def _cost(answers: Sequence[Answer]) -> str:
    def mean(chosen: Sequence[Answer], field: Callable[[Answer], int]) -> float:
        return statistics.mean(field(answer) for answer in chosen)

    groups = {
        "silent": [answer for answer in answers if not answer.remarks],
        "with remarks": [answer for answer in answers if answer.remarks],
    }
    columns: Mapping[str, Callable[[tuple[str, Sequence[Answer]]], str]] = {
        "the judge's calls included": lambda row: row[0],
        "replies": lambda row: str(len(row[1])),
        "calls": lambda row: f"{mean(row[1], lambda answer: answer.calls):.1f}",
        "prompt tokens": lambda row: f"{mean(row[1], lambda answer: answer.prompt_tokens):.0f}",
        "of these cached": lambda row: f"{mean(row[1], lambda answer: answer.cached_tokens):.0f}",
        "completion tokens": lambda row: f"{mean(row[1], lambda answer: answer.completion_tokens):.0f}",
    }
    return tabulate(columns, [(name, chosen) for name, chosen in groups.items() if chosen])


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _mean(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):+.3f}" if values else ""
