"""What is blanked in a text before it is stored: the operator's hook, or the patterns below.

The patterns find e-mail addresses, telephone numbers, payment cards, and keys and tokens, in all scripts. They do not
find names, postal addresses, or what a person could guess from the rest. An operator who needs that installs a hook: an
entry point of the group ``redraft.redaction`` that names a function from a text to a text. It is called in a thread,
for one text at a time. What it raises keeps the trace from being stored.
"""

import json
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any

import regex

from service.store.errors import StoreMisconfigured

GROUP = "redraft.redaction"
DEFAULT, OFF = "default", "off"

Redact = Callable[[str], str]
"""The text without what must not be stored."""

# Possessive quantifiers, and a look behind that passes at the first character of a run only: no pattern looks twice at
# the same text, however long the text is.
_EMAIL_ASCII = regex.compile(
    r"(?<![A-Za-z0-9._%+\-])[A-Za-z0-9._%+\-]++[@＠][A-Za-z0-9\-]++(?:\.[A-Za-z0-9\-]++)*+(?<=\.[A-Za-z0-9\-]{2,63})"
)
_EMAIL = regex.compile(
    r"(?<![\p{L}\p{M}\p{N}._%+\-])[\p{L}\p{M}\p{N}._%+\-]++[@＠][\p{L}\p{M}\p{N}\-]++(?:[.。][\p{L}\p{M}\p{N}\-]++)++"
)
_SECRET = regex.compile(
    r"""
    -----BEGIN\ (?:[A-Z0-9]++\ ){0,3}?PRIVATE\ KEY-----(?:(?!-----END)[\s\S])*+(?:-----END\ [A-Z0-9\ ]++-----)?+
    | (?<![A-Za-z0-9_\-])(?:
        (?:sk|pk|rk)[-_](?:[A-Za-z0-9]++[-_])*+[A-Za-z0-9_\-]{16,}+  # OpenAI, Anthropic, Stripe
        | sk-[A-Za-z0-9_\-]{16,}+
        | gh[oprsu]_[A-Za-z0-9]{20,}+ | github_pat_[A-Za-z0-9_]{20,}+ | glpat-[A-Za-z0-9_\-]{16,}+
        | xox[abeoprs]-[A-Za-z0-9\-]{10,}+ | hf_[A-Za-z0-9]{20,}+ | npm_[A-Za-z0-9]{20,}+ | pypi-[A-Za-z0-9_\-]{16,}+
        | (?:AKIA|ASIA|AGPA|AROA)[A-Z0-9]{16}+ | AIza[A-Za-z0-9_\-]{30,}+ | ya29\.[A-Za-z0-9_\-]{20,}+
        | SG\.[A-Za-z0-9_\-]{16,}+\.[A-Za-z0-9_\-]{16,}+
        | eyJ[A-Za-z0-9_\-]{8,}+\.eyJ[A-Za-z0-9_\-]{8,}+(?:\.[A-Za-z0-9_\-]*+)?+  # JSON Web Tokens
    )
    """,
    regex.VERBOSE,
)
_STATED = regex.compile(
    r"""
    (?P<name>(?<![\w\-])(?:bearer\ ++|(?:[\w\-]*+(?<=api.?key|passw(?:or)?d|passphrase|secret|token|credentials?)|pwd)
      ["']?+\s*+[=:：]\s*+["']?+(?:bearer\ ++)?+))
    (?P<value>[^\s"',;<>()\[\]{}\\]{6,}+)
    """,
    regex.VERBOSE | regex.IGNORECASE,
)
_LOGIN = regex.compile(r"(?<=://)[^\s/@:]++:[^\s/@]++(?=@)")
_LONG_WORD = regex.compile(r"(?<![A-Za-z0-9_\-+])[A-Za-z0-9_\-+]{32,}+={0,2}+(?![A-Za-z0-9_\-+])")
_DIGITS = regex.compile(
    r"""
    (?<![A-Za-z\p{N}_+＋])
    (?: [(（]?+ [+＋] [(（]?+ | (?<![\p{L}\p{N}][.,/\-] | \p{N}:) [(（]?+)
    \p{Nd} (?:[\ \-.()（）/\u00a0\u2010-\u2015\u202f－]{0,2}+\p{Nd})*+
    (?![A-Za-z\p{N}_]|[.,:]\p{Nd})
    """,
    regex.VERBOSE,
)
_SIGNS = {
    "＋": "+",
    "（": "(",
    "）": ")",
    "\u00a0": " ",
    "\u202f": " ",
    **dict.fromkeys("－\u2010\u2011\u2012\u2013\u2014\u2015", "-"),
}
_DATE = regex.compile(r"\d{4}([\-./ ])\d{1,2}\1\d{1,2}|\d{1,2}([\-./ ])\d{1,2}\2\d{4}")
_GROUPS = regex.compile(r"(?:1[ .\-])?\d{3}([ .\-])\d{3}\1\d{4}|1[3-9]\d(?:\d{8}|([ \-])\d{4}\2\d{4})")
"""Numbers without a leading zero, as North America and China write them."""


