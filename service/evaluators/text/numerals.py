"""Reads the numbers in a text, as people and models write them.

A numeral is read as a careful reader would read it:

* Digits of every script, full-width ones too: "٤٢", "４２", "४२".
* Thousands between commas ("1,234,567", and "12,34,567" as in India), dots ("1.234.567"), apostrophes ("1'234") or
  no-break and thin spaces ("12 345"), and the other mark before decimals: "1.234,50".
* One dot, or one comma that does not leave three digits, is a decimal mark: "1.234" is a little over one, "1,5" is one
  and a half, and "1,234" is over a thousand. A locale can say otherwise.
* Fractions: "3/4", "1 1/4", "2½". Between Persian digits a slash is a decimal mark.
* LaTeX: "12{,}480", "12\\,480", "\\frac{3}{4}", "5 \\times 10^{3}".
* Words or characters of scale after the digits: "3 million", "5 mil millones", "5k", "3万5千", "70ล้าน".
* Words for a minus: "minus 5", "零下5度".
* Chinese and Japanese numerals that can only be numbers: "三百二十一", "二〇二四", "三个", "三分之二".
* Units and particles may follow directly: "5kg", "100元", "42입니다".

These are not numerals: digits after a letter ("H2O", "v2"), English ordinals ("2nd"), versions, dates with dots and
addresses ("1.2.3"), subscripts, exponents, roots and multiples of them ("x_2", "m^2", "√2", "2√3", "5π"), and fractions
of these.

The text is first rewritten into one notation, so that one pattern finds every numeral.
"""

from dataclasses import dataclass
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from typing import Literal
from unicodedata import digit, normalize

import regex

from service.evaluators.text.han import write_in_digits
from service.evaluators.text.scales import SCALES, power_of_ten

EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
"""In this context, sums, differences and products of the numbers that a text can contain are exact."""

DecimalMark = Literal[".", ","]

_MOST_MARKS = 100
"""Marks between the digits of a number."""
_TAILS = (4_000, 64_000)
_MARGIN = 1_000
"""The last number is mostly near the end, so the end is read first. A number close to the cut may itself be cut."""

_SPACES = "\\ \u00a0\u202f\u2009\u2007"
_DECIMAL_MARKS = ".,٫"
_MARKS = ".,'\u2019٫٬ \u00a0\u202f\u2009\u2007"
_FRACTION = "\u2044"
_PLUS = "\u2064"  # invisible plus: between the whole part and the fraction of "2½"

