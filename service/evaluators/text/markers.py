"""Finds list items and sections in many languages: bullets, numbers, headings with numbers."""

from collections.abc import Sequence
from unicodedata import category

import regex

from service.evaluators.text.fences import are_fenced
from service.evaluators.text.languages import months
from service.evaluators.text.words import prose_lines

BULLETS = "- * + • – ◦ ‣ ⁃ ▪ ▫ ■ □ ● ○ ◆ ◇ ★ ☆ ▶ ► ➢ ➤ · ・"
"""The bullets that count if the request names none. The first three and the dash need white space after them."""
SECTION_WORDS = ("Section", "第", "제", "Abschnitt", "Sección", "Раздел", "القسم", "بخش", "अनुभाग", "ส่วนที่")
"""The words before a section's number that count if the request names none. Each is from another language."""

_RULE = r"\s*+([-*_－＊＿—–])(?:\s*+\1){2,}+\s*+\Z"  # "- - -" is not an item but a horizontal rule
_SPACED = r"[-*+–－＊＋]\s"
_UNSPACED = f"[{''.join(BULLETS.split()[5:])}•]"
_QUOTED = r"(?:\s*+>)*+"
BULLET = regex.compile(rf"{_QUOTED}(?!{_RULE})\s*+(?:{_SPACED}|({_UNSPACED})\ufe0f?(?!\s*+\2))\s*+\S")

_EMPHASIS = "[*_]{0,3}+"
_DIGITS = rf"{_EMPHASIS}\d{{1,3}}+{_EMPHASIS}"  # four digits are a year
_HAN_DIGIT = "[〇零一二三四五六七八九十百]"
_ENCLOSED = r"(?:[①-⒛⓪-⓿❶-➓㈠-㈩㉈-㉟㊀-㊉㊱-㊿]|[0-9]\ufe0f?\u20e3|\U0001f51f)"
_MONTH = rf"(?i:{'|'.join(sorted(months()))})\b"
NUMBERED = regex.compile(
    rf"""(?x) {_QUOTED} \s*+
    (?: {_DIGITS} \\? [.．。｡] (?! [\d.．ºª] | \s*+ {_MONTH} (?: \s++ \d{{4}} | \s*+ , ))  # not a decimal or a date
      | {_DIGITS} [.．]? [ºª] (?=\s) (?! \s*+ de\b ) | {_EMPHASIS} \d° (?=\s) (?! \s*+ [CF]\b )
      | {_DIGITS} [-–ـ] (?= \s | \p{{Arabic}} ) (?!\d)
      | {_DIGITS} [、､] (?! \s*+ \d++ \s*+ [、､和与及或とや] )
      | {_EMPHASIS} [(（]? {_DIGITS} (?: \\? [.．] {_EMPHASIS} )? \\? [)）] [、.．]? (?!\d)
      | {_EMPHASIS} (?: 【{_DIGITS}】 | 〔{_DIGITS}〕 | ［{_DIGITS}］ )
      | {_EMPHASIS} {_HAN_DIGIT}{{1,4}}+ (?: [、､] (?!{_HAN_DIGIT}) | [.．] )
      | {_EMPHASIS} [(（] {_HAN_DIGIT}{{1,4}}+ [)）] [、.．]?
      | {_EMPHASIS} {_ENCLOSED} [、.．]? (?! \s*+ {_ENCLOSED} )
    ) {_EMPHASIS} \s*+ [^\s,;、，；､]"""
)

_HAN_NUMBER = "[〇零一二三四五六七八九十百千两]++"
_UNITS = {
    "第": (
        "(?:[章节節部条條回卷巻篇編编課课讲講幕集册冊款項项段話话步单單単階阶問问題题層层關关場场季期号號]"
        r"|小[节節题題问問]|\p{Han}{0,2}[:：]|$)(?!目)"
    ),
    "제": r"(?:[장절조부편과항권막회화강관]|단원|단계|\p{Hangul}{0,2}[:：]|$)",
}
"""What follows the number of a section. "第" and "제" make any number an ordinal: "第一章" and "第一天：" are headings,
but "第一次世界大战" and "第一，" are not."""
_ROMAN = r"(?:(?=[IVX]{2})X{0,3}(?:IX|IV|V?I{0,3})(?!\w)|(?:[IVX]|[Ⅰ-Ⅻ])(?=\s*+(?:$|[\p{P}|])))"
_NOT_SPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_BEFORE_HEADINGS = r"[#*_>\s【〔［\[（(「『《〈]*+"


