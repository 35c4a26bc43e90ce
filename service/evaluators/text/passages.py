"""Verifiers of how the text or one of its paragraphs begins, and of how the text ends."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import regex
from annotated_types import Ge, Le, Len

from service.constraints.algebra import Constraint, Demand, ParagraphStart, Prefix, Suffix, Unstated
from service.evaluators.base import Check, RefusedField, Verifier
from service.evaluators.text.keywords import Keyword
from service.evaluators.text.phrases import PhraseIndex, tokens
from service.evaluators.text.rewriting import has_words, put_together, within_quotes
from service.evaluators.text.trimming import is_mostly_kept
from service.evaluators.text.wording import (
    AROUND_TEXT,
    case_foldings,
    fold,
    normalise,
    strip_quotes,
)
from service.evaluators.text.words import paragraphs

_LONGEST_END = 500
MAX_PASSAGE = 20_000
"""Characters of a text to start or to end with. A whole request that has to be repeated fits."""


@dataclass(frozen=True, kw_only=True)
class _Passage(Verifier):
    """A passage at one end of the text, character by character: "Dear" begins "Dearest".

    Ignored: quotation marks, brackets and Markdown around the text, the width of characters, and the vowel signs of
    Arabic and Hebrew. If case is ignored, all white space is equal too.
    """

    text: Annotated[str, Len(1, MAX_PASSAGE)]
    case_sensitive: bool = True

    def __post_init__(self) -> None:
        _refuse_blank(self.text)

    def cost(self, text: str) -> int:
        return 2 * len(text) + len(self.text)

    def _is_met(self, text: str, is_at_end: Callable[[str, str], bool], inside: Callable[[str], str]) -> bool:
        """``inside`` removes the marks at the end in question."""
        wholes = {text, strip_quotes(text), inside(text)}
        return any(
            is_at_end(self._make_comparable(whole, turkic), self._make_comparable(self.text, turkic))
            for turkic in case_foldings(self.case_sensitive, text, self.text)
            for whole in wholes
        )

    def _make_comparable(self, text: str, turkic: bool) -> str:
        return normalise(text).strip() if self.case_sensitive else fold(text, turkic=turkic)


@dataclass(frozen=True, kw_only=True)
class StartsWith(_Passage):
    type: Literal["starts_with"] = "starts_with"

    def is_broken(self, beginning: str) -> bool:
        beginning = beginning.strip()
        if len(beginning) < _CERTAIN * len(self.text):
            return False
        starts = (beginning, beginning.lstrip(AROUND_TEXT))
        return not any(self._is_met(start, str.startswith, _skip_to_first_word) for start in starts)

    def repair(self, text: str) -> str | None:
        """The passage is put before the text, or its case is set right."""
        return within_quotes(text, self._begin) if has_words(text) else None

    def _begin(self, text: str) -> str:
        passage, text = self.text.strip(), text.strip()
        if fold(text[: len(passage)]) == fold(passage):
            return passage + text[len(passage) :]
        return put_together(passage, text, self.text)

    def constraints(self) -> Sequence[Constraint]:
        return [Constraint("starts_with.text", Prefix(self.text.strip(), self.case_sensitive))]

    def check(self, text: str) -> Sequence[Check]:
        passage, given = self.text.strip(), text.strip()
        fault = f'it starts with "{given[:60]}"' if given else "it is empty"
        order, chinese = f"Start with {_quote(passage)}.", f"请以{_quote_in_chinese(passage)}开头。"
        return [
            Check(
                "text", float(self._is_met(given, str.startswith, _skip_to_first_word)), fault, order, {"zh": chinese}
            )
        ]


@dataclass(frozen=True, kw_only=True)
class EndsWith(_Passage):
    type: Literal["ends_with"] = "ends_with"

    def repair(self, text: str) -> str | None:
        """The passage is put after the text, or its case is set right. Text that follows the passage goes."""
        return within_quotes(text, self._end) if has_words(text) else None

    def _end(self, text: str) -> str:
        passage, text = self.text.strip(), text.strip()
        before = text[: text.rfind(passage) + len(passage)] if passage in text else ""
        if is_mostly_kept(before, text):
            return before
        if fold(text[-len(passage) :]) == fold(passage):
            return text[: -len(passage)] + passage
        return put_together(text, passage, self.text)

    def constraints(self) -> Sequence[Constraint]:
        demand: Demand = Suffix(self.text.strip(), self.case_sensitive)
        if len(self.text) > _LONGEST_END:
            demand = Unstated("the end is too long")
        return [Constraint("ends_with.text", demand)]

    def check(self, text: str) -> Sequence[Check]:
        passage, given = self.text.strip(), text.strip()
        fault = f'it ends with "{given[-60:]}"' if given else "it is empty"
        order, chinese = f"End with {_quote(passage)}.", f"请以{_quote_in_chinese(passage)}结尾。"
        return [
            Check("text", float(self._is_met(given, str.endswith, _strip_marks_at_end)), fault, order, {"zh": chinese})
        ]


def _refuse_blank(text: str) -> None:
    if not normalise(text).strip():
        raise RefusedField("text", "text is blank")


_CERTAIN = 4
"""How many times as long as the passage a beginning is before its own marks cannot matter."""
_LONG = 1000
"""A longer passage is quoted by its two ends in an instruction."""


def _quote(passage: str) -> str:
    if len(passage) <= _LONG:
        return f'"{passage}"'
    return f'the whole text from "{passage[:60]}" to "{passage[-60:]}", word for word'


def _quote_in_chinese(passage: str) -> str:
    if len(passage) <= _LONG:
        return f"“{passage}”"
    return f"从“{passage[:60]}”到“{passage[-60:]}”的全部原文"


@dataclass(frozen=True, kw_only=True)
class ParagraphStarts(Verifier):
    """Whether a paragraph, counted from 1, begins with a word or with several.

    Case is ignored, and so are white space, quotation marks, brackets, dashes and Markdown before the first word.
    """

    type: Literal["paragraph_starts"] = "paragraph_starts"
    paragraph: Annotated[int, Ge(1), Le(1000)]
    text: Keyword

    def __post_init__(self) -> None:
        _refuse_blank(_skip_to_first_word(self.text))

    def constraints(self) -> Sequence[Constraint]:
        return [Constraint("paragraph_starts.text", ParagraphStart(self.paragraph, self.text.strip()))]

    def check(self, text: str) -> Sequence[Check]:
        found, wanted = paragraphs(text), self.text.strip()
        order = f'Start paragraph {self.paragraph} with "{wanted}".'
        chinese = {"zh": f"第 {self.paragraph} 段请以“{wanted}”开头。"}
        if len(found) < self.paragraph:
            return [Check("text", 0.0, f"there is no paragraph {self.paragraph}", order, chinese)]
        given, wanted = _skip_to_first_word(found[self.paragraph - 1]), _skip_to_first_word(wanted)
        met = any(
            PhraseIndex(tokens(given, turkic=turkic)).starts_with(tokens(wanted, turkic=turkic))
            for turkic in case_foldings(False, given, wanted)
        )
        return [Check("text", float(met), f'paragraph {self.paragraph} starts with "{given[:60]}"', order, chinese)]


def _skip_to_first_word(text: str) -> str:
    return text[first.start() :] if (first := _FIRST_WORD.search(text)) else ""


def _strip_marks_at_end(text: str) -> str:
    """Full stops at the end count. Quotation marks, brackets and Markdown do not."""
    return normalise(text).rstrip(AROUND_TEXT)


_FIRST_WORD = regex.compile(
    r"[^\p{Ps}\p{Pe}\p{Pi}\p{Pf}\p{Pd}\s\p{Default_Ignorable_Code_Point}"  # brackets, quotation marks, dashes, spaces
    r"\"'<>＂＇＜＞*_~`#＊＿～｀＃¿¡…⋯•●○·・]"
)
