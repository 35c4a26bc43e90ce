"""What a text must be like, as values that a compiler can turn into a grammar.

A verifier states each of its rules as a Constraint: the rule's name, and a *demand* on the text. A demand may be
stricter than its rule, never laxer: a text that meets the demand passes the rule. If a rule cannot be stated in this
way, its demand is Unstated, with the reason.

>>> Constraint("length.words", Counter("words", most=40))
>>> Constraint("format.no_commas", Forbidden(","))
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Literal

Unit = Literal[
    "characters",
    "words",
    "sentences",
    "lines",
    "paragraphs",
    "bullets",
    "numbered",
    "sections",
    "highlights",
    "placeholders",
    "capitals",
]


class Distortion(IntEnum):
    """How far a demand moves a model from what it would write by itself.

    SLIGHT: the mask leaves most of the probability at each token, such as without commas.
    MODERATE: it decides where the text ends, such as at most 40 words.
    STRONG: it demands what the model may never get to, such as a keyword, or forbids what it nearly always writes.
    """

    SLIGHT = 0
    MODERATE = 1
    STRONG = 2


@dataclass(frozen=True, slots=True)
class Forbidden:
    """None of these characters appears."""

    characters: str

    @property
    def distortion(self) -> Distortion:
        return Distortion.SLIGHT


@dataclass(frozen=True, slots=True)
class Case:
    """No letter is in the other case."""

    case: Literal["lower", "upper"]

    @property
    def distortion(self) -> Distortion:
        return Distortion.SLIGHT if self.case == "lower" else Distortion.STRONG


@dataclass(frozen=True, slots=True)
class Excluded:
    """None of the phrases appears as whole words. ``cased``: only in this case."""

    phrases: tuple[str, ...]
    cased: bool = False

    @property
    def distortion(self) -> Distortion:
        return Distortion.SLIGHT


@dataclass(frozen=True, slots=True)
class Included:
    """Each of the phrases appears as whole words, or with ``any`` at least one. ``cased``: in this case."""

    phrases: tuple[str, ...]
    any: bool = False
    cased: bool = False

    @property
    def distortion(self) -> Distortion:
        return Distortion.STRONG


@dataclass(frozen=True, slots=True)
class Occurrences:
    """A phrase appears ``least`` to ``most`` times as whole words. ``most`` is None for no limit."""

    phrase: str
    least: int = 0
    most: int | None = None
    cased: bool = False

    @property
    def distortion(self) -> Distortion:
        return Distortion.SLIGHT if self.most == 0 else Distortion.STRONG


@dataclass(frozen=True, slots=True)
class Counter:
    """``least`` to ``most`` of a unit. ``most`` is None for no limit.

    marker: how a bullet begins, the word before a section's number, or the line between paragraphs.
    avoided: words that may not come before a full stop (sentences), first in an item (numbered), or first under a
        heading (sections).
    """

    unit: Unit
    least: int = 0
    most: int | None = None
    marker: str = ""
    avoided: frozenset[str] = frozenset()

    @property
    def distortion(self) -> Distortion:
        if self.unit == "lines" and self.least <= 1 and self.most == 1:
            return Distortion.SLIGHT
        return Distortion.STRONG if self.least > 1 else Distortion.MODERATE


@dataclass(frozen=True, slots=True)
class Prefix:
    """The text begins with these characters. ``cased``: in this case."""

    text: str
    cased: bool = True

    @property
    def distortion(self) -> Distortion:
        return Distortion.SLIGHT


@dataclass(frozen=True, slots=True)
class Suffix:
    """The text ends with these characters. ``cased``: in this case."""

    text: str
    cased: bool = True

    @property
    def distortion(self) -> Distortion:
        return Distortion.STRONG


@dataclass(frozen=True, slots=True)
class ParagraphStart:
    """A paragraph, counted from 1, begins with these words."""

    paragraph: int
    text: str

    @property
    def distortion(self) -> Distortion:
        return Distortion.SLIGHT if self.paragraph == 1 else Distortion.STRONG


@dataclass(frozen=True, slots=True)
class OneOf:
    """The whole text is one of these."""

    options: tuple[str, ...]

    @property
    def distortion(self) -> Distortion:
        return Distortion.SLIGHT


@dataclass(frozen=True, slots=True)
class Json:
    """The whole text is JSON that fits the schema."""

    schema: Mapping[str, Any]

    @property
    def distortion(self) -> Distortion:
        return Distortion.SLIGHT


@dataclass(frozen=True, slots=True)
class Quoted:
    """The whole text is in double quotation marks."""

    @property
    def distortion(self) -> Distortion:
        return Distortion.SLIGHT


@dataclass(frozen=True, slots=True)
class Parts:
    """``count`` parts, each different, with the separator on a line between them."""

    count: int
    separator: str

    @property
    def distortion(self) -> Distortion:
        return Distortion.STRONG


@dataclass(frozen=True, slots=True)
class Title:
    """A title in double angular brackets."""

    @property
    def distortion(self) -> Distortion:
        return Distortion.SLIGHT


@dataclass(frozen=True, slots=True)
class Postscript:
    """A last paragraph that begins with the marker, after other text."""

    marker: str

    @property
    def distortion(self) -> Distortion:
        return Distortion.STRONG


@dataclass(frozen=True, slots=True)
class Matches:
    """A regular expression in RE2's syntax matches somewhere, or nowhere."""

    pattern: str
    anywhere: bool = True

    @property
    def distortion(self) -> Distortion:
        return Distortion.STRONG if self.anywhere else Distortion.SLIGHT


