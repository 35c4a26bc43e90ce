import pytest

from service.evaluators.text.particles import bare_nouns


@pytest.mark.parametrize(
    ("noun", "particles"),
    [
        (
            "서울",
            "은 이 을 의 도 만 에 에서 에서는 에서도 에서의 로 로는 로부터 까지 까지만 까지는 보다 보다는 처럼",
        ),
        (
            "서울",
            "과 이랑 하고 이다 이라고 이라는 입니다 이었다 이지만 인데 이요 에서요 마저도 조차 밖에 뿐이다 이나",
        ),
        (
            "학교",
            "는 가 를 와 랑 로 로도 에는 에서만 다 라고 였다 예요 이다 나 라도 야말로 든지 까지도 부터가 에서부터",
        ),
        ("사람", "들 들이 들은 들에게 들에게서는 으로 으로서 에게만 한테 께서 께서는 만의 만으로도 마다 쯤"),
    ],
)
def test_a_noun_is_seen_before_its_particles(noun: str, particles: str) -> None:
    for particle in particles.split():
        assert noun in [*bare_nouns(noun + particle)], particle


@pytest.mark.parametrize(
    ("word", "noun"),
    [
        ("서울대학교", "서울"),
        ("서울시", "서울"),
        ("사과나무", "사과"),
        ("한국인", "한국"),
        ("한국어", "한국"),
        ("나라", "나"),
        *(("바다", "바"), ("종이", "종"), ("종이에", "종"), ("회의의", "회"), ("지도", "지"), ("고양이가", "고양")),
        ("나무", "나"),
        ("책상", "책"),
        ("눈물", "눈"),
        ("물가", "물"),  # "가" follows vowels only
        ("나이", "나"),  # and "이" consonants
        ("작가", "작"),
        ("서울요", "서울"),
        ("서울", "서울"),
        ("고등학교", "학교"),
        ("학교으로", "학교"),
        ("서울으로", "서울"),  # an L is no consonant here
        ("책로", "책"),
    ],
)
def test_a_longer_word_is_no_noun_with_particles(word: str, noun: str) -> None:
    assert noun not in [*bare_nouns(word)]


def test_only_the_end_of_a_long_word_is_tried() -> None:
    assert max(map(len, bare_nouns("가" * 100_000 + "에서"))) == 100_000


@pytest.mark.parametrize(
    ("word", "noun"), [("바다의", "바다"), ("종이도", "종이"), ("인도에서", "인도"), ("휴가가", "휴가"), ("길이", "길")]
)
def test_particles_follow_words_that_look_like_a_noun_with_one(word: str, noun: str) -> None:
    assert noun in [*bare_nouns(word)]
