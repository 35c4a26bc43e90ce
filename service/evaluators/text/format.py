"""A verifier of the text's format: the format instructions of IFEval (Zhou et al. 2023, arXiv 2311.07911, table 1).

If the paper leaves a format open, the instruction to the writer says exactly what is checked.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import regex
from annotated_types import Len

from service.constraints.algebra import (
    Case,
    Constraint,
    Counter,
    Demand,
    Forbidden,
    Json,
    Parts,
    Postscript,
    Quoted,
    Title,
    Unit,
    Unstated,
)
from service.evaluators.base import Check, Verifier
from service.evaluators.text.bounds import Bounds, Count, amount, amount_in_chinese
from service.evaluators.text.classes import translate
from service.evaluators.text.documents import REPLY_WITH_JSON, extract_document, is_no_document, json_document
from service.evaluators.text.languages import months
from service.evaluators.text.markers import (
    NUMBERED,
    SECTION_WORDS,
    begins,
    bullet_pattern,
    count_bullets,
    count_numbered,
    count_sections,
    make_heading,
    section_pattern,
)
from service.evaluators.text.rewriting import (
    as_lines,
    drop_bullets,
    is_seldom_capital,
    mark_title,
    merge_lines,
    number_bullets,
    quote,
    recase,
    replace_bullets,
    separate_responses,
)
from service.evaluators.text.trimming import trim_items, trim_sections
from service.evaluators.text.wording import fold, may_open_quotation, strip_invisible, strip_quotes
from service.evaluators.text.words import count_lines, prose_lines, whole_lines

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
"""The kinds that count something, and what an instruction calls it if none is allowed."""
_COUNTED_IN_CHINESE: Mapping[Kind, str] = {
    "bullet_list": "项目符号",
    "numbered_list": "编号列表",
    "sections": "带编号的小节",
    "highlighted": "星号来突出文字",
    "placeholders": "方括号占位符",
    "capital_words": "全大写的单词",
}
_MARKED: Sequence[Kind] = ("bullet_list", "sections", "postscript")

_HIGHLIGHTED = r"(?<!\*)\*++(?!\s)[^*]+(?<!\s)\*"  # an asterisk before a space is a bullet or means "times"
_PLACEHOLDER = r"\[(?!\^)([^\[\]]+)\](?!\(|:[ \t]*<?https?:)"  # not a Markdown link or a footnote
_AS_ASCII = str.maketrans("＊［］【】＜＞", "*[][]<>")
_BETWEEN_CAPITALS = regex.compile(
    r"[\s,;…—―\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
    r"ー・\u3000-\u303f[\uff01-\uff65&&\p{P}]\p{Script=Arabic}]+",
    regex.VERSION1,
)
"""What separates words in capital letters: white space, commas, and scripts that are written without spaces."""
_COMMAS = ",，﹐、﹑､︐︑،՝፣᠂᠈߸၊꓾꘍꛵⸁⸲⸴⹁⹌"


@dataclass(frozen=True, kw_only=True)
class Format(Verifier):
    """Whether the text has a format. Other text is allowed around lists, sections and so on.

    kind: which format.
    min, max: how many items, sections and so on the text must have. ``min`` is 1 by default, but for capital words with
        a ``max`` there is no least number.
    marker: what a bullet looks like, by default any of ``- * + •``; the word before a section's number, by default
        "Section"; or how a postscript begins, by default "P.S.".
    """

    type: Literal["format"] = "format"
    kind: Kind
    min: Count | None = None
    max: Count | None = None
    marker: Annotated[str, Len(1, 50)] | None = None

    def __post_init__(self) -> None:
        if self.kind not in _COUNTED and (self.min is not None or self.max is not None):
            raise ValueError(f"{self.kind} does not take min or max")
        if self.kind not in _MARKED and self.marker is not None:
            raise ValueError(f"{self.kind} does not take a marker")
        if self.marker is not None and not strip_invisible(self.marker).strip():
            raise ValueError("marker is blank")
        _ = self.bounds  # raises ValueError if min and max make no sense

    @property
    def bounds(self) -> Bounds:
        least = None if self.kind == "capital_words" and self.max is not None else 1
        return Bounds(min=least if self.min is None else self.min, max=self.max)

    def constraints(self) -> Sequence[Constraint]:
        return [Constraint(f"format.{self.kind}", self._demand())]

    def _demand(self) -> Demand:
        if self.kind in _DEMANDS:
            return _DEMANDS[self.kind]
        marker = strip_invisible(self.marker or "").strip()
        if self.kind == "postscript":
            return Postscript(marker or "P.S.") if _is_spoken(marker or "P.S.") else _UNUSUAL_MARKER
        bounds = self.bounds
        unit = _UNITS[self.kind]
        if bounds.max == 0:
            return Unstated(f"that there are no {unit} is only checked")
        if self.kind == "bullet_list":
            if marker and not regex.fullmatch(r"[-*+•–◦▪●]", marker):
                return _UNUSUAL_MARKER
        elif self.kind == "sections":
            marker = marker or "Section"
            if not regex.fullmatch(r"[A-Za-z]{2,20}", marker):
                return _UNUSUAL_MARKER
        avoided = frozenset[str]()
        if self.kind == "numbered_list":
            avoided = frozenset(months())
        elif self.kind == "sections":
            avoided = frozenset((*SECTION_WORDS, marker))
        return Counter(unit, bounds.min or 0, bounds.max, marker, avoided)

    def check(self, text: str) -> Sequence[Check]:
        if self.kind == "json":
            return [_check_json(text.strip())]
        text, marker = strip_invisible(text).strip(), strip_invisible(self.marker or "").strip()
        if self.kind == "bullet_list":
            bullet = marker or "-"
            start = f"{bullet} " if bullet.isascii() else bullet
            return [
                self._check_count(
                    self._count(text),
                    "items",
                    f'Write a bullet list of {{}}, each on a line of its own that begins with "{start}".',
                    "项",
                    f"请用项目符号列出{{}}，每项单独成行，以“{start}”开头。",
                )
            ]
        if self.kind == "sections":
            english, chinese = marker or "Section", marker or "第"
            return [
                self._check_count(
                    self._count(text),
                    "sections",
                    f'Write {{}}, each under a heading on a line of its own: "{make_heading(english, 1)}",'
                    f' "{make_heading(english, 2)}" and so on.',
                    "节",
                    f"请写{{}}，每节的标题单独成行，依次为“{make_heading(chinese, 1)}”“{make_heading(chinese, 2)}”等。",
                )
            ]
        if self.kind == "postscript":
            return [_check_postscript(text, marker or "P.S.")]
        if self.kind in _COUNTERS:
            return [self._check_count(self._count(text), *_ORDERS[self.kind])]
        return [_FORMS[self.kind](text)]

    def is_broken(self, beginning: str) -> bool:
        beginning = strip_invisible(beginning).strip(" ") if self.kind != "json" else beginning
        match self.kind:
            case "json":
                return is_no_document(beginning)
            case "quoted":
                return bool(beginning.strip()) and not may_open_quotation(beginning.strip()[0])
            case "single_line":
                return count_lines(beginning) > 1
            case "no_commas" | "lowercase" | "uppercase":
                return bool(beginning.strip()) and _FORMS[self.kind](beginning).score < 1.0
        most = self.bounds.max if self.kind in _COUNTED else None
        return most is not None and self._count(whole_lines(beginning)) > most

    def _count(self, text: str) -> int:
        """How many items, sections and so on the text has."""
        marker = strip_invisible(self.marker or "").strip()
        if self.kind == "bullet_list":
            return count_bullets(text, marker)
        return count_sections(text, marker) if self.kind == "sections" else _COUNTERS[self.kind](text)

    def repair(self, text: str) -> str | None:
        text = as_lines(text)
        if not text:
            return None
        if self.kind in ("bullet_list", "numbered_list", "sections"):
            return self._repair_items(text)
        return _REPAIRS[self.kind](text) if self.kind in _REPAIRS else None

    def _repair_items(self, text: str) -> str | None:
        """Items get their marker, and those beyond the maximum go from the end."""
        marker, most = (self.marker or "").strip(), self.bounds.max
        items = self._items(text)
        if most == 0:
            return drop_bullets(text) if self.kind == "bullet_list" else None
        if most is None or sum(items) <= most:
            if self.kind == "bullet_list":
                text = replace_bullets(text, marker or "-")
            elif self.kind == "numbered_list" and not any(items):
                text = number_bullets(text)
            items = self._items(text)
        if most is None or sum(items) <= most:
            return text
        return trim_sections(text, items, most) if self.kind == "sections" else trim_items(text, items, most)

    def _items(self, text: str) -> Sequence[bool]:
        """For each line, whether an item or a section begins there."""
        marker = strip_invisible(self.marker or "").strip()
        if self.kind == "numbered_list":
            return begins(NUMBERED, text)
        return begins(bullet_pattern(marker) if self.kind == "bullet_list" else section_pattern(marker), text)

    def _check_count(self, count: int, plural: str, order: str, unit: str, chinese: str) -> Check:
        """``order`` and ``chinese`` have a pair of braces for the amount. A second pair belongs to the marker."""
        bounds = self.bounds
        if bounds.max == 0:
            order, chinese = f"Use no {_COUNTED[self.kind]}.", f"请不要使用{_COUNTED_IN_CHINESE[self.kind]}。"
        else:
            order = order.replace("{}", amount(bounds, plural), 1)
            amounts = amount_in_chinese(bounds, unit)
            chinese = chinese.replace("{}", f" {amounts}" if amounts[0].isdigit() else amounts, 1)
        return Check(self.kind, bounds.score(count), bounds.verdict(count, plural), order, {"zh": chinese})


def _count_highlighted(text: str) -> int:
    return sum(len(re.findall(_HIGHLIGHTED, line)) for line in map(_unescape, prose_lines(text)))


def _unescape(line: str) -> str:
    """The line with ASCII asterisks, and with other characters for those that a backslash escapes."""
    return translate(line, _AS_ASCII).replace("\\*", "×")


def _count_placeholders(text: str) -> int:
    lines = translate(text, _AS_ASCII).splitlines()
    return sum(bool(name.strip()) for line in lines for name in re.findall(_PLACEHOLDER, line))


def _count_capital_words(text: str) -> int:
    return sum(map(str.isupper, _BETWEEN_CAPITALS.split(text)))


_COUNTERS: Mapping[Kind, Callable[[str], int]] = {
    "numbered_list": count_numbered,
    "highlighted": _count_highlighted,
    "placeholders": _count_placeholders,
    "capital_words": _count_capital_words,
}
_ORDERS: Mapping[Kind, tuple[str, str, str, str]] = {
    "numbered_list": (
        "items",
        'Write a numbered list of {}, each on a line of its own: "1. ", "2. " and so on.',
        "项",
        "请用编号列出{}，每项单独成行，依次以“1. ”“2. ”等开头。",
    ),
    "highlighted": (
        "parts",
        "Highlight {} with asterisks, such as *this one*.",
        "处",
        "请用星号突出{}，例如 *这里*。",
    ),
    "placeholders": (
        "placeholders",
        "Use {} in square brackets, such as [address].",
        "个",
        "请使用{}方括号占位符，例如 [地址]。",
    ),
    "capital_words": ("capital words", "Use {}, such as THIS.", "个", "请使用{}全大写的单词，例如 THIS。"),
}
"""By kind: what is counted, the instruction, and both in Chinese."""


def _check_postscript(text: str, marker: str) -> Check:
    """A line that begins with the marker, in any case, with text before it and after it."""
    said = [position for position, character in enumerate(text) if character.isalnum()]
    found = re.finditer(rf"^(?:[*_>]|[^\S\n])*+{re.escape(marker)}", text, re.MULTILINE | re.IGNORECASE)
    met = any(said and said[0] < match.start() and match.end() <= said[-1] for match in found)
    fault = f'no line after the text that begins with "{marker}" and goes on'
    order, chinese = (
        f'Add a postscript at the end that begins with "{marker}".',
        f"请在文末加上以“{marker}”开头的附言。",
    )
    return Check("postscript", float(met), fault, order, {"zh": chinese})


def _check_two_responses(text: str) -> Check:
    """They are separated by six asterisks or more. A difference in case or white space alone does not count."""
    responses = {fold(response) for response in re.split(r"\*{6,}", translate(text, _AS_ASCII))} - {""}
    bounds, count = Bounds(min=2, max=2), len(responses)
    order = 'Give two different responses, with a line of six asterisks "******" between them.'
    chinese = "请给出两个不同的回答，中间用单独一行的六个星号“******”隔开。"
    verdict = bounds.verdict(count, "different responses")
    return Check("two_responses", bounds.score(count), verdict, order, {"zh": chinese})


def _check_json(text: str) -> Check:
    """Any JSON value passes, bare or in a fence."""
    chinese = {"zh": "请只回复 JSON，不要有任何其他文字。"}
    try:
        json_document(text)
    except ValueError as error:
        return Check("json", 0.0, str(error), REPLY_WITH_JSON, chinese)
    return Check("json", 1.0, "", REPLY_WITH_JSON, chinese)


def _check_title(text: str) -> Check:
    lines = translate(text, _AS_ASCII).splitlines()
    found = any(title.strip() for line in lines for title in re.findall(r"<<([^<>]+)>>", line))
    order = "Give the text a title in double angular brackets, such as <<A good title>>."
    chinese = "请用双尖括号给全文加上标题，例如 <<一个好标题>>。"
    return Check("title", float(found), "no title in double angular brackets", order, {"zh": chinese})


def _check_single_line(text: str) -> Check:
    bounds, count = Bounds(min=1, max=1), count_lines(text)
    verdict, chinese = bounds.verdict(count, "lines"), "请把全部内容写在一行里。"
    return Check("single_line", bounds.score(count), verdict, "Write everything on one line.", {"zh": chinese})


def _check_no_commas(text: str) -> Check:
    """The commas of all scripts count, in numbers too."""
    count = sum(map(text.count, _COMMAS))
    score, fault = (1 / (1 + count), f"{amount(count, 'commas')}; none is allowed") if text else (0.0, "it is empty")
    return Check("no_commas", score, fault, "Do not use any commas.", {"zh": "请不要使用任何逗号和顿号。"})


def _check_lowercase(text: str) -> Check:
    order, chinese = "Write in lower case only: no capital letters.", "请只使用小写字母，不要使用大写字母。"
    return _check_case("lowercase", text, str.lower, order, chinese)


def _check_uppercase(text: str) -> Check:
    return _check_case("uppercase", text, str.upper, "Write in CAPITAL LETTERS only.", "请只使用大写字母。")


def _check_case(kind: Kind, text: str, convert: Callable[[str], str], order: str, chinese: str) -> Check:
    """Score the share of letters in the right case. Characters without case do not count, nor do those whose capitals
    are seldom used: "ß", and the letters of Georgian. An empty text scores 0."""
    if not text:
        return Check(kind, 0.0, "it is empty", order, {"zh": chinese})
    cased = [letter for letter in text if letter.lower() != letter.upper() and not is_seldom_capital(letter)]
    wrong = sum(letter != convert(letter) for letter in cased)
    score = 1 - wrong / len(cased) if cased else 1.0
    fault = f"{amount(wrong, 'letters')} of {len(cased)} in the wrong case"
    return Check(kind, score, fault, order, {"zh": chinese})


def _check_quoted(text: str) -> Check:
    wrapped = strip_quotes(text) != text
    order, chinese = "Wrap the whole text in double quotation marks.", "请用双引号把全文括起来。"
    return Check("quoted", float(wrapped), "not wrapped in double quotation marks", order, {"zh": chinese})


_REPAIRS: Mapping[Kind, Callable[[str], str | None]] = {
    "json": extract_document,
    "two_responses": separate_responses,
    "title": mark_title,
    "single_line": lambda text: merge_lines(text, 1),
    "lowercase": lambda text: recase(text, str.lower),
    "uppercase": lambda text: recase(text, str.upper),
    "quoted": quote,
}
_FORMS: Mapping[Kind, Callable[[str], Check]] = {
    "two_responses": _check_two_responses,
    "title": _check_title,
    "single_line": _check_single_line,
    "no_commas": _check_no_commas,
    "lowercase": _check_lowercase,
    "uppercase": _check_uppercase,
    "quoted": _check_quoted,
}

_DEMANDS: Mapping[Kind, Demand] = {
    "json": Json({"anyOf": [{"type": "object"}, {"type": "array"}]}),
    "two_responses": Parts(2, "******"),
    "title": Title(),
    "single_line": Counter("lines", 1, 1),
    "no_commas": Forbidden(_COMMAS),
    "lowercase": Case("lower"),
    "uppercase": Case("upper"),
    "quoted": Quoted(),
}
_UNITS: Mapping[Kind, Unit] = {
    "bullet_list": "bullets",
    "numbered_list": "numbered",
    "sections": "sections",
    "highlighted": "highlights",
    "placeholders": "placeholders",
    "capital_words": "capitals",
}
_UNUSUAL_MARKER = Unstated("its marker is unusual")


def _is_spoken(marker: str) -> bool:
    """Whether a postscript's marker is one or two words of Latin letters."""
    return regex.fullmatch(r"[A-Za-z]{1,10}\.?(?:[A-Za-z]\.?){0,3}:?(?: [A-Za-z]{1,10}:?)?", marker) is not None
