"""Counts the sentences of a text.

The stops are Unicode's (its property Sentence_Terminal, and the Tibetan shad). They end a sentence by the rules of
UAX #29, "Sentence Boundaries", with these changes:

1. A sentence goes on if a comma or another stop follows the stop, if text follows the closing quotation mark without a
   space (母は「早く寝なさい。」と言った。), or if a small letter follows after a space (“Stop!” he said).
2. A stop within 《》 or 〈〉, which enclose titles, does not end a sentence.
3. A full stop ends a sentence even before a small letter. A question or an exclamation mark does so only in a text
   whose sentences do not begin with capital letters. An ellipsis never does.
4. The full stop of an abbreviation, an initial, an ordinal number or the number of a list item does not end a sentence.
   Some that are not followed by a name do, before a common word with a capital letter: "in the U.S. He left."
5. An ASCII stop between two ASCII characters does not end a sentence: "example.com?a=b".

The end of a paragraph ends a sentence too. Thai and Lao have no stops, so each of their paragraphs is one sentence,
unless it uses foreign ones.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Literal
from unicodedata import normalize

import regex

from service.evaluators.text.classes import Classes, signs
from service.evaluators.text.languages import Vocabulary, find_vocabulary
from service.evaluators.text.words import paragraphs

_CLASSES = Classes(
    regex.compile(r"""(?xV1)
    (?<full>[.．﹒\u2024]) | (?<ellipsis>[…⋯]) | (?<question>[;\u037e]) | (?<mark>[!?！？؟])
    | (?<comma>[,:、，；：،؛·\u104a])  # the last: Burmese
    | (?<stop>[\p{STerm}\u0f0d-\u0f11])
    | (?<title>[《〈]) | (?<titled>[》〉]) | (?<guillemet>[»›]) | (?<closing>[[\p{Pf}」』〞〟]]) | (?<quotation>["'])
    | (?<pointing>[\p{Pi}„‚]) | (?<left>\[) | (?<right>\]) | (?<bracket>\p{Pe}) | (?<opening>[\p{Ps}¿¡])
    | (?<emphasis>[*_`~]) | (?<note>[\^\u00b9\u00b2\u00b3\u2070-\u2079]) | (?<bullet>[\#>+•◦‣▪●]) | (?<dash>\p{Pd})
    | (?<combining>\p{M}(?<!\ufe0f)|[\uff9e\uff9f])
    | (?<small_greek>[\p{Greek}&&\p{Ll}]) | (?<capital_greek>[\p{Greek}&&\p{Lu}])
    | (?<unspaced>[[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]&&[\p{L}\p{N}]])
    | (?<small>[\p{Ll}--\p{Georgian}]) | (?<capital>[\p{Lu}\p{Lt}]) | (?<caseless>[[\p{L}°]--\p{DI}])
    | (?<digit>\p{N})
    | (?<emoji>[\p{Extended_Pictographic}\p{RI}\p{Emoji_Modifier}\ufe0f\u200d])
    | (?<newline>[\n\r\x85\u2028\u2029]) | (?<space>[\s\u200b])
    """),
    {
        "full": ".", "ellipsis": "e", "question": ";", "mark": "!", "comma": ",", "stop": "s",
        "title": "<", "titled": ">", "guillemet": "f", "closing": "q", "quotation": '"', "pointing": "p",
        "left": "[", "right": "]", "bracket": ")", "opening": "(", "emphasis": "*", "note": "^", "bullet": "b",
        "dash": "-", "small_greek": "g", "capital_greek": "G", "unspaced": "u", "small": "a", "capital": "A",
        "caseless": "c", "digit": "0", "combining": "m", "emoji": "E", "newline": "n", "space": " ", None: "x",
    },
)  # fmt: skip
_NOTE = r"(?:\^0{1,3}\^|[*^E]| ?\[(?:0{1,3}(?:[, -]{1,2}0{1,3}){0,9}|\^[0aAc-]{1,20})\]| E| ,-?[)(](?=[ n]|$))*+"
"""What may follow a stop: emphasis, footnote marks such as [1], [2, 3], [^4] and ^5^, emoji, " :)"."""
_STOP = re.compile(
    rf"<[^<>]*+>"
    rf"|(?P<stop>[.!se]++(?: [.!se]++)*+|(?<=[gG]);)"
    rf"{_NOTE}(?P<closing>(?:[)\]>q\"]|p(?![aAgGcu0])| ?f(?![aAgGcu0]))*+){_NOTE}"
    rf"(?P<gap>[ n]*+)(?P<more>[,;)\]>q]|f(?![aAgGcu0])|(?=[.!se]))?(?P<opening>[(\[<p\"f*b\- n]{{0,20}}+)"
)
_QUOTATION = re.compile('["pqf]')
_OPENS = re.compile('[(<p"f]')
_WORD = re.compile("[aAgGcum]{1,20}+")
_CONTENT = re.compile("[aAgGcu0]")
_TOKEN = frozenset("aAgGcum0.")
_SPACED_TOKEN = _TOKEN - {"u"}
_TOKEN_LENGTH = 30
_LIST_ITEM = re.compile(r"(?:[-*+•–◦‣▪●]|[(（]?\d{1,3}[.)、．）])\s")
_SPEECH = re.compile("[^。！？!?:：“”「」『』]{1,20}[:：] ?[“「『]")
_SUBJECT = regex.compile(
    r"""(?xV1)
    我|你|您|他|她|它|咱|大家|这|這|那|于是|於是|突然|忽然
    | (?: मैंने|मैं|हमने|हम|तुमने|तुम|आपने|आप|उसने|वह|वे|उन्होंने|यह | من|تو|او|ما|شما|آنها|آن\u200cها|ایشان
        | میں|ہم|وہ|اس\ نے | 나는|내가|저는|제가|그는|그녀는|우리는 ) (?![\p{L}\p{M}])
    """
)
"""Words that begin a new sentence after a quotation whose speaker was named before it."""
_PAIRS = {"”": "“", "“": "„", "»": "«", "」": "「", "』": "『", '"': '"'}
_QUOTATION_LENGTH = 500
_TAG_LENGTH = 60
_PARTICLE = regex.compile(
    r"を|[のはにもへ](?=[\p{Han}\p{Katakana}\p{L}\d、--\p{Hiragana}])|[がとでや](?=[\p{Han}\p{Katakana}\p{Latin}\d])",
    regex.V1,
)
"""Japanese particles, where the next character shows that they do not begin a word."""
_NUMBERING = re.compile(r"[\s\"'“(（\[【#>*_+•–-]{0,8}(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,5}|[一二三四五六七八九十]{1,3})")
_LABEL = regex.compile(r"[\s\"'“(\[#>*_]{0,8}(\p{L}{2,15}+)(\.?+) \d{1,3}")
_NUMBERING_LENGTH = 13
_LABEL_LENGTH = 28
_CAPITAL_START = regex.compile(r"(?m)(?:^|[.!?…]\W{0,3}\s)[^\w\n]{0,5}\p{Lu}")
_VOWEL_SIGNS = r"[\p{Devanagari}\p{Bengali}\p{Gurmukhi}\p{Gujarati}]"
_INITIALS = regex.compile(
    rf"""(?xV1) (?:
        [\p{{L}}--[\p{{Hangul}}\p{{Han}}\p{{Hiragana}}\p{{Katakana}}\p{{Thai}}\p{{Lao}}]]
        [\p{{M}}--{_VOWEL_SIGNS}]{{0,4}}+ \.
    )++ | (?: [ก-ฮກ-ຮ]{{1,3}} \. )++"""
)
"""Single letters, without vowel signs, which would make words of them: "है." ends a sentence. In Thai, consonants."""
_DATE = re.compile(r"\d{4}\. ?\d{1,2}\. ?\d{1,2}")
"""With a full stop after it, as in Korean and Hungarian."""
_DATE_LENGTH = 12
_CONSONANTS = re.compile("[B-DF-HJ-NP-TV-XZ]?[b-df-hj-np-tv-xz]+")
_ROMAN = re.compile("[IVXLC]{2,}")

_Abbreviation = Literal["before a name", "before a number", "number", "closing", "other"]


def count_sentences(text: str) -> int:
    """Count the pieces with a letter or a digit that end at a stop or with the paragraph, by the rules above.

    >>> count_sentences("Dr. Wu asked: “Is it true?” He said so on p. 5.")
    2
    """
    reader = _Reader(text)
    return sum(len(reader.ends(paragraph)) for paragraph in paragraphs(text))


def sentence_ends(text: str) -> list[int]:
    """The places in a text after the stop of a sentence and its closing marks, and after the last word of a paragraph.

    >>> sentence_ends("Dr. Wu left. He came")
    [12, 20]
    """
    reader = _Reader(text)
    ends, start = [], 0
    for paragraph in paragraphs(text):
        found = text.find(paragraph, start)
        if found >= 0:  # it may have had other line ends
            ends += [found + end for end in reader.ends(paragraph)]
            start = found + len(paragraph)
    return ends


class _Reader:
    """Reads one text. The language and the habits of its author are determined only if they matter."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._table = _CLASSES.table(text)
        self._kinds: dict[str, _Abbreviation | None] = {}

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return find_vocabulary(self._text)

    @cached_property
    def _has_small_beginnings(self) -> bool:
        return _CAPITAL_START.search(self._text) is None

    def ends(self, paragraph: str) -> list[int]:
        """Where the sentences of a paragraph end, after their closing marks."""
        classes = signs(paragraph, self._table)
        ends: list[int] = []
        start = 0
        for match in _STOP.finditer(classes):
            at, end = match.start("stop"), match.end("gap")
            if at < 0 or match["more"] is not None:  # a title, or the sentence goes on
                continue
            if end == len(classes) or self._is_end(_Stop(paragraph, classes, start, match)):
                if _CONTENT.search(classes, start, at):
                    ends.append(match.start("gap"))
                start = end
        if _CONTENT.search(classes, start):
            ends.append(len(paragraph.rstrip()))
        return ends

    def _is_end(self, stop: "_Stop") -> bool:
        if stop.kind == "s" and not stop.closing:
            return not stop.is_before_particle()
        if stop.kind == "." and not stop.closing and (stop.is_numbering() or self._is_label(stop)):
            return False
        if stop.gap == "":
            return self._is_unspaced_end(stop)
        if "n" in stop.gap and stop.is_before_list_item():
            return True
        if stop.kind == "." and not stop.closing:
            return self._is_full_stop_end(stop)
        if stop.following in ("a", "g"):
            return stop.kind != "e" and not stop.closing and not stop.opening and self._has_small_beginnings
        if stop.following in ("c", "u"):
            if stop.kind == "e" and ")" in stop.closing:
                return False
            if stop.kind == "!" and _QUOTATION.search(stop.closing):
                return stop.is_before_another()
        return not (stop.kind == "!" and _QUOTATION.search(stop.closing) and self._is_before_tag(stop))

    def _is_label(self, stop: "_Stop") -> bool:
        """Whether it ends a label: "Step 1.", "Fig. 2."."""
        word, full_stop = stop.label() or ("", "")
        language, name = self._vocabulary, word.lower()
        if not full_stop:
            return name in language.labels
        return bool({word, name} & (language.abbreviations | language.numbered))

    def _is_before_tag(self, stop: "_Stop") -> bool:
        """Whether the speaker of a quotation follows: “Stop!” Mary shouted."""
        first, *words = stop.words() or [""]
        if not self._vocabulary.speech or (first != "I" and self._is_common(first)):
            return False
        for word in words:
            if word.rstrip(".,:;") in self._vocabulary.speech:
                return True
            if not word[-1].isalnum():
                return False
        return False

    def _is_unspaced_end(self, stop: "_Stop") -> bool:
        """Whether a stop ends a sentence without a space after it and its closing marks."""
        if stop.closing:
            return stop.is_in_brackets() or stop.is_before_another()
        if stop.kind == "e":
            return False
        if stop.kind != ".":
            return not stop.is_amid_ascii()
        if "0" == stop.before == stop.following:
            return False
        unspaced = "u" in (stop.before, stop.following) or stop.is_wide()
        return unspaced and self._abbreviation(stop) is None

    def _is_full_stop_end(self, stop: "_Stop") -> bool:
        """Whether a single full stop ends a sentence before a space."""
        small = stop.following in ("a", "g")
        if small and stop.before == "0" and "." in stop.token():  # "Sections 1.2. and 1.3."
            return False
        if stop.is_after_date():
            return stop.following in ("A", "G")
        if stop.token() in self._vocabulary.measures and stop.is_after_number():
            return stop.following in ("A", "G")
        abbreviation = self._abbreviation(stop)
        if abbreviation is None:
            return not small or ("-" not in stop.opening and not _CONSONANTS.fullmatch(stop.token()))
        if abbreviation == "before a name":
            return False
        if abbreviation == "number":
            return not self._is_ordinal(stop, small)
        if abbreviation == "before a number":
            return stop.following != "0" and not small
        if stop.following not in ("A", "G") or stop.is_before_initial():
            return False
        return abbreviation == "closing" or self._is_common(stop.word())

    def _abbreviation(self, stop: "_Stop") -> _Abbreviation | None:
        """The kind of abbreviation before a full stop; None if it is a plain word."""
        token = stop.token()
        if token not in self._kinds:
            self._kinds[token] = self._classify(token)
        return self._kinds[token]

    def _classify(self, token: str) -> _Abbreviation | None:
        if token.isdecimal() or _ROMAN.fullmatch(token):
            return "number"
        if token in self._vocabulary.letters:
            return None
        forms = {token, token[:1].lower() + token[1:]}
        if forms & self._vocabulary.titles:
            return "before a name"
        if forms & self._vocabulary.numbered:
            return "before a number"
        if forms & self._vocabulary.closings:
            return "closing"
        return "other" if forms & self._vocabulary.abbreviations or _INITIALS.fullmatch(f"{token}.") else None

    def _is_common(self, word: str) -> bool:
        return word.lower() in self._vocabulary.common

    def _is_ordinal(self, stop: "_Stop", small: bool) -> bool:
        """Whether the number before a full stop is an ordinal, by the words around it."""
        ordinals, word = self._vocabulary.ordinals, stop.word()
        if word in ordinals:
            return True
        if not ordinals or (not small and self._is_common(word)):
            return False
        return small or stop.following == "0" or stop.word_before().lower() in ordinals


class _Stop:
    """A stop, or several in a row, and the text around it.

    kind: "." for a single full stop, "e" for an ellipsis, "!" for a question or an exclamation mark, else "s".
    closing, gap, opening: the classes of the closing marks, the white space and the opening marks after it.
    before, following: the classes of the character before it, and of the first one after all these marks.
    """

    def __init__(self, paragraph: str, classes: str, start: int, match: re.Match[str]) -> None:
        self._paragraph, self._classes, self._start = paragraph, classes, start
        stop, self.closing, self.gap, _, self.opening = match.groups()
        self._at, self._end, self._word = match.start("stop"), match.end("stop"), match.end()
        self.before, self.following = classes[self._at - 1 : self._at], classes[self._word : self._word + 1]
        if stop == ".":
            self.kind = "."
        elif stop.strip(".e "):
            self.kind = "s" if stop[-1] == "s" else "!"
        else:
            self.kind = "e"

    def is_wide(self) -> bool:
        return self._paragraph.startswith("．", self._at)

    def is_amid_ascii(self) -> bool:
        """Whether it and the characters on both sides are ASCII, the second without combining marks."""
        near = self._paragraph[max(0, self._at - 1) : self._end] + self._paragraph[self._word : self._word + 1]
        return near.isascii() and not self._classes.startswith("m", self._word + 1)

    def token(self) -> str:
        """The word before it, with its inner full stops; "" if that is part of an address or the like."""
        at, least = self._at, max(self._start, self._at - _TOKEN_LENGTH)
        allowed = _TOKEN if self.before in ("u", "m") else _SPACED_TOKEN
        while at > least and self._classes[at - 1] in allowed:
            at -= 1
        if at > least and self._classes[at - 1] == "x":
            return ""
        return normalize("NFC", self._paragraph[at : self._at].lstrip("."))

    def word_before(self) -> str:
        """The word before the token and a space."""
        words = self._paragraph[max(self._start, self._at - _TOKEN_LENGTH) : self._at].split()
        return words[-2].lstrip("(") if len(words) > 1 else ""

    def word(self) -> str:
        """The word after it."""
        match = _WORD.match(self._classes, self._word)
        return normalize("NFC", self._paragraph[self._word : match.end()]) if match else ""

    def words(self) -> Sequence[str]:
        """The first words after it, with punctuation."""
        return self._paragraph[self._word : self._word + _TAG_LENGTH].split()[:4]

    def is_after_date(self) -> bool:
        return _DATE.search(self._paragraph, max(self._start, self._at - _DATE_LENGTH), self._at) is not None

    def is_after_number(self) -> bool:
        """Whether a number precedes its token, with a space or a hyphen between them."""
        before = self._at - len(self.token())
        return self._paragraph[max(self._start, before - 2) : before].rstrip(" -\xa0")[-1:].isdecimal()

    def is_in_brackets(self) -> bool:
        """Whether the whole sentence is in brackets."""
        return self.closing.startswith(")") and self._classes[self._start : self._start + 20].lstrip(" n*").startswith(
            "("
        )

    def is_before_particle(self) -> bool:
        """Whether it belongs to a name, such as モーニング娘。: a particle follows, which cannot begin a sentence."""
        return self.gap == "" and _PARTICLE.match(self._paragraph, self._word) is not None

    def is_before_another(self) -> bool:
        """Whether another sentence follows the quotation that it ends, in a script without capital letters."""
        if _OPENS.search(self.opening) or self.is_before_speech():
            return True
        return _SUBJECT.match(self._paragraph, self._word) is not None and self._is_introduced()

    def _is_introduced(self) -> bool:
        """Whether a colon or a comma precedes its quotation, so that the speaker was named before."""
        closing = next((mark for mark in self._paragraph[self._end : self._word] if mark in _PAIRS), None)
        if closing is None:
            return False
        opening = self._paragraph.rfind(_PAIRS[closing], max(0, self._at - _QUOTATION_LENGTH), self._at)
        return opening > 0 and self._paragraph[max(0, opening - 2) : opening].rstrip()[-1:] in set(":：,，、،")

    def is_before_initial(self) -> bool:
        match = _WORD.match(self._classes, self._word)
        return match is not None and match.end() == self._word + 1 and self._classes.startswith(".", match.end())

    def is_numbering(self) -> bool:
        """Whether it follows the number of a list item at the beginning of the sentence."""
        short = self._at - self._start <= _NUMBERING_LENGTH
        return short and _NUMBERING.fullmatch(self._paragraph, self._start, self._at) is not None

    def label(self) -> tuple[str, str] | None:
        """The word of a label such as "Fig. 2." and its full stop, if the sentence so far is a label."""
        match = self._at - self._start <= _LABEL_LENGTH and _LABEL.fullmatch(self._paragraph, self._start, self._at)
        return (match[1], match[2]) if match else None

    def is_before_speech(self) -> bool:
        """Whether another speaker begins: 李四答：“……”"""
        return _SPEECH.match(self._paragraph, self._word) is not None

    def is_before_list_item(self) -> bool:
        return _LIST_ITEM.match(self._paragraph, self._word - len(self.opening)) is not None
