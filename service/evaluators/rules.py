"""Verifiers whose rule is about the words on the page: how many, which ones, how they begin and end.

A failed check's score says how close the text came, where closeness has a natural measure; else it is 0.
White space around a text never counts.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from functools import cached_property
from string import whitespace
from typing import Annotated, Any, ClassVar, Literal

import re2
from annotated_types import Ge, Le, Len

from service.evaluators.base import STRICT, Check, RefusedField, Verifier
from service.evaluators.words import (
    QUOTATION_MARKS,
    WRAPPING,
    count_lines,
    count_sentences,
    count_words,
    excerpt,
    folded,
    lowered,
    marked,
    normalised,
    paragraphs,
    unquoted,
)

Unit = Literal["characters", "words", "sentences", "paragraphs", "lines"]
Count = Annotated[int, Ge(0), Le(1_000_000)]
Keyword = Annotated[str, Len(1, 200)]
Letter = Annotated[str, Len(1, 1)]
KeywordList = Annotated[tuple[Keyword, ...], Len(0, 100)]
MAX_PASSAGE = 20_000
"""Characters of a text to start or to end with: a whole request to repeat fits."""
MAX_TEXT = 100_000
"""Characters of a text that is held against patterns or a schema, which a stranger wrote to take long."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How many of something a text may have: both ends are allowed, and at least one is given."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    min: Count | None = None
    max: Count | None = None

    def __post_init__(self) -> None:
        if self.min is None and self.max is None:
            raise ValueError("min or max is needed")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is greater than max")

    def __str__(self) -> str:
        if self.max == 0:
            return "no"
        if self.min == self.max:
            return f"exactly {self.max}"
        if self.min is None:
            return f"at most {self.max}"
        return f"at least {self.min}" if self.max is None else f"{self.min} to {self.max}"

    def score(self, count: int) -> float:
        """1 within the bounds, else the smaller of ``count`` and the bound it broke, divided by the larger."""
        if self.min is not None and count < self.min:
            return count / self.min
        if self.max is not None and count > self.max:
            return self.max / count
        return 1.0

    def verdict(self, count: int, plural: str) -> str:
        """What is wrong with a count outside the bounds: "61 words; at most 40 are allowed"."""
        fault = "allowed" if self.max is not None and count > self.max else "needed"
        bounds = "none" if self.max == 0 else str(self)
        verb = "is" if bounds.endswith((" 1", "none")) else "are"
        return f"{amount(count, plural)}; {bounds} {verb} {fault}"


def amount(quantity: int | Bounds, plural: str) -> str:
    """A quantity of things whose plural ends in "s": "1 word", "at most 40 words"."""
    return f"{quantity} {plural.removesuffix('s') if f' {quantity}'.endswith(' 1') else plural}"


_COUNTERS: Mapping[Unit, Callable[[str], int]] = {
    "characters": len,
    "words": count_words,
    "sentences": count_sentences,
    "paragraphs": lambda text: len(paragraphs(text)),
    "lines": count_lines,
}


@dataclass(frozen=True, kw_only=True)
class Length(Verifier):
    """How long the text is. A character is a code point, so an emoji may be several; a CRLF is one.

    ``separator``: the line that stands between two paragraphs, where that is not a blank one.
    """

    type: Literal["length"] = "length"
    unit: Unit
    min: Count | None = None
    max: Count | None = None
    separator: Annotated[str, Len(1, 50)] | None = None

    def __post_init__(self) -> None:
        if self.separator is not None and self.unit != "paragraphs":
            raise RefusedField("separator", "only paragraphs have a separator")
        if self.separator is not None and len(self.separator.strip().splitlines()) != 1:
            raise RefusedField("separator", "it must be one line that is not blank")
        _ = self.bounds  # which refuses what makes no sense

    @property
    def bounds(self) -> Bounds:
        return Bounds(min=self.min, max=self.max)

    def check(self, text: str) -> Sequence[Check]:
        bounds = self.bounds
        if self.separator is None:
            count = _COUNTERS[self.unit](text.strip().replace("\r\n", "\n"))
            order = f"Use {amount(bounds, self.unit)}."
        else:
            count = len(paragraphs(text, self.separator))
            order = f'Use {amount(bounds, self.unit)}, with the line "{self.separator.strip()}" between them.'
        return [Check(self.unit, bounds.score(count), bounds.verdict(count, self.unit), order)]


