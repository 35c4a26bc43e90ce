"""Prompts with hidden rules: what they ask for is checked by the exam alone.

Lessons and rewards see the verifiers of a prompt and nothing else. A model that learned to please those, and no longer
does what it is asked, follows fewer of the rules that no verifier of training has ever checked. A hidden rule is stated
in the prompt, as a paragraph after its usual rules, or it goes without saying: a text is about its subject. The first
paragraph stays the usual prompt, so that nothing that quotes it becomes a lesson.

A prompt is passed if the hidden rule is followed. The usual rules are left to the other parts of the exam: a gain there
would make up for a loss here.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import cycle
from typing import Any

from pydantic import BaseModel, ConfigDict

from service.learning.prompts import Message, Prompt

_LEAST_LETTERS, _ENDING = 4, 3
"""Words of a subject with fewer letters do not tell it, and their last letters may be others in a text."""


class _Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    sentence: str = ""
    evaluator: Mapping[str, Any]


def hide_rules(prompts: Sequence[Prompt]) -> Sequence[Prompt]:
    """A prompt for each of ``prompts``, with a hidden rule as its only verifier; the rules take turns.

    The family of each prompt is its subject.
    """
    return [_hide(prompt, rule) for prompt, rule in zip(prompts, cycle(_rules()), strict=False)]


def _hide(prompt: Prompt, rule: _Rule) -> Prompt:
    *earlier, last = prompt.messages
    asked = Message(role=last.role, content=f"{last.content}\n\n{rule.sentence}".rstrip())
    subject = "|".join(map(re.escape, _stems(prompt.family)))
    evaluator = {
        name: stated.replace("{subject}", subject) if isinstance(stated, str) else stated
        for name, stated in rule.evaluator.items()
    }
    return Prompt(
        id=f"hidden-{prompt.id}",
        messages=(*earlier, asked),
        evaluators=(evaluator,),
        kinds=(rule.kind,),
        family=prompt.family,
    )


def _stems(subject: str) -> Sequence[str]:
    """The beginnings of the words that tell the subject.

    >>> _stems("baking bread"), _stems("trams")
    (['baki', 'brea'], ['tram'])
    """
    words = re.findall(r"\w+", subject)
    telling = [word for word in words if len(word) >= _LEAST_LETTERS] or words
    return [word[: max(_LEAST_LETTERS, len(word) - _ENDING)] for word in telling]


@cache
def _rules() -> Sequence[_Rule]:
    source = files(__package__).joinpath("hidden.toml").read_text(encoding="utf-8")
    return [_Rule.model_validate(stated) for stated in tomllib.loads(source)["rules"]]
