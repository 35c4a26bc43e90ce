"""Verifiers whose rule is about the words on the page: how many, which ones, how they begin and end.

A failed check's score says how close the text came, where closeness has a natural measure; else it is 0.
White space around a text never counts.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from functools import cached_property
from itertools import groupby
from typing import Annotated, Any, ClassVar, Literal
from unicodedata import normalize

import re2
from annotated_types import Ge, Le, Len

from service.evaluators.base import STRICT, Check, RefusedField, Verifier

Unit = Literal["characters", "words", "sentences", "paragraphs", "lines"]
Count = Annotated[int, Ge(0), Le(1_000_000)]
Keyword = Annotated[str, Len(1, 200)]
KeywordList = Annotated[tuple[Keyword, ...], Len(0, 100)]


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
        verb = "is" if str(self).endswith(" 1") else "are"
        fault = "allowed" if self.max is not None and count > self.max else "needed"
        return f"{amount(count, plural)}; {self} {verb} {fault}"


def amount(quantity: int | Bounds, plural: str) -> str:
    """A quantity of things whose plural ends in "s": "1 word", "at most 40 words"."""
    return f"{quantity} {plural.removesuffix('s') if f' {quantity}'.endswith(' 1') else plural}"


def excerpt(text: str, limit: int = 60) -> str:
    """``text``, or its two ends where it has more than ``limit`` characters, which is even."""
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[1 - limit // 2 :]}"


def count_words(text: str) -> int:
    """Runs between white space or em dashes that hold a letter or a digit: "well-known" and "don't" are one word each.

    A run of a script that is written without spaces is one word too; ``characters`` is the unit for those.
    """
    return sum(any(map(str.isalnum, run)) for run in text.replace("—", " ").split())


_STOPS = (".", "!", "?", "…", "。", "\uff01", "\uff1f")
_IDEOGRAPHIC_STOP = re.compile("([。\uff01\uff1f])")
_WRAPPING = "\"'“”\u2018\u2019«»()[]{}*_"
_ABBREVIATION = re.compile(r"(?:[^\W\d_]\.)+|(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|No|Fig)\.")
_NUMBERING = re.compile(r"\d+\.")


def count_sentences(text: str) -> int:
    """Pieces with a letter or a digit that end at a stop before white space, or where a paragraph ends.

    A stop ends nothing before a word in lower case ("e.g. this"), after a single letter ("J. K. Rowling", "U.S.") or a
    common title ("Dr."), or after the number of a list item. So a list without stops is one sentence, and
    "It was I. He left." too.
    """
    count = 0
    for paragraph in paragraphs(text):
        words = _IDEOGRAPHIC_STOP.sub(r"\1 ", paragraph).split()
        begun = False
        for word, following in zip(words, [*words[1:], ""], strict=True):
            core = word.strip(_WRAPPING)
            if not begun and following and _NUMBERING.fullmatch(core):
                continue
            begun = begun or any(map(str.isalnum, core))
            closed = core.endswith(_STOPS) and not _ABBREVIATION.fullmatch(core)
            if begun and (not following or (closed and not following.lstrip(_WRAPPING)[:1].islower())):
                count, begun = count + 1, False
    return count


def paragraphs(text: str) -> Sequence[str]:
    """The blocks of lines that blank lines separate."""
    blocks = groupby(text.splitlines(), key=lambda line: bool(line.strip()))
    return ["\n".join(lines) for filled, lines in blocks if filled]


def count_lines(text: str) -> int:
    """Lines that are not blank."""
    return sum(bool(line.strip()) for line in text.splitlines())


_COUNTERS: Mapping[Unit, Callable[[str], int]] = {
    "characters": len,
    "words": count_words,
    "sentences": count_sentences,
    "paragraphs": lambda text: len(paragraphs(text)),
    "lines": count_lines,
}


@dataclass(frozen=True, kw_only=True)
class Length(Verifier):
    """How long the text is. A character is a code point, so an emoji may be several; a CRLF is one."""

    type: Literal["length"] = "length"
    unit: Unit
    min: Count | None = None
    max: Count | None = None

    def __post_init__(self) -> None:
        _ = self.bounds  # which refuses what makes no sense

    @property
    def bounds(self) -> Bounds:
        return Bounds(min=self.min, max=self.max)

    def check(self, text: str) -> Sequence[Check]:
        bounds = self.bounds
        count = _COUNTERS[self.unit](text.strip().replace("\r\n", "\n"))
        order = f"Use {amount(bounds, self.unit)}."
        return [Check(self.unit, bounds.score(count), bounds.verdict(count, self.unit), order)]


_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, kw_only=True)
class Keywords(Verifier):
    """Which words or phrases stand in the text, or do not, or how often; only as whole words.

    Letters and digits make a word: "art" is not in "party", but "Paris" is in "_Paris_", and "C++" in "C++17". White
    space inside a phrase matches any white space. Case is ignored by Unicode case folding unless ``case_sensitive``,
    and the ways to write an accented character are equal.
    """

    type: Literal["keywords"] = "keywords"
    include: KeywordList = ()
    exclude: KeywordList = ()
    counts: Annotated[Mapping[Keyword, Bounds], Len(0, 100)] = field(default_factory=dict)
    case_sensitive: bool = False

    def __post_init__(self) -> None:
        keywords = (*self.include, *self.exclude, *self.counts)
        if not keywords:
            raise ValueError("include, exclude or counts is needed")
        if not all(keyword.strip() for keyword in keywords):
            raise ValueError("a keyword is blank")

    def check(self, text: str) -> Sequence[Check]:
        marked = self._marked(text)
        found = {word: marked.count(self._marked(word)) for word in (*self.include, *self.exclude, *self.counts)}
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
            order = f'Use "{word}" {amount(bounds, "times")}.'
            checks.append(Check("counts", bounds.score(found[word]), fault, order))
        return checks

    def _marked(self, text: str) -> str:
        """Normalised, with a NUL at both ends of every word: whole words can then be found as plain strings."""
        folded = text if self.case_sensitive else text.casefold()
        return _WORD.sub("\0\\g<0>\0", " ".join(normalize("NFC", folded).split()))


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
    """Whether a pattern in RE2's syntax is found anywhere in the text, which is searched as it is."""

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
        match = self._compiled.search(text)
        score = float((match is not None) == self.must_match)
        if self.must_match:
            order = f"Write a text that matches the regular expression {self.pattern}"
            return [Check("pattern", score, f"nothing matches {self.pattern}", order)]
        order = f"Write nothing that matches the regular expression {self.pattern}"
        return [Check("pattern", score, f'"{excerpt(match.group())}" matches {self.pattern}' if match else "", order)]