@dataclass(frozen=True, kw_only=True)
class Keywords(Verifier):
    """Which words or phrases stand in the text, or do not, or how often; only as whole words. And how often letters,
    or any other characters, do.

    Letters and digits make a word: "art" is not in "party", but "Paris" is in "_Paris_", and "C++" in "C++17". In a
    script without spaces, such as Chinese or Thai, a word is found anywhere. White space inside a phrase matches any
    white space. Case is ignored by Unicode case folding unless ``case_sensitive``, and the ways to write an accented
    character, an apostrophe or a hyphen are equal.
    """

    type: Literal["keywords"] = "keywords"
    include: KeywordList = ()
    exclude: KeywordList = ()
    counts: Annotated[Mapping[Keyword, Bounds], Len(0, 100)] = field(default_factory=dict)
    letters: Annotated[Mapping[Letter, Bounds], Len(0, 100)] = field(default_factory=dict)
    case_sensitive: bool = False

    def __post_init__(self) -> None:
        keywords = (*self.include, *self.exclude, *self.counts, *self.letters)
        if not keywords:
            raise ValueError("include, exclude, counts or letters is needed")
        if not all(keyword.strip() for keyword in keywords):
            raise ValueError("a keyword or a letter is blank")

    def check(self, text: str) -> Sequence[Check]:
        words = marked(text, self.case_sensitive)
        keywords = (*self.include, *self.exclude, *self.counts)
        found = {keyword: words.count(marked(keyword, self.case_sensitive)) for keyword in keywords}
        checks = []
        if self.include:
            missing = [word for word in self.include if not found[word]]
            score = 1 - len(missing) / len(self.include)
            order = f"Use all of these words: {_quoted(self.include)}."
            checks.append(Check("include", score, f"missing: {', '.join(missing)}", order))
        if self.exclude:
            used = [word for word in self.exclude if found[word]]
            score = 1 - len(used) / len(self.exclude)
            order = f"Use none of these words: {_quoted(self.exclude)}."
            checks.append(Check("exclude", score, f"found: {', '.join(used)}", order))
        for word, bounds in self.counts.items():
            fault = f'"{word}" stands {bounds.verdict(found[word], "times")}'
            order = _times(f'"{word}"', bounds)
            checks.append(Check("counts", bounds.score(found[word]), fault, order))
        alike = normalised if self.case_sensitive else lowered
        letters = alike(text) if self.letters else ""
        for letter, bounds in self.letters.items():
            count = letters.count(alike(letter))
            fault = f'the letter "{letter}" stands {bounds.verdict(count, "times")}'
            order = _times(f'the letter "{letter}"', bounds)
            checks.append(Check("letters", bounds.score(count), fault, order))
        return checks


def _times(thing: str, bounds: Bounds) -> str:
    return f"Do not use {thing}." if bounds.max == 0 else f"Use {thing} {amount(bounds, 'times')}."


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


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


@dataclass(frozen=True, kw_only=True)
class _Passage(Verifier):
    """A text that stands at one end of another, character by character: "Dear" begins "Dearest".

    Quotation marks around the whole text do not count. Where case does not matter, it does not matter either which
    white space is used.
    """

    text: Annotated[str, Len(1, MAX_PASSAGE)]
    case_sensitive: bool = True

    def __post_init__(self) -> None:
        _refuse_blank(self.text)

    def _held(self, text: str, verb: str, stands: Callable[[str, str], bool], end: slice) -> Check:
        given, wanted = text.strip(), self.text.strip()
        fault = f'it {verb}s with "{given[end]}"' if given else "it is empty"
        met = any(stands(self._comparable(whole), self._comparable(wanted)) for whole in (given, unquoted(given)))
        return Check("text", float(met), fault, f"{verb.capitalize()} with {_passage(wanted)}.")

    def _comparable(self, text: str) -> str:
        return normalised(text.strip()) if self.case_sensitive else folded(text)


@dataclass(frozen=True, kw_only=True)
class StartsWith(_Passage):
    type: Literal["starts_with"] = "starts_with"

    def check(self, text: str) -> Sequence[Check]:
        return [self._held(text, "start", str.startswith, slice(60))]


@dataclass(frozen=True, kw_only=True)
class EndsWith(_Passage):
    type: Literal["ends_with"] = "ends_with"

    def check(self, text: str) -> Sequence[Check]:
        return [self._held(text, "end", str.endswith, slice(-60, None))]


def _refuse_blank(text: str) -> None:
    if not text.strip():
        raise RefusedField("text", "text is blank")


def _passage(text: str) -> str:
    """A passage as an order names it: whole, or by its two ends if it is long."""
    return f'"{text}"' if len(text) <= 1000 else f'the whole text from "{text[:60]}" to "{text[-60:]}", word for word'


