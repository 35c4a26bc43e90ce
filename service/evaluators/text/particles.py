"""The particles that Korean attaches to a noun: "서울" is a word of "서울에서는", but not of "서울대학교".

The particles are a closed list, in the order in which they follow each other, with the forms that the noun's last sound
requires ("책이", "사과가"). Endings that just as often form other words are left out, such as "인" ("한국인"). What
looks like a noun with a particle may be another word: "종이" is paper, and also "종" with a particle. A list has the
words that are nearly always meant; for others only the sentence would show it.
"""

import re
from collections.abc import Iterator

_OPEN = "".join(map(chr, range(0xAC00, 0xD7A4, 28)))
_OPEN_OR_L = _OPEN + "".join(map(chr, range(0xAC08, 0xD7A4, 28)))
_LOOKS_BACK = {
    "<": f"(?<=[{_OPEN}])",  # after a vowel
    ">": f"(?<![{_OPEN}])",  # after a consonant
    "(": f"(?<=[{_OPEN_OR_L}])",  # after a vowel or an L
    ")": f"(?<![{_OPEN_OR_L}])",
}
_CASES = "에 에서 에게 에게서 한테 한테서 께 께서 더러 (로 (로서 (로써 )으로 )으로서 )으로써"
_DELIMITERS = (
    "만 까지 마저 조차 부터 밖에 보다 처럼 만큼 대로 같이 마다 뿐 씩 쯤 하고 커녕 말고 치고"
    " <와 >과 <랑 >이랑 >은커녕 <는커녕"
)
_LAST = (
    "<는 >은 <가 >이 <를 >을 의 도 <나 >이나 <나마 >이나마 <든 >이든 <든지 >이든지 <야 >이야 <야말로 >이야말로"
    " >아 <여 >이여"
)
_COPULA = (
    "이다 이며 이란 이라 이라고 이라고는 이라고도 이라는 이라면 이라서 이라며 이라도 이지만 이므로 이니까 이고"
    " 이면 이자 이었다 이었고 이었던 이었지만 이었습니다 이에요 이어서 이죠 입니다 입니까 인데 인지 인가"
)
_COPULA_AFTER_VOWELS = (
    "<다 <며 <란 <라고 <라고는 <라고도 <라는 <라면 <라서 <라며 <라도 <지만 <므로 <니까 <였다 <였고 <였던 <였지만"
    " <였습니다 <예요 <여서 <죠"
)
_ENDING_LIKE_PARTICLES = (
    "가로 세로 도로 미로 피로 회로 서로 새로 따로 별로 바로 강도 고도 기도 농도 밀도 속도 수도 습도 시도"
    " 온도 용도 의도 인도 정도 제도 지도 진도 태도 파도 포도 효도 거의 강의 결의 논의 동의 모의 문의 정의"
    " 편의 합의 협의 호의 회의 하나 누나 바나나 바다 소다 수다 마다 요가 유가 주가 추가 허가 휴가 결과 성과"
    " 통과 학과 종이 깊이 높이 넓이 놀이 먹이 거북이 고양이 원숭이 호랑이 낭만 불만 비만 자만 미만 대만"
)
"""Words that happen to end like a particle."""
_NOUNS = frozenset(_ENDING_LIKE_PARTICLES.split())
_LONGEST_NOUN = max(map(len, _NOUNS))
_LONGEST = 14
"""Syllables that are tried as particles at the end of a word."""


def _alternatives(particles: str) -> str:
    forms = (f"{_LOOKS_BACK[form[0]]}{form[1:]}" if form[0] in _LOOKS_BACK else form for form in particles.split())
    return f"(?:{'|'.join(forms)})"


_PARTICLES = re.compile(
    rf"(?!요?\Z)들?{_alternatives(_CASES)}?{_alternatives(_DELIMITERS)}{{0,2}}{_alternatives(_CASES)}?"
    rf"{_alternatives(f'{_LAST} {_COPULA} {_COPULA_AFTER_VOWELS}')}?요?"
)


def bare_nouns(word: str) -> Iterator[str]:
    """The nouns that ``word``, in Hangul, may be with a particle. The word itself is not among them.

    >>> sorted(bare_nouns("서울에서는"))
    ['서울', '서울에서']
    """
    known = max((end for end in range(1, _LONGEST_NOUN + 1) if word[:end] in _NOUNS), default=1)
    for end in range(max(known, len(word) - _LONGEST), len(word)):
        if _PARTICLES.fullmatch(word, end):
            yield word[:end]
