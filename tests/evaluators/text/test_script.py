import pytest

from service.evaluators.base import Check
from service.evaluators.text.script import instruction_language


@pytest.mark.parametrize(
    ("request_text", "language"),
    [
        ("写一首关于大海的诗。", "zh"),
        ("請用繁體中文寫一封信。", "zh"),
        ("用Python写一个FastAPI服务,支持OpenAI的接口", "zh"),
        ("翻译：こんにちは、元気ですか", "zh"),
        ("介绍一下ガンダム和优の良品", "zh"),
        ("写一篇英文短文，题目是 My favourite holiday。", "zh"),
        ("请解释这段代码：\n```python\ndef add(first, second):\n    return first + second\n```", "zh"),
        ("把下面的文章翻译成中文：\n" + "The quick brown fox jumps over the lazy dog. " * 20, "zh"),
        ("请总结这篇文章\n\n" + "The quick brown fox jumps over the lazy dog. " * 20, "zh"),
        ("你好\n\n请写一封辞职信，语气礼貌一些。", "zh"),
        ("Write a poem about the sea.", "en"),
        ("Translate into English: 你好", "en"),
        ("Translate the following text into English:\n" + "今天天气很好，我们去公园散步。" * 20, "en"),
        ("海についての詩を書いてください。", "en"),
        ("東京都千代田区丸の内の天気予報を教えて", "en"),
        ("株式会社山田製作所、東京本社について三百字以内で説明せよ", "en"),
        ("바다에 대한 시를 써 주세요.", "en"),
        ("大韓民國의 歷史를 써 주세요.", "en"),
        ("Напиши стихотворение о море.", "en"),
        ("اكتب قصيدة عن البحر", "en"),
        ("", "en"),
        ("42", "en"),
        ("```\n注释\n```", "en"),
    ],
)
def test_the_language_of_a_request(request_text: str, language: str) -> None:
    assert instruction_language(request_text) == language


def test_a_long_request_is_known_by_its_end() -> None:
    assert instruction_language("Read this. " * 1000 + "请用一句话概括。" * 500) == "zh"


def test_an_instruction_is_english_where_it_is_not_translated() -> None:
    check = Check("words", 0.0, "3 words", "Use two words.", {"zh": "使用两个词。"})
    assert check.instruction_in("zh") == "使用两个词。"
    assert check.instruction_in("de") == check.instruction == "Use two words."
