# Sentences in other alphabets are not misspelt.

import json
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from pydantic import TypeAdapter, ValidationError

from service.concurrency import SerialThread
from service.evaluators.base import Check, Submission
from service.evaluators.text.language import LANGUAGES, Language

WIRE = TypeAdapter(Language)


def checked(code: str, text: str) -> Check:
    (check,) = Language(code=code).check(text)
    return check


SENTENCES = {
    "ar": "تأخر القطار ففاتنا الحفل.",
    "bg": "Влакът закъсня, затова изпуснахме концерта.",
    "bn": "ট্রেন দেরি করেছিল, তাই আমরা কনসার্টটি মিস করেছি।",
    "cs": "Vlak měl zpoždění, takže jsme nestihli koncert.",
    "da": "Toget var forsinket, så vi nåede ikke koncerten.",
    "de": "Der Zug hatte Verspätung, deshalb haben wir das Konzert verpasst.",
    "el": "Το τρένο καθυστέρησε, οπότε χάσαμε τη συναυλία.",
    "en": "The train was late, so we missed the concert.",
    "es": "El tren llegó tarde, así que nos perdimos el concierto.",
    "fa": "قطار دیر رسید، بنابراین کنسرت را از دست دادیم.",
    "fi": "Juna oli myöhässä, joten myöhästyimme konsertista.",
    "fr": "Le train avait du retard, nous avons donc manqué le concert.",
    "he": "הרכבת איחרה ולכן הפסדנו את הקונצרט.",
    "hi": "ट्रेन देर से आई, इसलिए हम संगीत कार्यक्रम नहीं देख पाए।",
    "hu": "A vonat késett, ezért lemaradtunk a koncertről.",
    "it": "Il treno era in ritardo, quindi abbiamo perso il concerto.",
    "ja": "電車が遅れたので、コンサートに間に合いませんでした。",
    "ko": "기차가 늦어서 콘서트를 놓쳤습니다.",
    "nl": "De trein had vertraging, dus hebben we het concert gemist.",
    "no": "Toget var forsinket, så vi rakk ikke konserten.",
    "pl": "Pociąg się spóźnił, więc przegapiliśmy koncert.",
    "pt": "O trem atrasou, por isso perdemos o concerto.",
    "ro": "Trenul a întârziat, așa că am pierdut concertul.",
    "ru": "Поезд опоздал, поэтому мы пропустили концерт.",
    "sv": "Tåget var försenat, så vi missade konserten.",
    "sw": "Treni lilichelewa, kwa hiyo tulikosa tamasha.",
    "th": "รถไฟมาสาย เราเลยพลาดคอนเสิร์ต",
    "tr": "Tren geç kaldı, bu yüzden konseri kaçırdık.",
    "uk": "Потяг запізнився, тому ми пропустили концерт.",
    "vi": "Tàu đến trễ nên chúng tôi đã lỡ buổi hòa nhạc.",
    "zh": "火车晚点了，所以我们错过了音乐会。",
}


@pytest.mark.parametrize(("code", "sentence"), SENTENCES.items())
def test_one_sentence_tells_the_language(code: str, sentence: str) -> None:
    for text in (sentence, sentence.upper(), f"# {sentence}\n\n* {sentence}\n"):
        assert [other for other in SENTENCES if checked(other, text).score == 1.0] == [code]


def test_another_language_is_named() -> None:
    check = checked("de", SENTENCES["en"])
    assert (check.rule, check.message, check.instruction) == ("code", "it is in English", "Write in German.")
    assert check.score < 0.1


def test_of_a_mixed_text_the_larger_part_counts() -> None:
    mixed = f"{SENTENCES['de']} " * 20 + f"{SENTENCES['en']} " * 10
    assert checked("de", mixed).score == 1.0
    english = checked("en", mixed)
    assert 0.1 < english.score < 0.5
    assert english.message == "it is in German"


@pytest.mark.parametrize("repeated", [1, 50, 20_000])
def test_a_text_of_any_length_is_told(repeated: int) -> None:
    text = f"{SENTENCES['en']} " * repeated
    assert checked("en", text).score == 1.0
    assert checked("fr", text).score < 0.1


CODE = "for item in the_list_of_items:\n    print(item.name, end=' ')\n"


@pytest.mark.parametrize(
    "code", [f"```python\n{CODE}```", f"```\n{CODE}", "`the_list_of_items`", "https://example.com/the/list/of/items"]
)
def test_code_and_addresses_do_not_count(code: str) -> None:
    assert checked("es", f"Usa esta función:\n{code}").score == 1.0
    assert checked("es", code).score == 1.0
    assert checked("en", f"Usa esta función:\n{code}").score < 1.0