_MINUS = (
    r"[Mm]inus|[Nn]egative|mínus|miinus|минус|мінус|eksi|âm|سالب|منفی|माइनस|ลบ|마이너스|영하|负|負|零下|マイナス|氷点下"
    r"|(?<!\b(?:a|al|ao|au|de|du|lo|o|ou|pelo)\s)(?:moins|menos|meno)\b"
)
"""Words for a minus, except those in phrases for "at least", such as "au moins"."""
_UNITS = (
    r"[numkMGTcdhµμ]?(?:m|g|s|mol|l|L|Hz|N|Pa|J|W|Wh|V|A|Ω|F|eV|cal|bar|bit|B)|km/h|min|h|d|ft|yd|oz|lbs?|mi|mph|kph|rpm"
    r"|dB|px|pt|em|ha|t|kt|ppm|fps|[KMGT]iB|kgs|secs?|mins|hrs?|yrs?|wks?|[ap]m|[AP]M"
    r"|USD|EUR|GBP|JPY|CNY|RMB|INR|KRW|CHF|kr|zł|Kč|Ft|TL|đ|грн|лв|руб|р|кг|г|мг|км|м|см|мм|л|мл|ч|мин|с|т"
)
# Digits must not follow a letter or a digit, a mark inside a number, or the sign of an exponent, a root or an index.
_BEFORE = (
    r"(?<![\p{Lu}\p{Ll}\p{Lt}\p{N}]) (?<!\p{N}[.,'\u2019]) (?<!\^) (?<!\^\{) (?<!√)"
    r" (?<![\p{L}\p{N})\}]_) (?<![\p{L}\p{N})\}]_\{)"
)
_UNIT = rf"(?: {_UNITS} ) [²³]? (?! [\p{{Lu}}\p{{Ll}}\p{{Lt}}\p{{N}}] )"
_POWER = r"\^ \{? (?P<power> [+-]?\d{1,4}+ ) \}? | (?P<raised> [⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,4}+ )"
_NUMERAL = regex.compile(
    rf"""
    (?P<sign> (?<! [\p{{Lu}}\p{{Ll}}\p{{Lt}}\p{{Arabic}}\p{{Hebrew}}\p{{N}})\]+-] ) [+-]
      | (?<= [=≈]\s? ) -\s | (?<! [\p{{N}})]\s? ) (?<! [\p{{Lu}}\p{{Ll}}] ) (?: {_MINUS} ) \s? )?
    (?: (?P<currency> \p{{Sc}} | (?<!\p{{L}}) (?: Rs\.? | USD | EUR | GBP | INR | CHF | (?:US|HK|NT|R|A|C)\$ ) )
      | {_BEFORE} )
    (?: (?P<whole> \d++ ) {_PLUS} )?
    (?P<digits> (?: (?<! [\p{{L}}\p{{N}}.] ) \. )? \d++ (?: [.,'\u2019٫٬{_SPACES}] \d++ )*+ )
    (?: {_FRACTION} (?P<divisor> \d++ ) )?
    (?: [eE] (?P<exponent> [+-]?\d{{1,4}} )
      | (?P<ten> (?<= (?<!\d) 10 ) ) (?: {_POWER} )
      | \s? [×x*·⋅] \s? 10 (?: {_POWER} )
      | (?P<scales> (?(currency) m (?! [\p{{L}}\p{{N}}/²³] ) | (?!) )
          | (?: \s? (?: de\s )? {SCALES} ){{1,2}}+ )
    )?+
    (?P<ends> (?! [\p{{Lu}}\p{{Ll}}\p{{Lt}}\p{{N}}^√] ) | (?= {_UNIT} ) )?
    (?P<measured> (?= \s? (?: \p{{Sc}} | {_UNIT} ) ) )?
    """,
    regex.VERBOSE,
)
_FOREIGN_DIGIT = regex.compile(r"[^\P{Nd}0-9]")
_WIDE = {"．": ".", "，": ",", "／": "/", "＄": "$", "＋": "+", **dict.fromkeys("－−﹣‐‑", "-")}
_WIDE_MARK = regex.compile("[" + "".join(_WIDE) + "]")
_DASH_AS_MINUS = regex.compile(r"(?<![^\s(\[])(?<!\p{N}\s)–(?=\d)")
_UNDERSCORED = regex.compile(r"(?<![\p{L}\p{N}_])\d{1,3}(?:_\d{3})++(?![\p{N}_])")
_PERSIAN_DECIMALS = regex.compile(r"(?<![/۰-۹])([۰-۹]++)/([۰-۹]++)(?!/)")
_ARABIC_COMMA = regex.compile(r"(?<=\d)،(?=\d)(?=(\d{3}(?!\d))?)")
_PLAIN_FRACTION = regex.compile(
    r"(?<![\p{L}\p{N}/.,_^])(?:(?P<whole>\d{1,4})\s)?(?P<above>\d{1,4})/(?P<below>\d{1,4})(?![\p{Lu}\p{Ll}\p{Lt}\p{N}/]|[.,]\d)"
)
_VULGAR = regex.compile(r"(?:(?<=(\d))\s?)?[¼-¾⅐-⅞]")

