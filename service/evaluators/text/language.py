"""A verifier of the language that a text is in.

The detector is py3langid: naive Bayes over byte n-grams (Lui and Baldwin 2012, "langid.py"), with its model in the
package. It is restricted to the languages of ISO 639-1. A text is read in pieces, because the probabilities flatten in
a long text.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Annotated, ClassVar, Literal

import regex
from annotated_types import Len
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from service.constraints.algebra import Constraint, Unstated
from service.evaluators.base import Check, RefusedField, Verifier
from service.evaluators.text.east_asian import east_asian_language
from service.evaluators.text.main_script import keep_main_script

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
"""English names of all languages that the detector knows, by ISO 639-1 code. "no" is Bokmål."""

_NAMES_IN_CHINESE = """
af 南非荷兰语, am 阿姆哈拉语, an 阿拉贡语, ar 阿拉伯语, as 阿萨姆语, az 阿塞拜疆语, ba 巴什基尔语, be 白俄罗斯语,
bg 保加利亚语, bn 孟加拉语, br 布列塔尼语, bs 波斯尼亚语, ca 加泰罗尼亚语, cs 捷克语, cy 威尔士语, da 丹麦语, de 德语,
dz 宗喀语, el 希腊语, en 英语, eo 世界语, es 西班牙语, et 爱沙尼亚语, eu 巴斯克语, fa 波斯语, fi 芬兰语, fo 法罗语,
fr 法语, fy 西弗里斯兰语, ga 爱尔兰语, gd 苏格兰盖尔语, gl 加利西亚语, gu 古吉拉特语, ha 豪萨语, he 希伯来语,
hi 印地语, hr 克罗地亚语, ht 海地克里奥尔语, hu 匈牙利语, hy 亚美尼亚语, id 印度尼西亚语, ig 伊博语, is 冰岛语,
it 意大利语, ja 日语, jv 爪哇语, ka 格鲁吉亚语, kk 哈萨克语, km 高棉语, kn 卡纳达语, ko 韩语, ku 库尔德语,
ky 吉尔吉斯语, la 拉丁语, lb 卢森堡语, lg 干达语, ln 林加拉语, lo 老挝语, lt 立陶宛语, lv 拉脱维亚语, mg 马达加斯加语,
mk 马其顿语, ml 马拉雅拉姆语, mn 蒙古语, mr 马拉地语, ms 马来语, mt 马耳他语, my 缅甸语, ne 尼泊尔语, nl 荷兰语,
nn 新挪威语, no 挪威语, oc 奥克语, om 奥罗莫语, or 奥里亚语, pa 旁遮普语, pl 波兰语, ps 普什图语, pt 葡萄牙语,
qu 克丘亚语, ro 罗马尼亚语, ru 俄语, rw 卢旺达语, sa 梵语, se 北萨米语, si 僧伽罗语, sk 斯洛伐克语, sl 斯洛文尼亚语,
sn 绍纳语, so 索马里语, sq 阿尔巴尼亚语, sr 塞尔维亚语, st 南索托语, sv 瑞典语, sw 斯瓦希里语, ta 泰米尔语,
te 泰卢固语, tg 塔吉克语, th 泰语, tk 土库曼语, tl 他加禄语, tr 土耳其语, tt 鞑靼语, ug 维吾尔语, uk 乌克兰语,
ur 乌尔都语, uz 乌兹别克语, vi 越南语, vo 沃拉普克语, wa 瓦隆语, xh 科萨语, yo 约鲁巴语, zh 中文, zu 祖鲁语
"""
LANGUAGES_IN_CHINESE: Mapping[str, str] = {
    name[:2]: name[3:] for name in " ".join(_NAMES_IN_CHINESE.split()).split(", ")
}

_PIECE = 500
"""Characters of a piece."""
_SHORT = 25
"""With fewer letters the detector is unreliable: it takes all languages for equally likely beforehand, and "Hello" for
Breton. On the short texts that we tried, its probabilities were off by a factor of at most 55."""
_UNSURE = 0.4
"""If no language is more probable than this, the text is too unusual to identify its language."""
_EAST_ASIAN = ("zh", "ja", "ko")
_SIBLINGS: Sequence[frozenset[str]] = (frozenset(("bs", "hr", "sr")), frozenset(("id", "ms")))
"""Languages so close that most sentences of one are also sentences of the other."""
_LETTER = regex.compile(r"\p{L}|\p{M}")  # the vowels of Devanagari are marks
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Language(Verifier):
    """Whether the text, or most of it, is in a language. Code and addresses do not count.

    A text that does not pass scores the probability of the language. Three kinds of text get the benefit of the doubt:

    - A text of fewer than 25 letters, or in a language that is easily confused with the requested one (Bosnian,
      Croatian and Serbian; Indonesian and Malay), passes unless another language is more than 64 times as probable.
    - A longer text that is too unusual to identify passes unless another language is more than twice as probable.
    - A text without letters passes unless it is empty.

    Chinese, Japanese and Korean are distinguished by kana, Hangul and the forms of Han characters.
    """

    in_thread: ClassVar[bool] = True  # the first check reads the model, in half a second

    type: Literal["language"] = "language"
    code: Annotated[str, Len(2, 2)]

    def __post_init__(self) -> None:
        if self.code not in LANGUAGES:
            raise RefusedField("code", f"it must be one of {', '.join(LANGUAGES)}")

    def constraints(self) -> Sequence[Constraint]:
        return [Constraint("language.code", Unstated("no grammar knows a language"))]

    def check(self, text: str) -> Sequence[Check]:
        order = f"Write in {LANGUAGES[self.code]}."
        chinese = {"zh": f"请用{LANGUAGES_IN_CHINESE[self.code]}书写。"}
        prose = " ".join(_CODE.sub(" ", text).split())
        if not any(map(str.isalpha, prose)):
            return [Check("code", float(bool(text.strip())), "it is empty", order, chinese)]
        probabilities = _probabilities(prose)
        likeliest = max(probabilities, key=lambda code: probabilities[code])
        most, given = probabilities[likeliest], probabilities[self.code]
        short = len(_LETTER.findall(prose)) < _SHORT
        unclear = short or any({likeliest, self.code} <= siblings for siblings in _SIBLINGS)
        lead = 64 if unclear else 2 if most < _UNSURE else 1
        met = given * lead >= most
        return [Check("code", 1.0 if met else given, f"it is in {LANGUAGES[likeliest]}", order, chinese)]


_READING = Lock()


@cache
def _load_detector() -> LanguageIdentifier:
    """Loaded once, for the first check: 120 MiB. Detection does not change it, so threads can share it."""
    detector = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    detector.set_languages(LANGUAGES)
    return detector


def _probabilities(prose: str) -> Mapping[str, float]:
    """The probability of each language, by its code: the mean over the pieces of the text, weighted by length."""
    with _READING:  # so that concurrent threads load it only once
        detector = _load_detector()
    totals: dict[str, float] = defaultdict(float)
    for start in range(0, len(prose), _PIECE):
        piece = prose[start : start + _PIECE]
        read = keep_main_script(piece)
        for code, probability in _decide_east_asian(read, dict(detector.rank(read))).items():
            totals[code] += probability * len(piece) / len(prose)
    return totals


def _decide_east_asian(piece: str, probabilities: Mapping[str, float]) -> Mapping[str, float]:
    """The probabilities, with those of Chinese, Japanese and Korean together for the one that the characters show."""
    code = east_asian_language(piece)
    if code is None:
        return probabilities
    together = sum(probabilities[each] for each in _EAST_ASIAN)
    return {**probabilities, **dict.fromkeys(_EAST_ASIAN, 0.0), code: together}