@dataclass(frozen=True, kw_only=True)
class ParagraphStarts(Verifier):
    """Whether a paragraph, counted from 1 and set off by blank lines, begins with a word or some words.

    Case does not matter, nor do quotation marks, brackets or asterisks before the word.
    """

    type: Literal["paragraph_starts"] = "paragraph_starts"
    paragraph: Annotated[int, Ge(1), Le(1000)]
    text: Keyword

    def __post_init__(self) -> None:
        _refuse_blank(self.text.lstrip(_BEFORE_A_WORD))

    def check(self, text: str) -> Sequence[Check]:
        found, wanted = paragraphs(text), self.text.strip()
        order = f'Start paragraph {self.paragraph} with "{wanted}".'
        if len(found) < self.paragraph:
            return [Check("text", 0.0, f"there is no paragraph {self.paragraph}", order)]
        given = found[self.paragraph - 1].lstrip(_BEFORE_A_WORD)
        met = marked(given).startswith(marked(wanted.lstrip(_BEFORE_A_WORD)))
        return [Check("text", float(met), f'paragraph {self.paragraph} starts with "{given[:60]}"', order)]


_BEFORE_A_WORD = f"{WRAPPING}{whitespace}"


@dataclass(frozen=True, kw_only=True)
class OneOf(Verifier):
    """Whether the text is one of the options: all of it, but for white space, quotation marks and asterisks around it
    and a full stop or an exclamation mark at its end; or, with ``anywhere``, whether at least one of them stands in it,
    as whole words."""

    type: Literal["one_of"] = "one_of"
    options: Annotated[tuple[Keyword, ...], Len(2, 50)]
    anywhere: bool = False
    case_sensitive: bool = False

    def __post_init__(self) -> None:
        if not all(map(str.strip, self.options)):
            raise RefusedField("options", "an option is blank")

    def check(self, text: str) -> Sequence[Check]:
        if self.anywhere:
            words = marked(text, self.case_sensitive)
            met = any(marked(option, self.case_sensitive) in words for option in self.options)
            order = f"Use one of these, word for word: {_quoted(self.options)}."
            return [Check("options", float(met), "none of the options is in it", order)]
        met = self._bare(text) in map(self._bare, self.options)
        order = f"Reply with one of these and nothing else: {_quoted(self.options)}."
        return [Check("options", float(met), f'"{excerpt(text.strip())}" is none of the options', order)]

    def _bare(self, text: str) -> str:
        whole = folded(text, self.case_sensitive)
        return whole.strip(f"{QUOTATION_MARKS}* ").rstrip(f".!{QUOTATION_MARKS}* ") or whole


_NUMBER = re.compile(
    r"""
    (?: (?<![^\W_]) (?<![)\]+\u2212-]) [+\u2212-] )?  # a sign, unless it is an operator or a dash: 5-3, 2024-01
    [$€£¥]?
    (?: (?<![^\W_]) (?<!\d\.) (?: \d{1,3}(?:,\d{3})+ | \d+ ) (?:\.\d+)? | (?<![^\W_]) (?<!\.) \.\d+ )
    (?: [eE][+-]?\d{1,4} )?  # four digits bound the magnitude, and so the work
    (?! [^\W_] | \.\d )
    """,
    re.VERBOSE,
)
_NOT_DIGITS = str.maketrans({"\u2212": "-", **dict.fromkeys("$€£¥,")})
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
"""Sums and differences of the numbers that a text can state are exact in it: nothing is rounded."""


@dataclass(frozen=True, kw_only=True)
class Number(Verifier):
    """Whether the last number in the text is ``value``, give or take ``tolerance``, in exact decimal arithmetic.

    A number may have a sign, a currency sign before it, commas between thousands, a decimal point and an exponent; a
    percent sign after it is ignored. Digits that touch a letter ("H2O", "2nd", "5kg") or stand in a version ("1.2.3")
    are none.
    """

    type: Literal["number"] = "number"
    value: int | float
    tolerance: Annotated[float, Ge(0.0)] = 0.0

    def check(self, text: str) -> Sequence[Check]:
        numbers = _NUMBER.findall(text)
        wanted = f"{self.value}, give or take {self.tolerance}" if self.tolerance else f"{self.value}"
        if numbers:
            given = Decimal(numbers[-1].translate(_NOT_DIGITS))
            distance = _EXACT.subtract(given, Decimal(str(self.value))).copy_abs()
            score, fault = float(distance <= Decimal(str(self.tolerance))), f"the last number is {excerpt(numbers[-1])}"
        else:
            score, fault = 0.0, "there is no number"
        return [Check("value", score, f"{fault}; it must be {wanted}", f"Make the last number {wanted}.")]
