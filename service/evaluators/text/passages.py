"""Verifiers of how the text, or one of its paragraphs, begins and ends."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import whitespace
from typing import Annotated, Literal

from annotated_types import Ge, Le, Len

from service.evaluators.base import Check, RefusedField, Verifier
from service.evaluators.text.keywords import Keyword
from service.evaluators.text.words import WRAPPING, folded, marked, normalised, paragraphs, unquoted

MAX_PASSAGE = 20_000
"""Characters of a text to start or to end with: a whole request to repeat fits."""


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
