"""A verifier that searches the text for a caller's pattern."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

from annotated_types import Len

from service.constraints.algebra import Constraint, Demand, Forbidden, Matches
from service.evaluators.base import Check, RefusedField, Verifier
from service.evaluators.text.bounds import Bounds, amount
from service.evaluators.text.patterns import LinearPattern, SearchTooLarge, compile_linear
from service.evaluators.text.words import excerpt
from service.expressions import Set, parse

MAX_TEXT = 100_000
"""Characters of a text that is checked against a pattern or a schema, which a caller may have written to take long."""
_LOOKS_AHEAD = ("$", "\\b", "\\B", "\\z")


@dataclass(frozen=True, kw_only=True)
class Regex(Verifier):
    """Whether a pattern in RE2's syntax matches anywhere in the text. A text of more than 100,000 characters fails."""

    type: Literal["regex"] = "regex"
    pattern: Annotated[str, Len(1, 1000)]
    must_match: bool = True

    def __post_init__(self) -> None:
        try:
            _ = self._compiled
        except ValueError as error:
            raise RefusedField("pattern", str(error)) from None

    @cached_property
    def _compiled(self) -> LinearPattern:
        return compile_linear(self.pattern)

    def is_broken(self, beginning: str) -> bool:
        """A pattern that looks at the end of the text or at what follows may match the beginning only."""
        if self.must_match or len(beginning) > MAX_TEXT or any(sign in self.pattern for sign in _LOOKS_AHEAD):
            return False
        try:
            return self._compiled.search(beginning) is not None
        except SearchTooLarge:
            return False

    def constraints(self) -> Sequence[Constraint]:
        demand: Demand = Matches(self.pattern, anywhere=self.must_match)
        if not self.must_match and (characters := _single_characters(self.pattern)):
            demand = Forbidden(characters)
        return [Constraint("regex.pattern", demand)]

    def check(self, text: str) -> Sequence[Check]:
        if len(text) > MAX_TEXT:
            bounds = Bounds(max=MAX_TEXT)
            order = f"Use {amount(bounds, 'characters')}."
            return [Check("pattern", 0.0, bounds.verdict(len(text), "characters"), order)]
        try:
            match = self._compiled.search(text)
        except SearchTooLarge:
            return [Check("pattern", 0.0, "the text is too long for a pattern of this size", "Write a shorter text.")]
        score = float((match is not None) == self.must_match)
        if self.must_match:
            order = f"Write a text that matches the regular expression {self.pattern}"
            return [Check("pattern", score, f"nothing matches {self.pattern}", order)]
        order = f"Write nothing that matches the regular expression {self.pattern}"
        return [Check("pattern", score, f'"{excerpt(match.group())}" matches {self.pattern}' if match else "", order)]


_MOST_FORBIDDEN = 300


def _single_characters(pattern: str) -> str:
    """The characters that a pattern matches, if it always matches a single one of a few; else ""."""
    try:
        node = parse(pattern)
    except ValueError:
        return ""
    if not isinstance(node, Set) or node.negated or node.properties:
        return ""
    count = sum(last - first + 1 for first, last in node.ranges)
    if count > _MOST_FORBIDDEN:
        return ""
    return "".join(chr(code) for first, last in node.ranges for code in range(first, last + 1))
