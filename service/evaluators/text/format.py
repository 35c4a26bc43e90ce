"""A verifier of the text's form: the format instructions of IFEval (Zhou et al. 2023, arXiv 2311.07911, table 1).

Where the paper leaves a form open, the order that is given to the writer says what is checked.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Len

from service.evaluators.base import Check, Verifier
from service.evaluators.schema import REPLY_WITH_JSON, json_document
from service.evaluators.text.bounds import Bounds, Count, amount
from service.evaluators.text.wording import folded, unquoted
from service.evaluators.text.words import count_lines

Kind = Literal[
    "json",
    "bullet_list",
    "numbered_list",
    "sections",
    "highlighted",
    "placeholders",
    "capital_words",
    "postscript",
    "two_responses",
    "title",
    "single_line",
    "no_commas",
    "lowercase",
    "uppercase",
    "quoted",
]
_COUNTED: Mapping[Kind, str] = {
    "bullet_list": "bullet points",
    "numbered_list": "numbered list",
    "sections": "numbered sections",
    "highlighted": "asterisks around words",
    "placeholders": "square brackets",
    "capital_words": "words in capital letters",
}
"""The kinds that count something, and what to do without where there may be none of it."""
_MARKED: Sequence[Kind] = ("bullet_list", "sections", "postscript")

_LINE_START = r"^[ \t]*+(?!([-*_])(?:[ \t]*+\1){2,}+[ \t\r]*$)"  # "- - -" is no item but a rule across the page
_BULLET = rf"{_LINE_START}(?:[-*+\u2013◦‣▪●][ \t]|•)[ \t]*\S"
_NUMBERED = r"^[ \t]*[*_]{0,3}\(?\d{1,3}[.)][*_]{0,3}[ \t]+\S"  # four digits are a year
_HIGHLIGHTED = r"(?<!\*)\*++(?!\s)[^*\n]+(?<!\s)\*"  # an asterisk before a space is a bullet or stands for "times"
_PLACEHOLDER = r"\[([^\[\]\n]+)\](?!\()"  # a bracket after it makes a Markdown link


@dataclass(frozen=True, kw_only=True)
class Format(Verifier):
    """Whether the text has a form. ``min`` and ``max`` bound the items of a list, the sections and so on; one is the
    least that is needed where ``min`` is not given, but none of capital words where ``max`` is. Other text may stand
    around them.

    ``marker`` is what a bullet looks like, by default any of ``- * + •``; the word before a section's number, by
    default "Section"; or how a postscript begins, by default "P.S.".
    """

    type: Literal["format"] = "format"
    kind: Kind
    min: Count | None = None
    max: Count | None = None
    marker: Annotated[str, Len(1, 50)] | None = None

    def __post_init__(self) -> None:
        if self.kind not in _COUNTED and (self.min is not None or self.max is not None):
            raise ValueError(f"{self.kind} takes no min and no max")
        if self.kind not in _MARKED and self.marker is not None:
            raise ValueError(f"{self.kind} takes no marker")
        if self.marker is not None and not self.marker.strip():
            raise ValueError("marker is blank")
        _ = self.bounds  # which refuses what makes no sense

    @property
    def bounds(self) -> Bounds:
        least = None if self.kind == "capital_words" and self.max is not None else 1
        return Bounds(min=least if self.min is None else self.min, max=self.max)

    def check(self, text: str) -> Sequence[Check]:
        text, marker = text.strip(), (self.marker or "").strip()
        if self.kind == "bullet_list":
            bullet = marker or "-"
            pattern = rf"{_LINE_START}{re.escape(bullet)}[ \t]+\S" if marker else _BULLET
            order = f'Write a bullet list of {{}}, each on a line of its own that begins with "{bullet} ".'
            return [self._counted(_matches(pattern, text), "items", order)]
        if self.kind == "numbered_list":
            order = 'Write a numbered list of {}, each on a line of its own: "1. ", "2. " and so on.'
            return [self._counted(_matches(_NUMBERED, text), "items", order)]
        if self.kind == "sections":
            word = marker or "Section"
            pattern = rf"^[#*_> \t]*{re.escape(word)}[ \t]*\d+\b"
            order = f'Write {{}}, each under a heading on a line of its own: "{word} 1", "{word} 2" and so on.'
            return [self._counted(_matches(pattern, text), "sections", order)]
        if self.kind == "highlighted":
            order = "Highlight {} with asterisks, such as *this one*."
            return [self._counted(_matches(_HIGHLIGHTED, text), "parts", order)]
        if self.kind == "placeholders":
            count = sum(bool(name.strip()) for name in re.findall(_PLACEHOLDER, text))
            return [self._counted(count, "placeholders", "Use {} in square brackets, such as [address].")]
        if self.kind == "capital_words":
            count = sum(map(str.isupper, text.split()))
            return [self._counted(count, "capital words", "Use {}, such as THIS.")]
        if self.kind == "postscript":
            return [_postscript(text, marker or "P.S.")]
        return [_FORMS[self.kind](text)]

    def _counted(self, count: int, plural: str, order: str) -> Check:
        """``order`` has a pair of braces where the amount goes; a later pair is the marker's own."""
        none = f"Use no {_COUNTED[self.kind]}."
        instruction = none if self.bounds.max == 0 else order.replace("{}", amount(self.bounds, plural), 1)
        return Check(self.kind, self.bounds.score(count), self.bounds.verdict(count, plural), instruction)


