"""The terminals of a grammar: words, words that end a sentence, keywords, gaps.

No terminal holds white space between letters, so that keywords and words always end at the same places: llguidance
reads the longest lexeme, and one that went on into the next word would hide the others. Gaps come behind words
(folding.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import regex

from service.constraints.alphabet import (
    CAPITALS,
    CASELESS,
    DIGITS,
    IN_WORDS,
    LETTERS,
    LOOSE,
    MARKS,
    SCRIPTS,
    WITH_CAPITALS,
    WITH_SMALLS,
    literal,
    matches,
    members,
    only,
)

STOPS = ".!?"
LONGEST_WORD = 24
"""Letters of a part of a word, so that a model cannot go on in one for ever."""
SHORTEST_STEM = 4
"""Letters of an excluded word from which on no other word may begin with it."""
_VARIANTS = {"i": "iIİı", "I": "iIİı", "е": "еЕёЁ", "ё": "еЕёЁ", "ی": "یي", "ي": "یي", "ک": "کك", "ك": "کك"}
_JOINS = {"'": "['’ʼ]", "’": "['’ʼ]", "-": "[-‐‑]"}
_ANY = "(?s:.*)"
_NOTHING = r"[^\u0000-\U0010ffff]"
_ONE_SCRIPT = "|".join(f"{script}+" for script in SCRIPTS)
_LETTER_OR_DIGIT = r"[\p{L}\p{N}]"
_OPENING, _CLOSING, _QUOTING = '(“‘"', ")\"'”’,:", ")\"'”’"
_ALTERNATE = (*range(0x41, 0x5B), *range(0x61, 0x7B), *range(0x410, 0x450))
"""Latin and Cyrillic letters, whose small and large forms are both even or both odd."""


@dataclass(frozen=True, slots=True)
class Lexicon:
    """How words are written under the demands on characters and words.

    strict: whether every verifier counts and compares the words in the same way.
    endings: whether a stop certainly ends a sentence; ``avoided`` are the abbreviations after which it does not.
    removed: characters that may not appear. case: of all letters. quoted: whether double quotation marks are taken.
    excluded: words that may not appear, each with whether case matters. stems: those that take all with them that begin
        alike. Under "failed" without "faileding", a model cannot begin the word, instead of having to go on inside it.
    small_words: whether every word needs a small letter, so that words in capitals can be counted.
    """

    strict: bool = False
    endings: bool = False
    avoided: frozenset[str] = frozenset()
    removed: str = ""
    case: Literal["lower", "upper"] | None = None
    quoted: bool = False
    excluded: tuple[tuple[str, bool], ...] = ()
    stems: frozenset[str] = frozenset()
    small_words: bool = False

    def set_of(self, base: str) -> str:
        """A set of characters, without those that may not appear."""
        cased = {"lower": WITH_CAPITALS, "upper": WITH_SMALLS, None: ""}[self.case]
        return only(base, members(sorted({*self.removed, *('"' if self.quoted else "")})), cased)

    def has(self, character: str) -> bool:
        """Whether a mark, such as a comma, may appear."""
        return character not in self.removed and not (self.quoted and character == '"')

    def kept(self, marks: str) -> str:
        """Those of the marks that may appear, as a set; one that matches nothing if none may."""
        found = "".join(filter(self.has, marks))
        return f"[{members(found)}]" if found else _NOTHING

    @property
    def can_stop(self) -> bool:
        """Whether any stop may appear."""
        return any(map(self.has, STOPS))

    @property
    def lacks_letters(self) -> bool:
        """Whether some letter may not appear, whatever its case."""
        return any(map(str.isalpha, self.removed))

    @property
    def stops(self) -> str:
        """The stops that may end a sentence before another."""
        return "".join(filter(self.has, "." if self.endings and self.case == "lower" else STOPS))

    @property
    def start(self) -> str:
        """The set of letters that show where a sentence begins; "" if that does not matter."""
        if not self.endings:
            return ""
        return self.set_of(f"[{LETTERS}]" if self.case == "lower" else f"[{CAPITALS}{CASELESS}]")

    # words

    def terminals(self) -> Mapping[str, str]:
        """The terminals of all words.

        WORD and STOP: a word without a stop and with one. FIRST and ONLY: the same at the beginning of a sentence.
        LAST: a word with a stop at the end of the text. The others are parts of these. Large sets have names of their
        own, so that each is written once.
        """
        if not self.strict:
            stop = f"/{self._loose_stop}/"
            word = f"/{self.set_of(LOOSE)}+/ & ~{stop}"
            return {"WORD": word, "STOP": stop, "LAST": stop, "FIRST": word, "ONLY": stop}
        digit, point = self.set_of(DIGITS), self.kept(".,:")
        numbers = "" if any(word.isdigit() for word, _ in self.excluded) else " | NUMERAL"
        found = {
            "HEAD": f"/{self.set_of(f'[{LETTERS}{DIGITS}]')}/",
            "INNER": f"/{self._character}/",
            "PART": self._part(),
            "NUMERAL": f"/{digit}+(?:{point}{digit}+){{1,2}}/",
            "CORE": f"PART {self._more}{numbers}",
            "WORD": f"/{self._open}/ CORE /{self._close}/",
            "LAST": f"/{self._open}/ CORE /{self._stopped}/",
        }
        if self.excluded:
            found["EXCLUDED"] = f"/{self._excluded_words}/"
        if not self.endings:
            return {**found, "STOP": found["LAST"], "FIRST": found["WORD"], "ONLY": found["LAST"]}
        shortest = 4 if self.case == "lower" else 2
        return {
            **found,
            "START": f"/{self.start}/",
            "BEGIN": self._part("START"),
            "FIRST": f"BEGIN {self._more} /{self._close}/",
            "LETTER": f"/{self.set_of(f'[{LETTERS}]')}/",
            "MARKED": f"/{self.set_of(f'[{LETTERS}{MARKS}]')}/",
            "SHORT": self._abbreviations(shortest),
            "SHORT_WHOLE": self._abbreviations(4),
            "STEM": self._stem("LETTER", shortest=shortest),
            "STOP": f"(PART /{self.kept('-')}/)? ({self._certain_stop('STEM', 'SHORT')})",
            "WHOLE": f"{self._stem('START', shortest=4)} & ~/[ivxIVX]+/",
            "ONLY": self._certain_stop("WHOLE", "SHORT_WHOLE"),
        }

    @property
    def word_pattern(self) -> str:
        """A word of the strict kind, as one regular expression. It may be an excluded one."""
        return f"{self._open}{self._core_pattern}{self._close}"

    @property
    def stop_pattern(self) -> str:
        """A word with a stop, as one regular expression."""
        return f"{self._open}{self._core_pattern}{self._stopped}" if self.strict else self._loose_stop

    @property
    def _core_pattern(self) -> str:
        part = f"{self.set_of(f'[{LETTERS}{DIGITS}]')}{self._character}*"
        digit = self.set_of(DIGITS)
        return rf"(?:{part}(?:{self.kept(_JOINING)}{part}){{0,3}}|{digit}+(?:{self.kept('.,:')}{digit}+){{1,2}})"

    @property
    def _character(self) -> str:
        return self.set_of(f"[{LETTERS}{MARKS}{DIGITS}]")

    @property
    def _more(self) -> str:
        return f"(/{self.kept(_JOINING)}/ PART){{0,3}}"

    @property
    def _open(self) -> str:
        return f"{self.kept(_OPENING)}?"

    @property
    def _close(self) -> str:
        return f"{self.kept(_CLOSING if self.endings else _CLOSING + ';')}{{0,2}}"

    @property
    def _stopped(self) -> str:
        close = self.kept(_QUOTING)
        return f"{close}?{self.kept(STOPS)}{{1,2}}{close}?"

    @property
    def _loose_stop(self) -> str:
        ends, close = self.kept(".!?…。！？"), self.kept(")]*_`\"'”’」』")
        return f"{self.set_of(LOOSE)}*{ends}{close}{{0,3}}"

    def _part(self, first: str = "HEAD") -> str:
        """A part of a word: letters and digits without joins. ``first``: the terminal of its first letter."""
        found = f"{first} INNER{{0,{LONGEST_WORD}}}"
        if self.excluded or self.small_words:
            found = f"({found}) & /{_ONE_SCRIPT}/"
        if self.small_words:
            small = self.set_of(r"[\p{Ll}]")
            number = f"|{self.set_of(DIGITS)}+" if first == "HEAD" else ""
            found += f" & /{self._character}*{small}{self._character}*{number}/"
        return f"({found} & ~EXCLUDED)" if self.excluded else f"({found})"

    @property
    def _excluded_words(self) -> str:
        plain = [(word, spell(word, cased=cased)) for word, cased in self.excluded if not _is_hangul(word)]
        whole = [spelt for word, spelt in plain if word not in self.stems]
        stems = "|".join(spelt for word, spelt in plain if word in self.stems)
        if stems:
            whole.append(f"(?:{stems}){self._character}*")
        inside = [f"{_ANY}{literal(word)}{_ANY}" for word, _ in self.excluded if _is_hangul(word)]
        return "|".join((*whole, *inside))

    def _stem(self, first: str, *, shortest: int) -> str:
        """The letters before a stop that certainly ends a sentence. ``first``: the terminal of the first of them.

        They are no number, because a whole sentence must not be that of a list item.
        """
        parts = [f"({first} {'MARKED ' * (shortest - 1)}MARKED*)", "~/[IVXLC]+/"]
        if self.case == "lower":
            parts.append(f"/{_ANY}[aeiou]{_ANY}/")
        if self.small_words:
            parts.append(rf"/{_ANY}\p{{Ll}}{_ANY}/")
        if self.excluded or self.small_words:
            parts.append(f"/{_ONE_SCRIPT}/")
        if self.excluded:
            parts.append("~EXCLUDED")
        return " & ".join(parts)

    def _abbreviations(self, shortest: int) -> str:
        words = sorted(word for word in self.avoided if len(word) >= shortest and word.isalpha())
        return f"/(?i:{'|'.join(map(literal, words))})/" if words else f"/{_NOTHING}/"

    def _certain_stop(self, stem: str, short: str) -> str:
        """A stem with a stop. ``short``: what it may not be before a full stop."""
        marks = "".join(mark for mark in self.stops if mark != ".")
        options = [f"{stem} /{self.kept(marks)}/"] if marks else []
        if "." in self.stops:
            options.append(f'({stem} & ~{short}) "."')
        return " | ".join(options)

    # words of a certain kind

    def final(self, mark: str, *, first: bool) -> str:
        """The last word of a text that ends with a certain mark. ``first``: it is a whole sentence."""
        if not self.strict:
            return f"/{self.set_of(LOOSE)}*{self.set_of(_LETTER_OR_DIGIT)}{literal(mark)}/"
        if first and self.endings:
            return f"BEGIN {self._more} /{literal(mark)}/"
        return f"/{self._open}/ CORE /{literal(mark)}/"

    def slot(self, form: str, *, long: bool, stop: bool = False) -> str:
        """A word of a form that is counted. ``long``: it may be several words. ``stop``: a stop follows."""
        after = self.kept(self.stops or STOPS) if stop else f"{self.kept(',)')}?"
        if form == "capitals":
            free = " & ~EXCLUDED" if self.excluded else ""
            return f"(/{self.set_of(CAPITALS)}{{2,12}}/{free}) /{after}/"
        left, right = {"highlights": (r"\*", r"\*"), "placeholders": (r"\[", r"\]")}[form]
        more = '(" " PART){0,4} ' if long else ""
        return f"/{left}/ PART {more}/{right}{after}/"

    def item_word(self, avoided: frozenset[str], *, numbered: bool = False) -> str:
        """The first word of an item or a section. ``numbered``: nor is it an avoided one with a number behind it."""
        start = self.start or self.set_of(f"[{LETTERS}]")
        words = "|".join(sorted(literal(word) for word in avoided))
        behind = rf"(?:[\p{{N}}IVX]{_ANY})?" if numbered else ""
        found = f"/{start}{self._character}*/"
        found += f" & ~/(?i:{words}){behind}/" if words else ""
        found += " & ~EXCLUDED" if self.excluded else ""
        return rf"{found} & /{_ANY}\p{{Ll}}{_ANY}/" if self.small_words else found

    def half_word(self, number: int) -> str:
        """The first word of one of two parts, whose first letters are from different halves of the alphabet."""
        half = self.set_of(f"[{members(chr(code) for code in _ALTERNATE if code % 2 == number % 2)}]")
        return f"{self._part(f'/{half}/')} /{self._close}/"

    def title_word(self) -> str:
        return "PART" if self.strict else f"/{only(self.set_of(LOOSE), '<>')}+/"

    def keyword(self, word: str, *, cased: bool, capital: bool = False, last: bool = True, stop: bool = False) -> str:
        """One word of a keyword. ``last``: marks may follow it. ``stop``: a stop does. ``capital``: it begins large."""
        first = {word[:1], word[:1].upper()} if not cased else {word[:1]}
        if capital:
            first = {word[:1].upper()}
        form = f"[{members(sorted(each for each in first if len(each) == 1))}]{literal(word[1:])}"
        if self.case is not None:
            form = literal(word.lower() if self.case == "lower" else word.upper())
        if stop:
            return f"/{form}{self.kept(self.stops or STOPS)}/"
        return f"/{form}{self._close}/" if last else f"/{form}/"

    def fixed(self, word: str) -> str:
        """A word as it is, with marks after it."""
        return f"/{literal(word)}{self._close}/"

    # gaps

    def newline(self) -> str:
        """Line ends where lines are not counted, with the bullets of a list."""
        return r"/\n{1,2}/" if self.endings or not self.has("-") else r"/\n{1,2}(?:- )?/"


_JOINING = "'’-/"


def spell(word: str, *, cased: bool) -> str:
    """All ways to write a word that verifiers might take for it."""
    if cased:
        return "".join(_JOINS.get(each, literal(each)) for each in word)
    shapes = "".join(
        _JOINS[each] if each in _JOINS else f"[{members(_VARIANTS[each])}]" if each in _VARIANTS else literal(each)
        for each in word
    )
    return f"(?i:{shapes.replace('ss', '(?:ss|ß|ẞ)')})"


def is_plain_word(word: str) -> bool:
    """Whether a keyword has nothing but letters of ``LETTERS``, digits, and single joins between them."""
    part = f"[{LETTERS}{DIGITS}][{LETTERS}{MARKS}{DIGITS}]*"
    return regex.fullmatch(f"(?V1){part}(?:['’-]{part})*", word) is not None


def has_clear_ends(phrase: str) -> bool:
    """Whether all letters of a phrase are from scripts whose words end at other characters and nowhere else."""
    return matches(f"[{IN_WORDS}\\s\\p{{P}}]*", phrase)


def exclude_from_text(words: Sequence[tuple[str, bool]]) -> str:
    """A regular expression of all texts that have one of the words, each with whether case matters. Where ends of words
    are in doubt, there are more of them than verifiers see."""
    any_text, apart = r"(?s:.*)", f"[^{IN_WORDS}]"
    whole = "|".join(spell(word, cased=cased) for word, cased in words if len(word) < SHORTEST_STEM)
    stems = "|".join(spell(word, cased=cased) for word, cased in words if len(word) >= SHORTEST_STEM)
    options = [f"(?:{whole})(?:{apart}{any_text})?"] if whole else []
    options += [f"(?:{stems}){any_text}"] if stems else []
    return f"(?:{any_text}{apart})?(?:{'|'.join(options)})"


def can_begin_sentences(word: str, *, cased: bool) -> bool:
    """Whether a keyword may be written with a first letter that shows the beginning of a sentence."""
    first = word[:1]
    if not first.isalpha() or len(first.upper()) != 1:
        return False
    return first.isupper() or first.lower() == first.upper() or not cased


def ends_certainly(lexicon: Lexicon, word: str, *, shortest: int = 4) -> bool:
    """Whether a sentence that ends with this word and a stop is one for every reader."""
    letters = word.lower()
    plain = len(word) >= shortest and word.isalpha() and not word[1:].isupper()
    return plain and letters not in lexicon.avoided and any(each in "aeiou" or not each.isascii() for each in letters)


def quote(text: str) -> str:
    """A text as a string of Lark."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _is_hangul(word: str) -> bool:
    return any("\uac00" <= each <= "\ud7a3" for each in word)
