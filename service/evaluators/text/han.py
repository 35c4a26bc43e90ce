"""Numerals in Chinese characters, and in digits with characters of scale: "三百二十一", "3万5千", "三分之二".

Only what cannot be anything but a number is read. A single character is a number before a measure word ("三个"), or
between a word such as 是 and the end of the clause. 一 before a measure word is mostly an article. Not read are two
digits in a row ("三四个", three or four), scales after "some" ("几十"), short forms of speech ("一千二") and runs
without a digit ("千万").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import regex

_DIGITS: Mapping[str, int] = {
    **{character: value for value, character in enumerate("零一二三四五六七八九")},
    **{character: value for value, character in enumerate("〇壹贰叁肆伍陆柒捌玖")},
    "貳": 2,
    "參": 3,
    "陸": 6,
    "壱": 1,
    "弐": 2,
    "参": 3,
    "两": 2,
    "兩": 2,
}
_TENS: Mapping[str, int] = {**dict.fromkeys("十拾", 1), **dict.fromkeys("百佰백", 2), **dict.fromkeys("千仟천", 3)}
_MYRIADS: Mapping[str, int] = {**dict.fromkeys("万萬만", 4), **dict.fromkeys("亿億억", 8), **dict.fromkeys("兆조", 12)}
_ZEROS = ("零", "〇")
_TEN = ("十", "拾")
_HAN = "".join([*_DIGITS, *_TENS, *_MYRIADS])
_MEASURES = frozenset("个個只隻本块塊元岁歲枚张張条條人名位次件台颗顆杯瓶辆輛棵份套匹冊回円歳倍题題道页頁天年度")
_SOME = frozenset("几幾数數")
_NO_DIGIT_AFTER = "周週期拜初高老张張王李统統唯专專再连連乱亂其不大"

_RUN = rf"(?:\d++(?:[.,]\d++)*+|(?!千[克米瓦卡伏赫帕焦])[{_HAN}]|(?<=[만천억조])\s(?=\d))++"
_DECIMALS = rf"[点點][{''.join(_DIGITS)}]++(?![十百千刻分时時钟鐘是共])[{''.join(_MYRIADS)}]{{0,2}}+"
_NUMERAL = regex.compile(
    rf"(?<![\d.,])(?:(?P<denominator>{_RUN})\s?(?:分[之の]|분의)\s?)?"
    rf"(?P<number>(?P<whole>{_RUN})(?:(?<=[{_HAN}])(?P<decimals>{_DECIMALS}))?)(?=(?P<next>.?))"
)
_HAS_HAN = regex.compile(f"[{_HAN}]|分[之の]|분의")
_TOKEN = regex.compile(rf"\d+(?:[.,]\d+)*|[{_HAN}]")
_CLAUSE_ENDS = regex.compile(r"[\p{P}\p{S}\s]?")
_IS = "是为為得有共剩于於:：=＝"
_LONGEST = 20
"""Digits before a character of scale, and digits and scales of one numeral. Longer runs are not numbers."""


def write_in_digits(text: str) -> str:
    """Write these numerals in ASCII digits: "三百二十一" as "321", "三分之二" as "2⁄3", "百分之五" as "5%"."""
    return _NUMERAL.sub(_rewrite, text) if _HAS_HAN.search(text) else text


def _rewrite(match: "regex.Match[str]") -> str:
    numeral, denominator = match["number"], match["denominator"]
    if numeral[0] not in _DIGITS and match.string[match.start() - 1 : match.start()] in _SOME:
        return match[0]  # 几十: some tens
    if denominator is None:
        value = _read_with_decimals(match) if len(numeral) > 1 or _is_counted(match) else None
        return numeral if value is None else f"{value:f}"
    value, divisor = _read_with_decimals(match), _read_divisor(denominator)
    if value is None or divisor is None:
        return match[0]
    return f"{value:f}%" if denominator == "百" else f"{value:f}\u2044{divisor:f}"


def _read_with_decimals(match: "regex.Match[str]") -> Decimal | None:
    """Read a numeral that may have decimals, such as 三点一四 and 三点五万亿."""
    whole, decimals = _read(match["whole"]), match["decimals"]
    if whole is None or decimals is None:
        return whole
    if len(decimals) > _LONGEST:
        return None
    digits = "".join(str(_DIGITS[each]) for each in decimals if each in _DIGITS)
    return Decimal(f"{whole:f}.{digits}e{sum(_MYRIADS.get(each, 0) for each in decimals)}")


def _read_divisor(numeral: str) -> Decimal | None:
    """Read the number before 分之, which may be a scale by itself: 千分之五."""
    scale = {**_TENS, **_MYRIADS}.get(numeral)
    return _read(numeral) if scale is None else Decimal(1).scaleb(scale)


def _is_counted(match: "regex.Match[str]") -> bool:
    """Whether a single character is a number, by the characters before and after it."""
    numeral, following = match["number"], match["next"]
    before = match.string[match.start() - 1 : match.start()] or " "
    if before in _IS and _CLAUSE_ENDS.fullmatch(following):
        return True
    return following in _MEASURES and numeral not in "一壹" and before not in _NO_DIGIT_AFTER


def _read(numeral: str) -> Decimal | None:
    """The value of a numeral; None if it is not well formed.

    >>> _read("一万二千")
    Decimal('12000')
    """
    tokens = _TOKEN.findall(numeral, endpos=_LONGEST**2)
    if len(tokens) > 2 * _LONGEST or any(len(token) > _LONGEST for token in tokens):
        return None
    if len(tokens) == 1:
        return Decimal(10) if numeral in _TEN else _read_token(numeral)
    if not all(token in _DIGITS for token in tokens):
        return _add_up(tokens)
    if len(tokens) == 2 and not {*tokens} & {*_ZEROS}:
        return None  # 三四: three or four
    return Decimal("".join(str(_DIGITS[token]) for token in tokens))


def _read_token(token: str) -> Decimal | None:
    """The value of a digit, or of ASCII digits with a dot or with commas between thousands."""
    if token in _DIGITS:
        return Decimal(_DIGITS[token])
    groups = token.split(",")
    well_formed = token[0].isdecimal() and all(len(group.partition(".")[0]) == 3 for group in groups[1:])
    return Decimal("".join(groups)) if well_formed and token.count(".") < 2 else None


def _add_up(tokens: Sequence[str]) -> Decimal | None:
    """Add sections of up to 9999, each with its myriad: 二千万 and 三百.

    Scales fall within a section, and myriads from section to section.
    """
    total = _Sum(has_digits=any(token not in _TENS and token not in _MYRIADS for token in tokens))
    if not all(map(total.take, tokens)):
        return None
    if total.number is not None and tokens[-1] in _DIGITS and tokens[-2] not in (*_TEN, *_ZEROS):
        return None  # 一千二: in speech mostly 1200
    return total.above + total.section + (total.number or 0)


@dataclass(slots=True)
class _Sum:
    """What the tokens up to a place add up to: ``above + section + number``.

    ``above``: the sections that have their myriad. ``section``: the one being read. ``number``: a digit whose scale has
    not come yet. ``scale`` and ``myriad``: the powers of ten that the next ones must be below.
    """

    has_digits: bool
    above: Decimal = Decimal(0)
    section: Decimal = Decimal(0)
    number: Decimal | None = None
    scale: int = 4
    myriad: int = 16
    is_empty: bool = True

    def take(self, token: str) -> bool:
        """Add a token. False if it cannot follow those before it."""
        if token in _TENS:
            fits = self._take_ten(token)
        elif token in _MYRIADS:
            fits = self._take_myriad(_MYRIADS[token])
        else:
            fits = self._take_digit(token)
        self.is_empty = False
        return fits

    def _take_ten(self, token: str) -> bool:
        """十, 百 or 千. Only 十 needs no digit before it, unless the numeral begins here and has one later."""
        is_bare = self.number is None and token not in _TEN
        if _TENS[token] >= self.scale or (is_bare and not (self.is_empty and self.has_digits)):
            return False
        self.scale = _TENS[token]
        self.section += (Decimal(1) if self.number is None else self.number).scaleb(self.scale)
        self.number = None
        return True

    def _take_myriad(self, power: int) -> bool:
        """万, 亿 or 兆: it multiplies the section, or in 万亿 all that was read so far."""
        section = self.section + (self.number or 0)
        if power > self.myriad and self.above + section < Decimal(1).scaleb(power):
            self.above = (self.above + section).scaleb(power)
        elif section and power < self.myriad:
            self.above += section.scaleb(power)
        else:
            return False
        self.section, self.number = Decimal(0), None
        self.scale, self.myriad = 4, power
        return True

    def _take_digit(self, token: str) -> bool:
        """A zero only fills a place."""
        if self.number is not None:
            return False
        if token not in _ZEROS:
            self.number = _read_token(token)
        return token in _ZEROS or self.number is not None