def count_bullets(text: str, marker: str = "") -> int:
    """Count the lines that begin with the marker, by default any of ``BULLETS``, and go on.

    A marker that ends in an ASCII character, a letter or a digit needs white space after it: "-5" is not an item, but
    "・りんご" is. Items in quotations count, those in fenced blocks of code do not.

    >>> count_bullets("- salt\\n- foam")
    2
    """
    return _count_lines(bullet_pattern(marker), text)


def bullet_pattern(marker: str = "") -> "regex.Pattern[str]":
    """What matches at the beginning of a bullet's line."""
    if not marker:
        return BULLET
    quoted = "" if marker.startswith(">") else _QUOTED
    return regex.compile(rf"{quoted}(?!{_RULE})\s*+{_item_pattern(marker)}")


def _item_pattern(marker: str) -> str:
    last, escaped = marker[-1], regex.escape(marker)
    if last.isascii() or last.isalnum():
        return rf"{escaped}\s++\S"
    sign = r"(?!\d)" if category(last) == "Pd" else ""  # "–3" is a number
    return rf"{escaped}\ufe0f?{sign}\s*+(?!{regex.escape(last)})\S"


def count_numbered(text: str) -> int:
    """Count the lines that begin with a number of up to three digits and a full stop or a bracket, or with a number in
    a circle, and go on.

    Digits of any script count, and so do Chinese numerals ("一、"). Ordinals ("1º") and numbers before a dash ("1- ")
    need white space after them, the others do not: "1.苹果". A decimal, a year or a date ("5.3.2024", "12. Mai 2024")
    is not an item.
    """
    return _count_lines(NUMBERED, text)


def count_sections(text: str, marker: str = "") -> int:
    """Count the lines that begin with the marker, by default any of ``SECTION_WORDS``, and a number: digits of any
    script, a Roman numeral or a Chinese one."""
    return _count_lines(section_pattern(marker), text)


def section_pattern(marker: str = "") -> "regex.Pattern[str]":
    """What matches at the beginning of a section's heading."""
    numbered = [_heading_pattern(marker)] if marker else map(_usual_heading_pattern, SECTION_WORDS)
    return regex.compile(rf"{_BEFORE_HEADINGS}(?:{'|'.join(numbered)})")


def begins(pattern: "regex.Pattern[str]", text: str) -> Sequence[bool]:
    """For each line of the text, whether the pattern matches at its beginning. It never does in a block of code."""
    lines = text.split("\n")
    fenced = are_fenced(lines)
    return [not code and pattern.match(line) is not None for line, code in zip(lines, fenced, strict=True)]


def make_heading(word: str, number: int) -> str:
    """The beginning of a section's heading: "Section 1", "第1节"."""
    return {"第": f"第{number}节", "제": f"제{number}장"}.get(word, f"{word} {number}")


def _usual_heading_pattern(word: str) -> str:
    if word not in _UNITS:
        return _heading_pattern(word)
    return rf"{regex.escape(word)}\s*+(?:\d++|[Ⅰ-Ⅻ]|{_HAN_NUMBER})(?=\s*+{_UNITS[word]})"


def _heading_pattern(word: str) -> str:
    unit = _UNITS["第"] if word in _UNITS else rf"(?:[^\p{{Han}}]|$|{_UNITS['第']})"
    digits, han = rf"\d++(?![^\W{_NOT_SPACED}])", rf"{_HAN_NUMBER}(?=\s*+{unit})"
    return rf"{regex.escape(word)}\s*+(?:{digits}|{han}|{_ROMAN})"


def _count_lines(pattern: "regex.Pattern[str]", text: str) -> int:
    return sum(pattern.match(line) is not None for line in prose_lines(text))