def _matches(pattern: str, text: str) -> int:
    return len(re.findall(pattern, text, re.MULTILINE))


def _postscript(text: str, marker: str) -> Check:
    """A line that begins with the marker, in either case, and something said before and after it."""
    said = [position for position, character in enumerate(text) if character.isalnum()]
    found = re.finditer(rf"^[*_> \t]*{re.escape(marker)}", text, re.MULTILINE | re.IGNORECASE)
    met = any(said and said[0] < match.start() and match.end() <= said[-1] for match in found)
    fault = f'no line after the text that begins with "{marker}" and goes on'
    return Check("postscript", float(met), fault, f'Add a postscript at the end that begins with "{marker}".')


def _two_responses(text: str) -> Check:
    """Six asterisks or more stand between them; case and white space alone make no difference."""
    responses = {folded(response) for response in re.split(r"\*{6,}", text)} - {""}
    bounds, count = Bounds(min=2, max=2), len(responses)
    order = 'Give two different responses, with a line of six asterisks "******" between them.'
    return Check("two_responses", bounds.score(count), bounds.verdict(count, "different responses"), order)


def _json(text: str) -> Check:
    """Any JSON value will do, bare or in a fence."""
    try:
        json_document(text)
    except ValueError as error:
        return Check("json", 0.0, str(error), REPLY_WITH_JSON)
    return Check("json", 1.0, "", REPLY_WITH_JSON)


def _title(text: str) -> Check:
    found = any(title.strip() for title in re.findall(r"<<([^<>\r\n]+)>>", text))
    order = "Give the text a title in double angular brackets, such as <<A good title>>."
    return Check("title", float(found), "no title in double angular brackets", order)


def _single_line(text: str) -> Check:
    bounds, count = Bounds(min=1, max=1), count_lines(text)
    return Check("single_line", bounds.score(count), bounds.verdict(count, "lines"), "Write everything on one line.")


def _no_commas(text: str) -> Check:
    """The ideographic, full-width and Arabic commas are commas."""
    count = sum(map(text.count, ",、\uff0c،"))
    score, fault = (1 / (1 + count), f"{amount(count, 'commas')}; none is allowed") if text else (0.0, "it is empty")
    return Check("no_commas", score, fault, "Do not use any commas.")


def _lowercase(text: str) -> Check:
    return _cased("lowercase", text, str.lower, "Write in lower case only: no capital letters.")


def _uppercase(text: str) -> Check:
    return _cased("uppercase", text, str.upper, "Write in CAPITAL LETTERS only.")


def _cased(kind: Kind, text: str, fold: Callable[[str], str], order: str) -> Check:
    """The share of letters in the right case; characters without case count neither way, nor does "ß", whose capital
    is seldom used. An empty text is in no case."""
    if not text:
        return Check(kind, 0.0, "it is empty", order)
    cased = [letter for letter in text if letter.lower() != letter.upper() and letter != "ß"]
    wrong = sum(letter != fold(letter) for letter in cased)
    score = 1 - wrong / len(cased) if cased else 1.0
    return Check(kind, score, f"{amount(wrong, 'letters')} of {len(cased)} in the wrong case", order)


def _quoted(text: str) -> Check:
    wrapped = unquoted(text) != text
    order = "Wrap the whole text in double quotation marks."
    return Check("quoted", float(wrapped), "not wrapped in double quotation marks", order)


_FORMS: Mapping[Kind, Callable[[str], Check]] = {
    "json": _json,
    "two_responses": _two_responses,
    "title": _title,
    "single_line": _single_line,
    "no_commas": _no_commas,
    "lowercase": _lowercase,
    "uppercase": _uppercase,
    "quoted": _quoted,
}
