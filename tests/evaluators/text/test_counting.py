import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.evaluators.text.counting import count_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        (" \n ", 0),
        ("one", 1),
        ("one two\tthree\r\nfour", 4),
        ("a well-known fact; don't ask, it\u2019s fine", 7),
        ("wait—what \u2013 no - yes …", 4),
        ("3.14 is π", 3),
        ("user@example.com wrote https://example.com/a?b=c&d=1", 3),
        ("it is 50% off: and/or, AT&T, C++", 7),
        ("der Kindergarten-Besuch, l'homme, кто-то, בית־ספר", 5),
        ("हिन्दी क्षत्रिय", 2),
        ("می\u200cخواهم", 1),
        ("cafe\u0301 olé", 2),
    ],
)
def test_words_are_runs_with_a_letter_or_a_digit(text: str, words: int) -> None:
    assert count_words(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("你好世界", 4),
        ("我用Python写了一个程序", 9),
        ("人々は〇時にコーヒーを、㈱山田へ。", 15),
        ("ｶﾞｷﾞか\u3099", 3),
        ("ㄅㄆㄇ", 3),
        ("\u2f00\u2f01\u2e80", 3),
        ("𠀀𪜀\U00030000", 3),
        ("ꀀꀁ", 2),
        ("Python、Java，Go", 3),
        ("２０２４年１月", 4),
        ("３．１４と１，０００", 3),
        ("大韓民國은 크다", 6),
        ("「——」，。！？", 0),
    ],
)
def test_an_ideograph_or_kana_is_a_word(text: str, words: int) -> None:
    assert count_words(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ผมชอบกินข้าว", 4),
        ("ปี2567 ต่าง ๆ ๒๕", 4),
        ("བཀྲ་ཤིས་བདེ་ལེགས།", 4),
        ("ꦱꦸꦒꦼꦁ", 2),
        ("ሰላም፡ለዓለም።እንዴት", 3),
    ],
)
def test_scripts_without_spaces_are_segmented(text: str, words: int) -> None:
    assert count_words(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1\u202f000\u202f000 euros", 2),
        ("12\xa0345", 1),
        ("12\xa034", 2),
        ("no\xa0break", 2),
        ("1 000", 2),
        ("a\u200bb", 2),
        ("so\xadft \ufeff \u2060 \u3164 \u2800", 1),
        ("a\u2060b", 1),
        ("a\u3164b", 2),
        ("😀 😀 fine", 1),
        ("👍🇩🇪❤\ufe0f1\ufe0f\u20e3👩\u200d💻", 0),
    ],
)
def test_characters_that_cannot_be_seen(text: str, words: int) -> None:
    assert count_words(text) == words


@pytest.mark.parametrize(
    "letter",
    [
        *"字々ゝあアｱー〇ㄅㆠㇰꀀ\u2f00\u2e80豈㈱",
        *"𠀀\U0002a700\U0002b740\U0002b820\U0002ceb0\U0002ebf0\U00030000\U00031350𛀀𗀀𘬀𛅰",
        *"กກកက",
        *"ꦏᬓꨀᯀᨀᥐᦀᨠꪀ𑜀ꤰ𑀓𒀀𓀀",
        "ཀ་",
    ],
)
def test_nine_hundred_characters_without_spaces_are_more_than_fifty_words(letter: str) -> None:
    assert count_words((letter * 900)[:900]) > 50


@given(st.text(alphabet=st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5)))
def test_so_many_han_characters_so_many_words(text: str) -> None:
    assert count_words(text) == len(text)
    assert count_words("，".join(text)) == len(text)
