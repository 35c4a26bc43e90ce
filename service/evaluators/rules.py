"""A verifier that searches the text for a pattern that a stranger wrote."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import re2
from annotated_types import Len

from service.evaluators.base import Check, RefusedField, Verifier
from service.evaluators.text.bounds import Bounds, amount
from service.evaluators.text.words import excerpt

MAX_TEXT = 100_000
"""Characters of a text that is held against patterns or a schema, which a stranger wrote to take long."""

_PATTERN_MEMORY = 1 << 20
"""Bytes that RE2 may use for one pattern: it bounds the compiled size, and so the time for each byte of a text."""


def linear_pattern(pattern: str) -> Any:
    """The pattern compiled by RE2, which searches in time linear in the text and so refuses look-around and
    back-references. ValueError, with RE2's reason, where it does not compile."""
    options = re2.Options()
    options.max_mem = _PATTERN_MEMORY
    options.log_errors = False
    options.never_capture = True
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError(f"{excerpt(pattern)}: {error.args[0].decode(errors='replace')}") from None


@dataclass(frozen=True, kw_only=True)
class Regex(Verifier):
    """Whether a pattern in RE2's syntax is found anywhere in the text, which is searched as it is. A text of more than
    100,000 characters fails."""

    type: Literal["regex"] = "regex"
    pattern: Annotated[str, Len(1, 1000)]
    must_match: bool = True

    def __post_init__(self) -> None:
        try:
            _ = self._compiled
        except ValueError as error:
            raise RefusedField("pattern", str(error)) from None

    @cached_property
    def _compiled(self) -> Any:
        return linear_pattern(self.pattern)

    def check(self, text: str) -> Sequence[Check]:
        if len(text) > MAX_TEXT:
            bounds = Bounds(max=MAX_TEXT)
            order = f"Use {amount(bounds, 'characters')}."
            return [Check("pattern", 0.0, bounds.verdict(len(text), "characters"), order)]
        match = self._compiled.search(text)
        score = float((match is not None) == self.must_match)
        if self.must_match:
            order = f"Write a text that matches the regular expression {self.pattern}"
            return [Check("pattern", score, f"nothing matches {self.pattern}", order)]
        order = f"Write nothing that matches the regular expression {self.pattern}"
        return [Check("pattern", score, f'"{excerpt(match.group())}" matches {self.pattern}' if match else "", order)]
