import pytest

from service.evaluators.text.bounds import Bounds, amount, amount_in_chinese


@pytest.mark.parametrize(
    ("bounds", "english", "chinese"),
    [
        (Bounds(max=0), "no words", "0 个词"),
        (Bounds(min=0, max=0), "no words", "0 个词"),
        (Bounds(max=30), "at most 30 words", "不超过 30 个词"),
        (Bounds(min=1), "at least 1 word", "至少 1 个词"),
        (Bounds(min=3, max=3), "exactly 3 words", "正好 3 个词"),
        (Bounds(min=2, max=5), "2 to 5 words", "2 到 5 个词"),
    ],
)
def test_an_amount_is_said_in_english_and_in_chinese(bounds: Bounds, english: str, chinese: str) -> None:
    assert amount(bounds, "words") == english
    assert amount_in_chinese(bounds, "个词") == chinese