@pytest.mark.parametrize(("text", "score"), [("", 0.0), (" \n", 0.0), ("42", 1.0), ("— …!", 1.0)])
def test_what_has_no_letters_is_in_every_language_unless_it_is_empty(text: str, score: float) -> None:
    assert checked("de", text).score == checked("zh", text).score == score


SHORT = [
    *(
        ("en", text)
        for text in ("Hello", "Yes.", "Buy milk.", "Terrible service.", "He lives in München.", "Stay calm.")
    ),
    *(("en", text) for text in ("The café serves crêpes.", "The naïve fiancée", "Pizza margherita", "Irrelevant.")),
    *(("de", text) for text in ("Ja.", "Danke schön!", "GRÜSSE AUS BERLIN")),
    *(("es", text) for text in ("Hola", "Sí.", "Mañana llueve.")),
    *(("ru", text) for text in ("Да.", "Спасибо", "Я не знаю.")),
    *(("fr", "Oui."), ("uk", "Дякую"), ("hi", "धन्यवाद"), ("ja", "東京")),
]


@pytest.mark.parametrize(("code", "text"), SHORT)
def test_a_text_too_short_to_tell_passes(code: str, text: str) -> None:
    assert checked(code, text).score == 1.0


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("de", "This is a test."),
        ("fr", "The cat sat on the mat."),
        ("en", "Le chat est noir."),
        ("it", "I love the sea."),
        ("zh", "- apples\n- bananas\n- oranges"),
        ("ru", "Hello"),
        ("ja", "Thank you"),
        ("en", "Да."),
        ("en", "你好"),
    ],
)
def test_a_short_text_that_is_plainly_in_another_language_fails(code: str, text: str) -> None:
    assert checked(code, text).score < 0.5


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("hr", "Vlak je kasnio, pa smo propustili koncert."),
        ("sr", "Voz je kasnio, pa smo propustili koncert."),
        ("hr", "Nisam znao da je trgovina zatvorena nedjeljom."),
        ("sk", "Vlak meškal, takže sme zmeškali koncert."),
        ("sl", "Rad berem knjige pred spanjem."),
    ],
)
def test_a_text_in_one_of_several_likely_languages_passes(code: str, text: str) -> None:
    assert checked(code, text).score == 1.0
    assert max(checked(other, text).score for other in ("ru", "tr", "en")) < 0.1


def test_vowel_signs_count_as_letters() -> None:
    assert checked("hi", "मेरो भाइ काठमाडौंमा बस्छ र डाक्टर हो।").score < 0.5


def test_a_longer_text_must_be_in_the_language() -> None:
    """Danish is half as probable as Norwegian here: that would do for a short text."""
    assert checked("da", SENTENCES["no"]).score < 0.5


@pytest.mark.parametrize("code", ["DE", "xx", "nb", "  "])
def test_an_unknown_code_is_refused(code: str) -> None:
    with pytest.raises(ValidationError) as caught:
        WIRE.validate_json(json.dumps({"type": "language", "code": code}))
    (error,) = caught.value.errors()
    assert error["ctx"]["error"].field == "code"
    assert error["msg"].startswith("Value error, it must be one of af, am, an, ar,")


def test_a_code_has_two_letters() -> None:
    with pytest.raises(ValidationError) as caught:
        WIRE.validate_json('{"type": "language", "code": "deu"}')
    assert [error["loc"] for error in caught.value.errors()] == [("code",)]


def test_names_are_of_what_the_detector_knows() -> None:
    detector = LanguageIdentifier.from_model_file(MODEL_FILE)
    assert sorted(LANGUAGES) == sorted(label for label in detector.labels if len(label) == 2)
    assert len(set(LANGUAGES.values())) == len(LANGUAGES)
    assert LANGUAGES["zu"] == "Zulu"


@settings(deadline=None)
@given(text=st.text() | st.text(alphabet="`a é字\n:/https"))
def test_it_judges_any_text(text: str) -> None:
    check = checked("en", text)
    assert 0.0 <= check.score <= 1.0
    assert check.message
    assert check.instruction == "Write in English."


async def test_it_is_passed_exactly_with_score_one() -> None:
    for text in SENTENCES.values():
        evaluation = await Language(code="en").evaluate(
            cast(Submission, SimpleNamespace(text=text, thread=SerialThread(), language="en", evaluators=1))
        )
        assert evaluation.passed == (evaluation.score == 1.0) == (text == SENTENCES["en"])


def test_threads_share_the_detector() -> None:
    texts = list(SENTENCES.values()) * 4
    alone = [checked("en", text) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda text: checked("en", text), texts)) == alone


@pytest.mark.parametrize("piece", ["a ", "é", "字", "`", "```a", "`a`", "http://", "\n \n"], ids=repr)
def test_a_megabyte_takes_no_time(piece: str) -> None:
    begun = time.thread_time()
    checked("en", piece * (1_000_000 // len(piece)))
    assert time.thread_time() - begun < 20  # what is quadratic takes hours
