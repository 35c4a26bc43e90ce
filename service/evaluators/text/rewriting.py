"""Repairs the form of a text and leaves its words alone: their case, marks around them, markers, separators, lines."""

from collections.abc import Callable, Sequence
from itertools import count, pairwise

import regex

from service.evaluators.text.classes import translate
from service.evaluators.text.fences import are_fenced
from service.evaluators.text.markers import BULLET, NUMBERED, begins
from service.evaluators.text.verbatim import change_prose, has_code
from service.evaluators.text.wording import strip_quotes
from service.evaluators.text.words import is_rule, paragraphs

_MARKER = regex.compile(r"(?P<before>(?:\s*+>)*+\s*+)(?:[^\w\s>]\ufe0f?|[(（]?\d{1,3}[.)．）、])(?![*_])\s*+(?=\S)")
"""The marker of an item, for a line that has one."""
_STRUCTURE = regex.compile(r"\s*+(?:[#>|`~]|\d{1,3}[.)]\s|[^\w\s'\"“‘(\[*_]\s)")
"""The beginning of a line that means something in Markdown, such as a heading or an item."""
_UNSPACED = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u3000-\u303f\uff01-\uff65]"
)
_HEADING = regex.compile(
    r"\s*+(?:#{1,6}\s++|(?P<marks>\*{1,3}|_{2,3}))(?P<title>[^<>*\n]{1,200}?)(?(marks)(?P=marks))\s*+#*+\s*+"
)
_SECOND = regex.compile(r"[\s#*_>(\[]*+(?i:response|answer|reply|version|option)\s*+#?2(?!\d)")
_SHORT_PASSAGE = 80
_TO_CAPITALS = str.maketrans({"i": "İ", "ı": "I"})
_TO_SMALL = str.maketrans({"I": "ı", "İ": "i"})


def recase(text: str, convert: Callable[[str], str]) -> str:
    """The text in lower or upper case. Code, addresses, and letters whose capitals are seldom used stay as they are.

    convert: ``str.lower`` or ``str.upper``.
    """
    turkic = "ı" in text or "İ" in text
    table = _TO_SMALL if convert is str.lower else _TO_CAPITALS

    def change(prose: str) -> str:
        return "".join(map(convert_letter, prose.translate(table) if turkic else prose))

    def convert_letter(letter: str) -> str:
        return letter if is_seldom_capital(letter) else convert(letter)

    return change_prose(text, change)


def is_seldom_capital(letter: str) -> bool:
    """Whether the letter is one whose capitals are seldom used: "ß", and the letters of Georgian."""
    return letter == "ß" or "\u10d0" <= letter <= "\u10ff"


def quote(text: str) -> str | None:
    """The whole text in double quotation marks. One that is there already is closed, or opened. None
    for a text without words."""
    if not has_words(text):
        return None
    text = text.strip()
    if text.count('"') == 1:
        if text.startswith('"'):
            return f'{text}"'
        if text.endswith('"'):
            return f'"{text}'
    return f'"{text}"'


def within_quotes(text: str, change: Callable[[str], str | None]) -> str | None:
    """Change the text; one in double quotation marks between them."""
    whole = text.strip()
    inner = strip_quotes(whole)
    if inner == whole:
        return change(text)
    changed = change(inner)
    return None if changed is None else f"{whole[0]}{changed}{whole[-1]}"


def join(first: str, second: str) -> str:
    """The two with a space between them, unless their script is written without."""
    first, second = first.rstrip(), second.lstrip()
    unspaced = _UNSPACED.match(first[-1:]) or _UNSPACED.match(second[:1])
    return f"{first}{second}" if unspaced else f"{first} {second}"


def put_together(first: str, second: str, passage: str) -> str:
    """The two as one text, of which ``passage`` is one. A long passage or one next to several lines is a paragraph."""
    if len(passage) > _SHORT_PASSAGE or "\n" in f"{first}{second}" or _STRUCTURE.match(second):
        return f"{first}\n\n{second}"
    return join(first, second)


def has_words(text: str) -> bool:
    return any(map(str.isalnum, text))


