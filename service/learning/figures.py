"""What an exam measured, as named numbers for the manifest, and as a table for people.

The names are ``<part>.<what>`` with the parts of gate.py, such as ``trained.candidate.passed``:

- ``prompts``: how many were answered
- ``incumbent.passed``, ``candidate.passed``: the mean share of texts that pass. In ``plain`` it is ``….likelihood``
  instead, the mean log-likelihood in nats a token
- ``gain``, ``gain.low``, ``gain.high``: the mean difference with its 95 % interval; in ``plain`` of clipped differences
- ``margin``: by how much the gate lets the candidate be worse
- ``refine.incumbent.tokens_per_pass``, ``refine.candidate.…``: the tokens spent for each text that passes

``texts.incumbent.bad``, ``….tokens``: the share of cut, empty or looping texts, and the mean length.
"""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from service.learning.exam import Sat
from service.learning.gate import PARTS
from service.learning.refining import Refinement
from service.learning.statistics import Interval, interval

ARMS = ("incumbent", "candidate")
HEADINGS = ("", "prompts", "before", "after", "gain, 95 % interval")
"""Of the table's columns."""
_FURTHER = (
    ("refine.{}.tokens_per_pass", "refined texts: tokens for each that passes", ".0f"),
    ("texts.{}.bad", "single drafts: cut, empty or looping", ".1%"),
    ("texts.{}.tokens", "single drafts: mean tokens", ".0f"),
)


def figures_of(sat: Sat, agreement: float | None) -> Mapping[str, float]:
    """The figures of an exam."""
    return dict(_figures(sat, agreement))


def tabulate(figures: Mapping[str, float]) -> Sequence[Sequence[str]]:
    """A verdict's figures as rows of a table with these HEADINGS. What was not examined has no row."""
    return list(_rows(figures))


def _figures(sat: Sat, agreement: float | None) -> Iterator[tuple[str, float]]:
    for name, part in sat.results.parts.items():
        found = interval(part.differences)
        yield f"{name}.prompts", len(part.differences)
        for arm, scores in zip(ARMS, (part.incumbent, part.candidate), strict=True):
            yield f"{name}.{arm}.{'likelihood' if part.unit == 'nats' else 'passed'}", fmean(scores)
        yield f"{name}.gain", found.mean
        yield f"{name}.gain.low", found.low
        yield f"{name}.gain.high", found.high
        yield f"{name}.margin", part.margin
    for arm, texts in zip(ARMS, (sat.results.incumbent, sat.results.candidate), strict=True):
        yield f"texts.{arm}.bad", texts.bad_share
        yield f"texts.{arm}.tokens", texts.mean_tokens
    for arm, refined in zip(ARMS, sat.refined, strict=True):
        yield from ((f"refine.{arm}.tokens_per_pass", cost) for cost in _cost(refined))
    if agreement is not None:
        yield "agreement", agreement


def _cost(refined: Sequence[Refinement]) -> Iterator[float]:
    """The tokens for each text that passes, if one does."""
    if passed := sum(each.passed for each in refined):
        yield sum(each.tokens for each in refined) / passed


def _rows(figures: Mapping[str, float]) -> Iterator[Sequence[str]]:
    for name, meaning in PARTS.items():
        if f"{name}.gain" not in figures:
            continue
        prompts = f"{figures[f'{name}.prompts']:.0f}"
        ends = [figures[f"{name}.gain{end}"] for end in ("", ".low", ".high")]
        if f"{name}.candidate.likelihood" in figures:
            gain, low, high = (f"{end:+.3f}" for end in ends)
            scores = (f"{figures[f'{name}.{arm}.likelihood']:.3f}" for arm in ARMS)
            yield f"{meaning}: nats a token", prompts, *scores, f"{gain} ({low} to {high})"
        else:
            scores = (f"{figures[f'{name}.{arm}.passed']:.1%}" for arm in ARMS)
            yield f"{meaning}: pass", prompts, *scores, f"{Interval(*ends).in_points()} points"
    for name, meaning, form in _FURTHER:
        values = [figures.get(name.format(arm)) for arm in ARMS]
        if values != [None, None]:
            yield meaning, "", *("-" if value is None else format(value, form) for value in values), ""
