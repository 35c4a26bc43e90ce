import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.evaluators.text.keywords import Keywords
from service.evaluators.text.phrases import PhraseIndex, tokens
from tests.support.checks import only


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Well-known, isn't it?", ["well", "-", "known", ",", " ", "isn", "'", "t", " ", "it", "?"]),
        ("我用Python3写", ["我", "用", "python3", "写"]),
        ("README를 읽는다", ["readme", "를", " ", "읽는다"]),
        ("ｶﾞｰﾄﾞ", ["ガ", "ー", "ド"]),
        ("ม้ามา", ["ม้", "า", "ม", "า"]),
        ("ខ្មែរ", ["ខ្មែ", "រ"]),
        ("الـAPI ۲۰", ["ال", "api", " ", "۲۰"]),
        ("हिन्दी।", ["हिन्दी", "।"]),
        ("H2O 25月", ["h2o", " ", "25", "月"]),
        ("", []),
    ],
)
def test_the_words_of_a_text(text: str, words: list[str]) -> None:
    assert list(tokens(text)) == words


def test_phrases_are_counted_without_overlaps() -> None:
    index = PhraseIndex(tokens("a a a b 서울은 a 서울에 a 서울"))
    counted = {
        phrase: index.count(tokens(phrase)) for phrase in ("a", "a a", "b 서울", "a 서울", "서울", "c", "a c", "")
    }
    assert counted == {"a": 5, "a a": 1, "b 서울": 1, "a 서울": 2, "서울": 3, "c": 0, "a c": 0, "": 0}


def test_a_text_starts_with_whole_words() -> None:
    index = PhraseIndex(tokens("서울 시청은 크다"))
    begun = [
        phrase
        for phrase in ("서울", "서울 시청", "시청", "서울 시", "서", "x 시청")
        if index.starts_with(tokens(phrase))
    ]
    assert begun == ["서울", "서울 시청"]
    assert not PhraseIndex([]).starts_with(tokens("a"))


SEPARATED = {
    "latin": ("river Straße café naïve ångström Łódź", " , ; — \n “ ” ( ) / ."),
    "cyrillic": ("река мост ещё объём", " , — « » \n"),
    "greek": ("ποτάμι γέφυρα λόγος", " , · « »"),
    "arabic": ("نهر جسر كتاب مدرسة", " ، ؛ « » \n"),
    "persian": ("کتاب رودخانه می‌روم خانه", " ، ؛ « »"),
    "hebrew": ("נהר גשר שָׁלוֹם", " , ־ - \n"),
    "hindi": ("नदी पुल ज़रूर हिन्दी", " , । ॥ \n"),
    "korean": ("서울 학교 읽는다 바나나", " , . “ ” \n"),
    "chinese": ("北京 模型 臺北 苹果", "， 。 、 “ ” 的 和 A 1"),
    "japanese": ("アート 東京 カメラ ﾃｽﾄ", "、 。 「 」 の A 1"),
    "thai": ("ไทย แมว กิน", " , ครับ A ๑"),
}
"""By script: words, and what may come between two of them."""


def texts(script: str) -> st.SearchStrategy[tuple[str, list[str]]]:
    """A text of a script and the words that it is made of."""
    words, separators = SEPARATED[script]
    spaced = [*separators.split(), *([" ", "\u00a0", "\t"] if separators[0] == " " else [])]
    pairs = st.tuples(st.sampled_from(words.split()), st.sampled_from(spaced))
    return st.lists(pairs, min_size=1).map(
        lambda pairs: ("".join(word + separator for word, separator in pairs), [word for word, _ in pairs])
    )


@pytest.mark.parametrize("script", SEPARATED)
@given(data=st.data())
def test_a_word_between_separators_is_found_as_often_as_it_was_put_there(script: str, data: st.DataObject) -> None:
    text, words = data.draw(texts(script))
    for word in SEPARATED[script][0].split():
        keywords = Keywords(include=(word,), exclude=(word,))
        included, excluded = (check.score for check in keywords.check(text))
        assert included == float(word in words)
        assert included + excluded == 1.0
        assert PhraseIndex(tokens(text)).count(tokens(word)) == words.count(word)


@given(st.text(), st.text(min_size=1, max_size=200))
def test_a_keyword_is_there_or_is_not(text: str, keyword: str) -> None:
    assume(keyword.strip() and any(tokens(keyword)))
    included, excluded = Keywords(include=(keyword,), exclude=(keyword,)).check(text)
    assert included.score + excluded.score == 1.0
    assert only(Keywords(include=(keyword,)).check(f"{text} {keyword} {text}")).score == 1.0


@pytest.mark.parametrize("piece", ["字", "가", "가는 ", "에게서", "a ", "1가", "ك", "ក្ក", "\u17d2"], ids=repr)
def test_a_megabyte_takes_no_time(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    begun = time.thread_time()
    index = PhraseIndex(tokens(text))
    for phrase in ("가", "a 가", "字字", text[:200]):
        index.count(tokens(phrase))
    assert time.thread_time() - begun < 10  # what is quadratic takes hours
