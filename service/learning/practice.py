"""Practice prompts: made by code from subjects and rules, for a service without traffic to learn from.

The same seed gives the same prompts. What they are made of is in ``practice.toml``. All prompts about one subject are
one family, so that none of them is in the exam if another one is in training.
"""

import random
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import BaseModel, ConfigDict

from service.learning.prompts import Message, Prompt

MOST_RULES = 3
PLAIN_SHARE = 0.1
"""Of prompts without a rule, which show whether the model still writes as before."""


class _Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    group: str
    sentence: str
    evaluator: Mapping[str, Any]
    numbers: tuple[int, ...] = ()
    phrases: tuple[str, ...] = ()
    excludes: frozenset[str] = frozenset()

    def goes_with(self, other: "_Rule") -> bool:
        return self.group != other.group and self.group not in other.excludes and other.group not in self.excludes


class _Material(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    openings: tuple[str, ...]
    subjects: tuple[str, ...]
    words: tuple[str, ...]
    rules: tuple[_Rule, ...]


def make_prompts(count: int, *, seed: int = 0, kinds: Sequence[str] | None = None) -> Sequence[Prompt]:
    """Make practice prompts, no two of which are equal.

    count: how many. seed: another seed gives other prompts. kinds: of rules; by default all, and a tenth of the prompts
    has no rule. ValueError for an unknown kind.

    >>> [prompt.text for prompt in make_prompts(2, seed=1)] == [prompt.text for prompt in make_prompts(2, seed=1)]
    True
    """
    if unknown := set(kinds or ()) - set(all_kinds()):
        raise ValueError(f"unknown kinds of rules: {', '.join(sorted(unknown))}")
    draws = random.Random(f"practice {seed}")  # noqa: S311 - nothing secret
    found: dict[str, Prompt] = {}
    while len(found) < count:
        prompt = _draw(draws, len(found), kinds)
        found.setdefault(prompt.text, prompt)
    return list(found.values())


def all_kinds() -> Sequence[str]:
    """The kinds of rules that practice prompts have."""
    return [rule.kind for rule in _material().rules]


def _draw(draws: random.Random, number: int, kinds: Sequence[str] | None) -> Prompt:
    material = _material()
    subject = draws.choice(material.subjects)
    texts = [draws.choice(material.openings).format(subject=subject)]
    rules = [] if kinds is None and draws.random() < PLAIN_SHARE else list(_draw_rules(draws, material, kinds))
    evaluators = []
    for rule in rules:
        word, other = draws.sample(material.words, 2)
        values = {
            "number": draws.choice(rule.numbers or (0,)),
            "phrase": draws.choice(rule.phrases or ("",)),
            "word": word,
            "other": other,
        }
        texts.append(rule.sentence.format(**values))
        evaluators.append(_fill(rule.evaluator, values))
    return Prompt(
        id=f"practice-{number:04}",
        messages=(Message(role="user", content=" ".join(texts)),),
        evaluators=tuple(evaluators),
        kinds=tuple(rule.kind for rule in rules),
        family=subject,
    )


def _draw_rules(draws: random.Random, material: _Material, kinds: Sequence[str] | None) -> Iterator[_Rule]:
    """One to three rules that go together."""
    wanted = [rule for rule in material.rules if kinds is None or rule.kind in kinds]
    for _ in range(draws.randint(1, MOST_RULES)):
        if not wanted:
            return
        rule = draws.choice(wanted)
        yield rule
        wanted = [other for other in wanted if rule.goes_with(other)]


def _fill(stated: Any, values: Mapping[str, Any]) -> Any:
    """The evaluator with the values in their places; a place that is a whole text keeps the value's type."""
    match stated:
        case str():
            name = stated.strip("{}")
            return values[name] if stated == f"{{{name}}}" else stated.format(**values)
        case Mapping():
            return {str(_fill(key, values)): _fill(value, values) for key, value in stated.items()}
        case list() | tuple():
            return [_fill(value, values) for value in stated]
        case _:
            return stated


@cache
def _material() -> _Material:
    source = files(__package__).joinpath("practice.toml").read_text(encoding="utf-8")
    return _Material.model_validate(tomllib.loads(source))
