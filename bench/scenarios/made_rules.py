"""Sets of text rules by chance, as requests state them: alone, combined, and contradicting each other."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Rule = Mapping[str, Any]
"""An evaluator as a request states it."""

_WORDS = ("sea", "rain", "sugar", "Paris", "silver", "море", "New York", "art", "C++", "well-known", "light", "time")
_EXCLUDED = ("the", "very", "water", "beautiful", "in conclusion", "good", "a", "people", "море", "world")
_BEGINNINGS = ("Dear all", "Once upon a time", "We", "Hello, world.", "the lake", "1.", "Yes!", "Dr. Who")
_ENDS = ("The end.", "?", "!", "Yours, Boo", "so be it", "Kind regards, Lena")
_PLAIN = (
    *("two_responses", "title", "single_line", "no_commas", "lowercase", "uppercase", "quoted", "postscript", "json"),
)
_COUNTED = ("bullet_list", "numbered_list", "sections", "highlighted", "placeholders", "capital_words")
_PATTERNS = (
    *(r"\d", "#", "[,;]", "a+", r"(?i)\brain\b", r"(?s)^Q:.*\n+A:", r"(?m)^In short\b", r"[.!?]$", r"^[^;]+;[^;]+$"),
    *(r"(^|\n)- \w+", r"(?i)the (sea|end)[.!]?\s*$", r"\bwe\b|\bI\b", r"(?m)^[A-Z]\w+:", r"\w{12}"),
)
_LARGEST = {"words": 40, "characters": 200}


def make_rules(seed: int) -> Sequence[Rule]:
    """One to four rules."""
    chance = random.Random(seed)  # noqa: S311 - nothing secret is drawn
    kinds = chance.choices(tuple(_MAKERS), weights=(5, 5, 5, 3, 2, 1), k=chance.choice((1, 2, 2, 3, 3, 4)))
    return [_MAKERS[kind](chance) for kind in kinds]


def _bounds(chance: random.Random, largest: int) -> dict[str, int]:
    least = chance.choice((None, chance.randint(1, largest)))
    most = chance.choice((None, chance.randint(least or 1, 2 * largest)))
    given = {name: value for name, value in (("min", least), ("max", most)) if value is not None}
    return given or {"max": largest}


def _length(chance: random.Random) -> Rule:
    units = ("words", "words", "words", "sentences", "sentences", "lines", "paragraphs", "characters")
    unit = chance.choice(units)
    return {"type": "length", "unit": unit, **_bounds(chance, _LARGEST.get(unit, 4))}


def _keywords(chance: random.Random) -> Rule:
    rule: dict[str, Any] = {"type": "keywords"}
    if chance.random() < 0.6:
        rule["include"] = chance.sample(_WORDS, chance.randint(1, 3))
    if chance.random() < 0.5:
        rule["exclude"] = chance.sample(_EXCLUDED, chance.randint(1, 5))
    if chance.random() < 0.2:
        counts = ({"min": 1, "max": 1}, {"min": 2, "max": 2}, {"min": 2}, {"max": 1}, {"max": 0})
        rule["counts"] = {chance.choice(_WORDS): chance.choice(counts)}
    if chance.random() < 0.2 or len(rule) == 1:
        rule["letters"] = {chance.choice("!,?e-z"): {"max": 0}}
    if chance.random() < 0.2:
        rule["case_sensitive"] = True
    return rule


def _format(chance: random.Random) -> Rule:
    kind = chance.choice((*_PLAIN, *_COUNTED))
    return {"type": "format", "kind": kind, **(_bounds(chance, 4) if kind in _COUNTED else {})}


def _passage(chance: random.Random) -> Rule:
    kind = chance.choice(("starts_with", "ends_with", "paragraph_starts"))
    if kind == "paragraph_starts":
        return {"type": kind, "paragraph": chance.randint(1, 3), "text": chance.choice(("Finally", "in the end"))}
    return {"type": kind, "text": chance.choice(_BEGINNINGS if kind == "starts_with" else _ENDS)}


def _pattern(chance: random.Random) -> Rule:
    if chance.random() < 0.3:
        return {"type": "keywords", "letters": {chance.choice("!?;:q"): {"min": chance.randint(1, 3)}}}
    return {"type": "regex", "pattern": chance.choice(_PATTERNS), "must_match": chance.random() < 0.7}


def _other(chance: random.Random) -> Rule:
    options = {"type": "one_of", "options": ["18,400", "eighteen"], "anywhere": chance.random() < 0.5}
    return chance.choice((options, {"type": "number", "value": 7}, {"type": "language", "code": "en"}))


_MAKERS: Mapping[str, Callable[[random.Random], Rule]] = {
    "length": _length,
    "keywords": _keywords,
    "format": _format,
    "passage": _passage,
    "pattern": _pattern,
    "other": _other,
}
