import pytest

from service.evaluators.base import Check
from service.evaluators.text.script import instruction_language


@pytest.mark.parametrize(
    ("request_text", "language"),
    [
        ("写一首关于大海的诗。", "zh"),
        ("請用繁體中文寫一封信。", "zh"),
        ("用Python写一个FastAPI服务,支持OpenAI的接口", "zh"),
        ("Write a poem about the sea.", "en"),
        ("Translate into English: 你好", "en"),
        ("海についての詩を書いてください。", "en"),
        ("바다에 대한 시를 써 주세요.", "en"),
        ("", "en"),
        ("42", "en"),
    ],
)
def test_the_language_of_a_request(request_text: str, language: str) -> None:
    assert instruction_language(request_text) == language


def test_an_instruction_is_english_where_it_is_not_translated() -> None:
    check = Check("words", 0.0, "3 words", "Use two words.", {"zh": "使用两个词。"})
    assert check.instruction_in("zh") == "使用两个词。"
    assert check.instruction_in("de") == check.instruction == "Use two words."
