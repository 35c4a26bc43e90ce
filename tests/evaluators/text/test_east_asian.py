import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.evaluators.text.east_asian import east_asian_language


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("はい", "ja"),
        ("네", "ko"),
        ("谢谢", "zh"),
        ("東京都千代田区", "ja"),
        ("駅前広場", "ja"),
        ("丸の内", "ja"),
        ("大韓民國은", "ko"),
        ("我們去看《となりのトトロ》", "zh"),
        ("「谢谢」は中国語です", "ja"),
        ("《紅樓夢》을 읽었다", "ko"),
        ("《となりのトトロ》", "ja"),
        ("鲜の每日优选", "zh"),
        ("的", None),
        ("東京", None),
        ("北京", None),
        ("Hello", None),
        ("", None),
        ("・ー", None),
    ],
)
def test_characters_tell_the_language(text: str, code: str | None) -> None:
    assert east_asian_language(text) == code


@given(st.text(alphabet="「」『』“”()（）\"'のa中们가") | st.text())
def test_any_text_can_be_asked_about(text: str) -> None:
    assert east_asian_language(text) in {"zh", "ja", "ko", None}