def load_redaction(name: str) -> Redact:
    """The function that ``name`` stands for: ``default``, ``off``, or an entry point. Raises StoreMisconfigured."""
    if name == OFF:
        return str
    if name == DEFAULT:
        return redact
    points = list(entry_points(group=GROUP, name=name))
    if len(points) != 1:
        known = sorted({point.name for point in entry_points(group=GROUP)})
        count = "several packages have" if points else "no installed package has"
        raise StoreMisconfigured(f"{count} a redaction {name!r}; known are {', '.join([DEFAULT, OFF, *known])}")
    try:
        hook = points[0].load()
    except Exception as error:
        raise StoreMisconfigured(f"the redaction {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    if not callable(hook):
        raise StoreMisconfigured(f"the redaction {name!r} is not a function")
    return _checked(name, hook)


def _checked(name: str, hook: Callable[[str], Any]) -> Redact:
    def redacted(text: str) -> str:
        found = hook(text)
        if not isinstance(found, str):
            raise TypeError(f"the redaction {name!r} did not return a text")
        return found

    return redacted


def redact(text: str) -> str:
    """The text with placeholders for what the patterns find. A text that is JSON stays JSON.

    >>> redact("Write to jo@example.com or call +49 30 1234567.")
    'Write to [email] or call [phone].'
    """
    if text.lstrip()[:1] not in ("{", "["):
        return _redact_plain(text)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _redact_plain(text)
    redacted = redact_value(value, redact)
    if redacted == value:
        return text
    return json.dumps(redacted, ensure_ascii=False, indent=2 if "\n" in text.strip() else None)


def redact_value(
    value: Any, function: Redact, *, skip: Collection[tuple[str, ...]] = (), path: tuple[str, ...] = ()
) -> Any:
    """The same value of JSON with its texts redacted, its keys too where they are not plain names.

    skip: the paths of values that stay as they are, with "*" for every index and every key.
    """
    if any(len(path) == len(known) and all(k in ("*", p) for k, p in zip(known, path, strict=True)) for known in skip):
        return value
    match value:
        case str():
            return function(value)
        case bool() | None:
            return value
        case int() | float():
            shown = json.dumps(value)
            return value if (redacted := function(shown)) == shown else redacted
        case Mapping():
            found: dict[str, Any] = {}
            for key, inner in value.items():
                found[_new_key(key, function, found)] = redact_value(inner, function, skip=skip, path=(*path, key))
            return found
        case Sequence():
            return [redact_value(inner, function, skip=skip, path=(*path, "*")) for inner in value]
    raise TypeError(f"a {type(value).__name__} is not a value of JSON")


def _new_key(key: str, function: Redact, taken: Collection[str]) -> str:
    """The redacted key, different from those before it."""
    redacted = key if key.isidentifier() else function(key)
    number = 1
    while redacted in taken:
        number += 1
        redacted = f"{redacted.partition(' #')[0]} #{number}"
    return redacted


def _redact_plain(text: str) -> str:
    text = _SECRET.sub("[key]", text, concurrent=True)
    text = _LOGIN.sub("[key]", text, concurrent=True)
    text = _STATED.sub(
        lambda found: f"{found['name']}[key]" if found["value"] != "[key]" else found[0], text, concurrent=True
    )
    text = _LONG_WORD.sub(lambda found: "[key]" if _looks_random(found[0]) else found[0], text, concurrent=True)
    if "@" in text or "＠" in text:
        text = _EMAIL.sub("[email]", _EMAIL_ASCII.sub("[email]", text, concurrent=True), concurrent=True)
    return _DIGITS.sub(lambda found: _redact_digits(found[0]), text, concurrent=True)


def _looks_random(word: str) -> bool:
    """Whether small letters, capitals and digits are mixed, as in no word of a language."""
    return (
        any("a" <= letter <= "z" for letter in word)
        and any("A" <= letter <= "Z" for letter in word)
        and sum("0" <= letter <= "9" for letter in word) >= 3
    )


def _redact_digits(found: str) -> str:
    """A run of digits, or what takes its place where it is a card or a telephone number."""
    shown = "".join(map(_plain, found))
    opened = shown.startswith("(") and ")" not in shown  # what is around the number is closed after it
    kind = _kind_of_number(shown[1:] if opened else shown)
    return found if kind is None else f"{found[0] if opened else ''}[{kind}]"


def _kind_of_number(shown: str) -> str | None:
    digits = [int(character) for character in shown if character.isdigit()]
    if 13 <= len(digits) <= 19 and _passes_luhn(digits):
        return "card"
    if not 7 <= len(digits) <= 15 or _DATE.fullmatch(shown):
        return None
    international = shown.lstrip("(").startswith(("+", "00"))
    national = len(digits) >= 9 and regex.match(r"\(?0\d", shown) is not None
    return "phone" if international or national or shown.startswith("(") or _GROUPS.fullmatch(shown) else None


def _plain(character: str) -> str:
    """The ASCII character that means the same in a number."""
    if (digit := unicodedata.digit(character, None)) is not None:
        return str(digit)
    return _SIGNS.get(character, character)


def _passes_luhn(digits: Sequence[int]) -> bool:
    """Whether the check digit of a payment card is right (ISO/IEC 7812-1, annex B)."""
    doubled = [
        digit if place % 2 == 0 else (2 * digit - 9 if digit > 4 else 2 * digit)
        for place, digit in enumerate(reversed(digits))
    ]
    return sum(doubled) % 10 == 0 and len(set(digits)) > 1