_LATEX_MARK = regex.compile(
    r"(?<=\d)(?:\{(?P<mark>[.,])\}|(?P<mark>,)\\!|(?P<space>\\[,;:!]\s?))(?=\d)|\\(?P<mark>[$%])"
)
_LATEX_SIGN = regex.compile(r"(?P<times>\\(?:times|cdot)(?![a-zA-Z]))|\s?\\pi(?![a-zA-Z])|\^\s?\{?\s?\\circ\s?\}?")
_LATEX_FRACTION = regex.compile(
    r"(?P<mixed>(?<=\d)\s?)?\\[cdt]?frac\s?(?:\{\s?(?P<above>-?\d++(?:,\d{3})*+)\s?\}|(?P<above>\d))"
    r"\s?(?:\{\s?(?P<below>\d++(?:,\d{3})*+)\s?\}|(?P<below>\d))"
)
_ARGUMENT = r"\{(?:[^{}]|\{[^{}]*+\})*+\}"
_LATEX_TERM = regex.compile(
    rf"\s?\\(?:[cdt]?(?:frac|binom)\s?{_ARGUMENT}\s?{_ARGUMENT}|sqrt(?:\[[^\[\]]*+\])?\s?(?:{_ARGUMENT}|\d))"
)


@dataclass(frozen=True, slots=True)
class Numeral:
    """A number in a text: it equals ``value / divisor``. ``text``: how it is written."""

    text: str
    value: Decimal
    divisor: Decimal = Decimal(1)

    def is_near(self, wanted: Decimal, tolerance: Decimal) -> bool:
        """Whether the number differs from ``wanted`` by at most ``tolerance``, in exact arithmetic."""
        distance = EXACT.subtract(self.value, EXACT.multiply(wanted, self.divisor)).copy_abs()
        return distance <= EXACT.multiply(tolerance, self.divisor)


def find_last_numeral(text: str, decimal: DecimalMark | None = None, *, spaces: bool = False) -> Numeral | None:
    """The last number in a text; None if there is no number.

    decimal: the mark before decimals, if the locale is known. The other mark then separates thousands.
    spaces: whether plain spaces always separate thousands, not only before a unit or a currency ("12 345 €").

    >>> find_last_numeral("Der Preis beträgt 1.234,50 €.").value
    Decimal('1234.50')
    """
    for size in (*_TAILS, len(text)):
        found = _find_last(_rewrite(text[max(0, len(text) - size) :]), decimal, spaces)
        if size >= len(text) or (found is not None and found[0].start() > _MARGIN):
            return None if found is None else _evaluate(*found)
    return None


def _find_last(text: str, decimal: DecimalMark | None, spaces: bool) -> "tuple[regex.Match[str], _Digits] | None":
    last = None
    for match in _NUMERAL.finditer(text):
        if match["ends"] is None:
            continue
        if digits := _read_digits(match["digits"], decimal, spaces or match["measured"] is not None):
            last = match, digits
    return last


def _rewrite(text: str) -> str:
    """Write every numeral in ASCII digits, marks and signs, and fractions as "3⁄4"."""
    text = _PERSIAN_DECIMALS.sub(r"\1٫\2", text)
    text = _FOREIGN_DIGIT.sub(lambda match: str(digit(match[0])), text)
    text = _WIDE_MARK.sub(lambda match: _WIDE[match[0]], text)
    text = _DASH_AS_MINUS.sub("-", text)
    text = _UNDERSCORED.sub(lambda match: match[0].replace("_", ""), text)
    text = _ARABIC_COMMA.sub(lambda match: "٬" if match[1] else ",", text)
    if "\\" in text or "{" in text:
        text = _rewrite_latex(text)
    text = _PLAIN_FRACTION.sub(_rewrite_fraction, text)
    text = _VULGAR.sub(lambda match: (_PLUS if match[1] else "") + normalize("NFKC", match[0].strip()), text)
    return write_in_digits(text)


def _rewrite_latex(text: str) -> str:
    """Terms that are not plain numbers, such as roots, become an "x"."""
    text = _LATEX_MARK.sub(lambda match: match["mark"] or "\u2009", text)
    text = _LATEX_SIGN.sub(lambda match: "×" if match["times"] else "π" if "pi" in match[0] else "°", text)
    text = _LATEX_FRACTION.sub(
        lambda match: (
            (_PLUS if match["mixed"] is not None else "")
            + f"{match['above']}{_FRACTION}{match['below']}".replace(",", "")
        ),
        text,
    )
    return _LATEX_TERM.sub("x", text)


