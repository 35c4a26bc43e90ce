import pytest

from service.evaluators.text.main_script import keep_main_script


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("The Japanese word 「ありがとう」 means thank you.", "The Japanese word 「 」 means thank you."),
        ("我用Python写程序。", "我用 写程序。"),
        ("Я пишу на Python каждый день", "Я пишу на   каждый день"),
        ("نستخدم برنامج Python كل يوم", "نستخدم برنامج   كل يوم"),
        ("half это half это", "half это half это"),
        ("আমি Python ভালোবাসি", "আমি Python ভালোবাসি"),
        ("café naïve", "café naïve"),
        ("42", "42"),
        ("", ""),
    ],
)
def test_foreign_names_are_left_out_of_a_text_in_one_script(text: str, read: str) -> None:
    assert keep_main_script(text) == read