def merge_lines(text: str, most: int) -> str | None:
    """The text with the last of its lines joined, so that at most that many are left; None for a text with code."""
    lines = [line for line in text.splitlines() if line.strip()]
    if has_code(text) or most < 1:
        return None
    last = lines[most - 1] if len(lines) >= most else ""
    for line in lines[most:]:
        last = join(last, line)
    return "\n".join([*lines[: most - 1], last])


def merge_paragraphs(blocks: Sequence[str], most: int) -> Sequence[str]:
    """The blocks with the last of them joined into one, so that at most that many are left."""
    last = ""
    for block in blocks[most - 1 :]:
        breaks = _STRUCTURE.match(block) or _STRUCTURE.match(last.rpartition("\n")[2]) or has_code(last)
        last = f"{last.rstrip()}\n{block}" if breaks and last else join(last, block) if last else block
    return [*blocks[: most - 1], last] if len(blocks) > most else blocks


def blocks_by_rules(text: str) -> Sequence[str]:
    """The parts of the text between its horizontal rules, such as "---"; if there are none, its paragraphs."""
    lines = text.splitlines()
    rules = [at for at, code in enumerate(are_fenced(lines)) if not code and is_rule(lines[at])]
    parts = ["\n".join(lines[start + 1 : end]).strip("\n") for start, end in pairwise([-1, *rules, len(lines)])]
    filled = [part for part in parts if part.strip()]
    return filled if len(filled) > 1 else paragraphs(text)


def separate_responses(text: str) -> str | None:
    """The text with six asterisks between its two responses; None if it does not show where the second begins."""
    lines = text.splitlines()
    fenced = are_fenced(lines)
    rules = [at for at, code in enumerate(fenced) if not code and is_rule(lines[at])]
    seconds = [at for at, line in enumerate(lines) if not fenced[at] and _SECOND.match(line)]
    if len(rules) == 1:
        before, after = lines[: rules[0]], lines[rules[0] + 1 :]
    elif not rules and len(seconds) == 1:
        before, after = lines[: seconds[0]], lines[seconds[0] :]
    else:
        return None
    first, second = "\n".join(before).strip(), "\n".join(after).strip()
    return f"{first}\n\n******\n\n{second}" if first and second else None


def mark_title(text: str) -> str | None:
    """The text with its heading, or a first line in bold, in double angular brackets; None if there is no such line."""
    first, *rest = text.strip().split("\n")
    found = _HEADING.fullmatch(first)
    if found is None or not rest or not found["title"].strip():
        return None
    return "\n".join([f"<<{found['title'].strip(' *_')}>>", *rest])


def drop_bullets(text: str) -> str:
    """The text without the markers before its bullets."""
    lines, are_items = text.split("\n"), begins(BULLET, text)
    for at, is_item in enumerate(are_items):
        while is_item and BULLET.match(lines[at]) and (bare := _replace_marker(lines[at], "")) != lines[at]:
            lines[at] = bare
    return "\n".join(lines)


def replace_bullets(text: str, marker: str) -> str:
    """The text with another marker before its bullets or, if it has none, before the items of its numbered list."""
    lines, are_items = text.split("\n"), begins(BULLET, text)
    if not any(are_items):
        are_items = begins(NUMBERED, text)
    return "\n".join(
        _replace_marker(line, f"{marker} ") if item else line for line, item in zip(lines, are_items, strict=True)
    )


def number_bullets(text: str) -> str:
    """The text with numbers, from 1 on, in place of those of its bullets that are indented least."""
    lines, are_items = text.split("\n"), begins(BULLET, text)
    margins = [len(line) - len(line.lstrip()) for line in lines]
    least = min((margin for margin, item in zip(margins, are_items, strict=True) if item), default=0)
    numbers = count(1)
    return "\n".join(
        _replace_marker(line, f"{next(numbers)}. ") if item and margin == least else line
        for line, item, margin in zip(lines, are_items, margins, strict=True)
    )


def _replace_marker(line: str, start: str) -> str:
    found = _MARKER.match(line)
    return f"{found['before']}{start}{line[found.end() :]}" if found else line


def as_lines(text: str) -> str:
    """The text with plain line ends and without white space around it."""
    return translate(text.replace("\r\n", "\n"), {ord("\r"): "\n"}).strip()