def _rewrite_fraction(match: "regex.Match[str]") -> str:
    whole, above, below = match.group("whole", "above", "below")
    between = _PLUS if int(above) < int(below) else " "
    return f"{whole + between if whole else ''}{above}{_FRACTION}{below}"


@dataclass(frozen=True, slots=True)
class _Digits:
    """A number in ASCII digits with at most one dot. ``first``: whether nothing was cut off before it."""

    number: str
    first: bool = True


def _evaluate(match: "regex.Match[str]", digits: _Digits) -> Numeral:
    value, divisor = Decimal(digits.number), Decimal(match["divisor"] or 1) or Decimal(1)
    if match["ten"] is not None:
        value = Decimal(1)
    if match["whole"]:
        value = EXACT.add(value, EXACT.multiply(Decimal(match["whole"]), divisor))
    raised = normalize("NFKC", match["raised"] or "0").replace("\u2212", "-")
    power = int(match["exponent"] or match["power"] or raised)
    scales = match["scales"] or ""
    power += 6 if scales == "m" else power_of_ten(scales)
    value = value.scaleb(power, EXACT)
    if digits.first and match["sign"] not in (None, "+"):
        value = value.copy_negate()
    return Numeral(match[0].strip() if digits.first else digits.number, value, divisor)


def _read_digits(digits: str, decimal: DecimalMark | None, spaced: bool) -> _Digits | None:
    """Read digits and the marks between them as a number; None for a version, a date or an address.

    Of several numbers, as in "1,2,3", the last one counts. ``spaced``: whether plain spaces may separate thousands.
    Before decimals they always may ("12 345,6").
    """
    if len(digits) - sum(map(digits.count, "0123456789")) > _MOST_MARKS:  # not a number, but perhaps a list
        member = digits[max(map(digits.rfind, _MARKS)) + 1 :]
        return None if digits[-len(member) - 1] == "." else _Digits(member, first=False)
    parts = regex.split(r"\D", digits)
    marks = regex.findall(r"\D", digits)
    spaced = spaced or any(part.startswith("0") for part in parts[1:])  # "12 000"
    if " " in marks and not spaced and marks[-1] != ",":
        last = _read_digits(digits.rpartition(" ")[2], decimal, spaced)
        return last and _Digits(last.number, first=False)
    if not marks or digits[0] == ".":
        return _Digits(digits) if len(marks) < 2 else None
    if _has_decimals(parts, marks, decimal):
        return _Digits(f"{''.join(parts[:-1])}.{parts[-1]}")
    if len(set(marks)) == 1 and _are_thousands(parts):
        return None if marks[0] == "." and _is_address(parts) else _Digits("".join(parts))
    if "." in marks and (marks.count(".") > 1 or marks[-1] != "."):
        return None
    start = max(index for index, mark in enumerate(digits) if not mark.isdecimal() and mark != ".") + 1
    return _Digits(digits[start:], first=False)


def _has_decimals(parts: list[str], marks: list[str], decimal: DecimalMark | None) -> bool:
    """Whether the last mark is a decimal mark: it differs from those before it, or it is the only one."""
    *groups, last = marks
    if last not in _DECIMAL_MARKS:
        return False
    if groups:
        return {last, "٫"}.isdisjoint(groups) and len(set(groups)) == 1 and _are_thousands(parts[:-1])
    if last != "٫" and _are_thousands(parts):  # 1.234 or 1,234
        return last == (decimal or ".")
    return True


def _are_thousands(parts: list[str]) -> bool:
    """Whether the parts are groups of a number: of three digits each, or as in India of two before the last three."""
    first, *rest = parts
    if not rest or first.startswith("0") or len(rest[-1]) != 3:
        return False
    sizes = {len(part) for part in rest[:-1]}
    return (len(first) <= 3 and sizes <= {3}) or (len(first) <= 2 and sizes == {2})


def _is_address(parts: list[str]) -> bool:
    return len(parts) == 4 and all(int(part) < 256 for part in parts)
