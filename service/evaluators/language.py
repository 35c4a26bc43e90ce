"""A verifier of the language that a text is in.

The detector is py3langid: naive Bayes over byte n-grams (Lui and Baldwin 2012, "langid.py"), with its model in the
package. It is restricted to the languages that ISO 639-1 names, and reads a text in pieces, since its probabilities
flatten where a text is long.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Annotated, ClassVar, Literal

from annotated_types import Len
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from service.evaluators.base import Check, RefusedField, Verifier

_NAMES = """
af Afrikaans, am Amharic, an Aragonese, ar Arabic, as Assamese, az Azerbaijani, ba Bashkir, be Belarusian, bg Bulgarian,
bn Bengali, br Breton, bs Bosnian, ca Catalan, cs Czech, cy Welsh, da Danish, de German, dz Dzongkha, el Greek,
en English, eo Esperanto, es Spanish, et Estonian, eu Basque, fa Persian, fi Finnish, fo Faroese, fr French,
fy Western Frisian, ga Irish, gd Scottish Gaelic, gl Galician, gu Gujarati, ha Hausa, he Hebrew, hi Hindi, hr Croatian,
ht Haitian Creole, hu Hungarian, hy Armenian, id Indonesian, ig Igbo, is Icelandic, it Italian, ja Japanese,
jv Javanese, ka Georgian, kk Kazakh, km Khmer, kn Kannada, ko Korean, ku Kurdish, ky Kyrgyz, la Latin, lb Luxembourgish,
lg Ganda, ln Lingala, lo Lao, lt Lithuanian, lv Latvian, mg Malagasy, mk Macedonian, ml Malayalam, mn Mongolian,
mr Marathi, ms Malay, mt Maltese, my Burmese, ne Nepali, nl Dutch, nn Norwegian Nynorsk, no Norwegian, oc Occitan,
om Oromo, or Odia, pa Punjabi, pl Polish, ps Pashto, pt Portuguese, qu Quechua, ro Romanian, ru Russian, rw Kinyarwanda,
sa Sanskrit, se Northern Sami, si Sinhala, sk Slovak, sl Slovenian, sn Shona, so Somali, sq Albanian, sr Serbian,
st Sotho, sv Swedish, sw Swahili, ta Tamil, te Telugu, tg Tajik, th Thai, tk Turkmen, tl Tagalog, tr Turkish, tt Tatar,
ug Uyghur, uk Ukrainian, ur Urdu, uz Uzbek, vi Vietnamese, vo Volapük, wa Walloon, xh Xhosa, yo Yoruba, zh Chinese,
zu Zulu
"""
LANGUAGES: Mapping[str, str] = {name[:2]: name[3:] for name in " ".join(_NAMES.split()).split(", ")}
"""Names in English, by ISO 639-1 code, of all that the detector knows. "no" is Bokmål."""

_PIECE = 500
"""Characters that are read at once."""
_SHORT = 25
"""A text with fewer letters is too short to tell: the detector, to which all its languages are equally likely
beforehand, takes "Hello" for Breton. It is off by a factor of at most 55 there on the texts that we tried."""
_UNSURE = 0.2
"""Where no language is more probable than this, the text is too odd to tell."""
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Language(Verifier):
    """Whether the text is in a language, or most of it where it is mixed. Code and addresses do not count.

    Else the score is the probability of the language. A text of fewer than 25 letters passes unless another language
    is more than 64 times as probable; a longer one that is too odd to tell, unless another is more than twice as
    probable. One without letters passes unless it is empty.
    """

    in_thread: ClassVar[bool] = True  # the first check reads the model, in half a second

    type: Literal["language"] = "language"
    code: Annotated[str, Len(2, 2)]

    def __post_init__(self) -> None:
        if self.code not in LANGUAGES:
            raise RefusedField("code", f"it is none of {', '.join(LANGUAGES)}")

    def check(self, text: str) -> Sequence[Check]:
        order = f"Write in {LANGUAGES[self.code]}."
        prose = " ".join(_CODE.sub(" ", text).split())
        if not any(map(str.isalpha, prose)):
            return [Check("code", float(bool(text.strip())), "it is empty", order)]
        probabilities = _probabilities(prose)
        likeliest = max(probabilities, key=lambda code: probabilities[code])
        most, given = probabilities[likeliest], probabilities[self.code]
        lead = 64 if sum(map(str.isalpha, prose)) < _SHORT else 2 if most < _UNSURE else 1
        met = given * lead >= most
        return [Check("code", 1.0 if met else given, f"it is in {LANGUAGES[likeliest]}", order)]


_READING = Lock()


@cache
def _detector() -> LanguageIdentifier:
    """Read once, where a language is asked for: 120 MiB. Detecting changes nothing in it, so threads can share it."""
    detector = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    detector.set_languages(LANGUAGES)
    return detector


def _probabilities(prose: str) -> Mapping[str, float]:
    """By code: the mean over the pieces of the text, weighted by their length."""
    with _READING:  # threads that come at once read it once
        detector = _detector()
    totals: Counter[str] = Counter()
    for start in range(0, len(prose), _PIECE):
        piece = prose[start : start + _PIECE]
        for code, probability in detector.rank(piece):
            totals[code] += probability * len(piece) / len(prose)
    return totals
