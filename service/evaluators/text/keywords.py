"""Verifiers of which words are in the text: keywords, and one of several options."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Len

from service.evaluators.base import Check, RefusedField, Verifier
from service.evaluators.text.bounds import Bounds, amount
from service.evaluators.text.words import QUOTATION_MARKS, excerpt, folded, lowered, marked, normalised

Keyword = Annotated[str, Len(1, 200)]
Letter = Annotated[str, Len(1, 1)]
KeywordList = Annotated[tuple[Keyword, ...], Len(0, 100)]


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
