import pytest

from service.evaluators.markdown import Fence, whole_fence


@pytest.mark.parametrize(
    ("text", "info", "content"),
    [
        ("```\na\n```", "", "a\n"),
        ("```json\na\n```", "json", "a\n"),
        ("``` json\na\n```", "json", "a\n"),
        ("````json\na\n````", "json", "a\n"),
        ("````\n```\na\n```\n````", "", "```\na\n```\n"),
        ("```\na\n`````", "", "a\n"),
        ("~~~json\na\n~~~", "json", "a\n"),
        ("~~~~ json ```\n~~~\na\n~~~~", "json ```", "~~~\na\n"),
        ("   ```json\n   a\n  ```", "json", "   a\n"),
        ("```json\r\na\r\n```\r\n", "json", "a\n"),
        ('```json title="a.json" {1,2}\na\n```  \n\n', 'json title="a.json" {1,2}', "a\n"),
        ("\n\n```\n\na\n\n```\n", "", "\na\n\n"),
        ("```\n```", "", ""),
        ("```\na```", "", "a"),
        ("```\n    ```\na\n```", "", "    ```\na\n"),
        ("```\n``` a\n```", "", "``` a\n"),
        ("```\n~~~\n```", "", "~~~\n"),
    ],
)
def test_a_text_that_is_one_fence(text: str, info: str, content: str) -> None:
    assert whole_fence(text) == Fence(info, content)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "```",
        "```json",
        "```\na",
        "``\na\n``",
        "````\na\n```",
        "```\na\n~~~",
        "~~~\na\n```",
        "```a`b\nc\n```",
        "Here:\n```\na\n```",
        "```\na\n```\nThere.",
        "```\na\n```\n```\nb\n```",
        "> ```\n> a\n> ```",
    ],
)
def test_a_text_that_is_not_one_fence(text: str) -> None:
    assert whole_fence(text) is None


@pytest.mark.parametrize(
    ("info", "language"),
    [
        ("", ""),
        ("json", "json"),
        ("JSON5", "json5"),
        ("json title=a", "json"),
        ("json{1,3}", "json"),
        ("json:a.json", "json"),
        ("{.json #a .wide}", "json"),
        ("{=json}", "json"),
        ("python", "python"),
    ],
)
def test_the_language_is_the_first_word_of_the_info_string(info: str, language: str) -> None:
    assert Fence(info, "").language == language