@dataclass(frozen=True, slots=True)
class Unstated:
    """Nothing that a grammar could hold. ``reason``: why, for the account."""

    reason: str

    @property
    def distortion(self) -> Distortion:
        return Distortion.STRONG


Demand = (
    Forbidden
    | Case
    | Excluded
    | Included
    | Occurrences
    | Counter
    | Prefix
    | Suffix
    | ParagraphStart
    | OneOf
    | Json
    | Quoted
    | Parts
    | Title
    | Postscript
    | Matches
    | Unstated
)


@dataclass(frozen=True, slots=True)
class Constraint:
    """A rule of an evaluator, and what it demands of a text.

    rule: the evaluator's type and the name of its check, such as "length.words".
    demand: what the text must be like.
    evaluator: the evaluator's index in its program, once it is known.
    """

    rule: str
    demand: Demand
    evaluator: int | None = None

    @property
    def distortion(self) -> Distortion:
        return self.demand.distortion

    def of(self, evaluator: int) -> "Constraint":
        return replace(self, evaluator=evaluator)


class Contradiction(ValueError):
    """Two constraints that no text can meet together. ``reason``: a sentence for the caller."""

    def __init__(self, first: Constraint, second: Constraint, reason: str) -> None:
        super().__init__(reason)
        self.first, self.second, self.reason = first, second, reason


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A constraint that is checked but not enforced, and why."""

    constraint: Constraint
    reason: str


@dataclass(frozen=True, slots=True)
class Compiled:
    """What to sample under, at most one of ``grammar``, ``schema`` and ``choices``.

    given_prefix: a text that is certain to come first. It is given to the model as the beginning of its reply; the
        grammar describes what follows it.
    grammar: in llguidance's dialect of Lark.
    schema: a JSON Schema. choices: the whole texts to choose from.
    enforced: the constraints that every text that ends under it meets.
    left_out: the others.
    """

    grammar: str | None = None
    schema: Mapping[str, Any] | None = None
    choices: tuple[str, ...] = ()
    given_prefix: str = ""
    enforced: tuple[Constraint, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @property
    def constrains(self) -> bool:
        """Whether there is anything to sample under."""
        return bool(self.grammar or self.schema is not None or self.choices or self.given_prefix)

    @property
    def enforced_rules(self) -> tuple[str, ...]:
        return tuple(constraint.rule for constraint in self.enforced)

    @property
    def left_out_rules(self) -> Sequence[tuple[str, str]]:
        """The rules that are only checked, each with the reason."""
        return [(left.constraint.rule, left.reason) for left in self.left_out]