@dataclass(frozen=True, kw_only=True)
class StartsWith(Verifier):
    """Whether the text begins with another, in exactly that case."""

    type: Literal["starts_with"] = "starts_with"
    text: Annotated[str, Len(1, 1000)]

    def __post_init__(self) -> None:
        _refuse_blank(self.text)

    def check(self, text: str) -> Sequence[Check]:
        given, wanted = text.strip(), self.text.strip()
        fault = f'it starts with "{given[:60]}"' if given else "it is empty"
        return [Check("text", float(given.startswith(wanted)), fault, f'Start with "{wanted}".')]


@dataclass(frozen=True, kw_only=True)
class EndsWith(Verifier):
    """Whether the text ends with another, in exactly that case."""

    type: Literal["ends_with"] = "ends_with"
    text: Annotated[str, Len(1, 1000)]

    def __post_init__(self) -> None:
        _refuse_blank(self.text)

    def check(self, text: str) -> Sequence[Check]:
        given, wanted = text.strip(), self.text.strip()
        fault = f'it ends with "{given[-60:]}"' if given else "it is empty"
        return [Check("text", float(given.endswith(wanted)), fault, f'End with "{wanted}".')]


def _refuse_blank(text: str) -> None:
    if not text.strip():
        raise RefusedField("text", "text is blank")


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
