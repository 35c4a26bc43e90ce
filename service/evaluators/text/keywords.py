"""Verifiers of which words are in the text: keywords, and one of several options."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Literal

from annotated_types import Len

from service.constraints.algebra import (
    Constraint,
    Demand,
    Excluded,
    Forbidden,
    Included,
    Matches,
    Occurrences,
    Unstated,
)
from service.constraints.algebra import (
    OneOf as OneOfTexts,
)
from service.evaluators.base import Check, RefusedField, Verifier
from service.evaluators.text.bounds import Bounds, amount, amount_in_chinese
from service.evaluators.text.phrases import PhraseIndex, tokens
from service.evaluators.text.sentences import sentence_ends
from service.evaluators.text.wording import (
    BRACKET_PAIRS,
    ENDING_STOPS,
    MARKUP,
    QUOTATION_MARKS,
    case_foldings,
    fold,
    lower,
    normalise,
    unify_width,
)
from service.evaluators.text.words import excerpt
from service.fail_fast import FAIL_FAST, limit_members

Keyword = Annotated[str, Len(1, 200)]
Letter = Annotated[str, Len(1, 1)]
KeywordList = Annotated[tuple[Keyword, ...], Len(0, 100), FAIL_FAST]


@dataclass(frozen=True, kw_only=True)
class Keywords(Verifier):
    """Which words or phrases the text contains, and how often. Also how often it contains a letter, or any character.

    Only whole words count, and a word is made of letters and digits: "art" is not in "party", but "Paris" is in
    "_Paris_", and "C++" in "C++17". In a script without spaces, such as Chinese or Thai, a word is found anywhere. A
    Korean word may have particles: "서울" is in "서울에서", but not in "서울대학교". White space inside a phrase
    matches any white space. Case is ignored by Unicode case folding unless ``case_sensitive``. All ways to write an
    accented character, an apostrophe or a hyphen are equal. So are full-width and half-width forms, and words with and
    without the vowel signs of Arabic and Hebrew.
    """

    type: Literal["keywords"] = "keywords"
    include: KeywordList = ()
    exclude: KeywordList = ()
    counts: Annotated[Mapping[Keyword, Bounds], Len(0, 100), limit_members(100)] = field(default_factory=dict)
    letters: Annotated[Mapping[Letter, Bounds], Len(0, 100), limit_members(100)] = field(default_factory=dict)
    case_sensitive: bool = False

    def __post_init__(self) -> None:
        keywords = self._keywords
        if not keywords and not self.letters:
            raise ValueError("include, exclude, counts or letters is needed")
        if not all(map(_is_visible, keywords)) or not all(letter.strip() for letter in self.letters):
            raise ValueError("a keyword or a letter is blank")

    def cost(self, text: str) -> int:
        return len(text) * (1 + len(self._keywords) // 50) + sum(map(len, self._keywords))

    @property
    def _keywords(self) -> Sequence[str]:
        return (*self.include, *self.exclude, *self.counts)

    def is_broken(self, beginning: str) -> bool:
        phrases = _count_phrases((*self.exclude, *self.counts), beginning, self.case_sensitive)
        letters = self._count_letters(beginning)
        limits = [(phrases[word], bounds.max) for word, bounds in self.counts.items()]
        limits += [(letters[letter], bounds.max) for letter, bounds in self.letters.items()]
        return any(phrases[word] for word in self.exclude) or any(
            most is not None and count > most for count, most in limits
        )

    def constraints(self) -> Sequence[Constraint]:
        cased, found = self.case_sensitive, list[Constraint]()
        if self.include:
            found.append(Constraint("keywords.include", Included(self.include, cased=cased)))
        if self.exclude:
            found.append(Constraint("keywords.exclude", Excluded(self.exclude, cased)))
        for word, bounds in self.counts.items():
            found.append(Constraint("keywords.counts", Occurrences(word, bounds.min or 0, bounds.max, cased)))
        for letter, bounds in self.letters.items():
            found.append(Constraint("keywords.letters", _demand_letter(letter, bounds)))
        return found

    def check(self, text: str) -> Sequence[Check]:
        found = _count_phrases(self._keywords, text, self.case_sensitive)
        checks = []
        if self.include:
            missing = [word for word in self.include if not found[word]]
            score = 1 - len(missing) / len(self.include)
            order = f"Use all of these words: {_quote(self.include)}."
            chinese = f"请使用以下所有词语：{_quote_in_chinese(self.include)}。"
            checks.append(Check("include", score, f"missing: {', '.join(missing)}", order, {"zh": chinese}))
        if self.exclude:
            used = [word for word in self.exclude if found[word]]
            score = 1 - len(used) / len(self.exclude)
            order = f"Use none of these words: {_quote(self.exclude)}."
            chinese = f"请不要使用以下任何词语：{_quote_in_chinese(self.exclude)}。"
            checks.append(Check("exclude", score, f"found: {', '.join(used)}", order, {"zh": chinese}))
        for word, bounds in self.counts.items():
            checks.append(_check_count("counts", "", word, found[word], bounds))
        for letter, count in self._count_letters(text).items():
            checks.append(_check_count("letters", "the letter ", letter, count, self.letters[letter]))
        return checks

    def _count_letters(self, text: str) -> Mapping[str, int]:
        alike = unify_width if self.case_sensitive else lower
        text = alike(text) if self.letters else ""
        return {letter: text.count(alike(letter)) for letter in self.letters}


_MOST_LETTERS = 15


def _demand_letter(letter: str, bounds: Bounds) -> Demand:
    """That a character appears often enough, as it is written, or not at all, and nothing that is compared as equal."""
    if bounds.max is None and 0 < (bounds.min or 0) <= _MOST_LETTERS:
        return Matches(f"(?s){'.*'.join([re.escape(letter)] * (bounds.min or 0))}")
    if bounds.max != 0:
        return Unstated("how often a letter appears at most is only checked")
    if not letter.isascii():
        return Unstated("a character outside ASCII has too many forms")
    return Forbidden("".join(sorted(_alike(letter))))


@cache
def _alike(letter: str) -> frozenset[str]:
    """The characters that have the letter in them, once their case and their width are unified."""
    return frozenset(each for each in map(chr, range(0x10000)) if lower(letter) in lower(each))


def _is_visible(text: str) -> bool:
    return bool(normalise(text).strip())


def _count_phrases(phrases: Sequence[str], text: str, case_sensitive: bool) -> Mapping[str, int]:
    """How often each phrase is in the text."""
    found = dict.fromkeys(phrases, 0)
    for turkic in case_foldings(case_sensitive, text, *phrases):
        index = PhraseIndex(tokens(text, case_sensitive, turkic))
        for phrase in found:
            found[phrase] = max(found[phrase], index.count(tokens(phrase, case_sensitive, turkic)))
    return found


def _check_count(rule: str, kind: str, thing: str, count: int, bounds: Bounds) -> Check:
    named = f'{kind}"{thing}"'
    named_in_chinese = f"{'字符' if kind else ''}“{thing}”"
    if bounds.max == 0:
        order, chinese = f"Do not use {named}.", f"请不要使用{named_in_chinese}。"
    else:
        order = f"Use {named} {amount(bounds, 'times')}."
        chinese = f"{named_in_chinese}的出现次数：{amount_in_chinese(bounds, '次')}。"
    fault = f"{named} appears {bounds.verdict(count, 'times')}"
    return Check(rule, bounds.score(count), fault, order, {"zh": chinese})


def _quote(words: Iterable[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def _quote_in_chinese(words: Iterable[str]) -> str:
    return "、".join(f"“{word}”" for word in words)


@dataclass(frozen=True, kw_only=True)
class OneOf(Verifier):
    """Whether the whole text is one of the options; with ``anywhere``, whether it contains one of them as whole words.

    White space, quotation marks, brackets and Markdown around the whole text are ignored, and so are full stops and
    exclamation marks at its end, in any script.
    """

    type: Literal["one_of"] = "one_of"
    options: Annotated[tuple[Keyword, ...], Len(2, 50), FAIL_FAST]
    anywhere: bool = False
    case_sensitive: bool = False

    def __post_init__(self) -> None:
        if not all(map(_is_visible, self.options)):
            raise RefusedField("options", "an option is blank")

    def cost(self, text: str) -> int:
        return len(text) + sum(map(len, self.options))

    def repair(self, text: str) -> str | None:
        """An option that is the first line or the first sentence stays alone."""
        if self.anywhere or not (text := text.strip()):
            return None
        beginnings = [text.splitlines()[0], *(text[:end] for end in sentence_ends(text[:_BEGINNING])[:1])]
        return next((each.strip() for each in beginnings if self.check(each)[0].score == 1.0), None)

    def is_broken(self, beginning: str) -> bool:
        if self.anywhere:
            return False
        begun = _word_characters(beginning)
        return not any(_word_characters(option).startswith(begun) for option in self.options)

    def constraints(self) -> Sequence[Constraint]:
        demand: Demand = OneOfTexts(self.options)
        if self.anywhere:
            demand = Included(self.options, any=True, cased=self.case_sensitive)
        return [Constraint("one_of.options", demand)]

    def check(self, text: str) -> Sequence[Check]:
        options, options_in_chinese = _quote(self.options), _quote_in_chinese(self.options)
        if self.anywhere:
            met = any(_count_phrases(self.options, text, self.case_sensitive).values())
            order = f"Use one of these, word for word: {options}."
            chinese = f"请原样使用以下选项之一：{options_in_chinese}。"
            return [Check("options", float(met), "it contains none of the options", order, {"zh": chinese})]
        met = any(
            self._strip_marks(text, turkic) in [self._strip_marks(option, turkic) for option in self.options]
            for turkic in case_foldings(self.case_sensitive, text, *self.options)
        )
        order = f"Reply with one of these and nothing else: {options}."
        chinese = f"请只回答以下选项之一，不要写任何其他内容：{options_in_chinese}。"
        fault = f'"{excerpt(text.strip())}" is not one of the options'
        return [Check("options", float(met), fault, order, {"zh": chinese})]

    def _strip_marks(self, text: str, turkic: bool) -> str:
        whole = fold(text, self.case_sensitive, turkic)
        return _strip_marks(whole) or whole


_BEGINNING = 1000


def _word_characters(text: str) -> str:
    """The letters and digits, folded. Both kinds of i are the same, whatever the language."""
    return "".join(filter(str.isalnum, fold(text))).replace("ı", "i")


def _strip_marks(text: str) -> str:
    """Brackets are removed in pairs only: "f(x)" keeps its own."""
    for _ in range(_MAX_NESTING):
        text = text.strip(f"{_MARKS}¡").rstrip(f"{_MARKS}{ENDING_STOPS}")
        if text.endswith(")") and "(" not in text:  # "A)"
            text = text[:-1]
        elif text[:1] + text[-1:] in BRACKET_PAIRS:
            text = text[1:-1]
        else:
            break
    return text


_MARKS = f"{QUOTATION_MARKS}{MARKUP} "
_MAX_NESTING = 4
"""Pairs of brackets that are removed around an answer."""
