"""Fences as CommonMark has them; and the two rules that are wider than CommonMark's."""

import textwrap
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from service.evaluators.text.fences import Fence, are_fenced, dedent, fenced_blocks, whole_fence

BLANKS = 1_000_000


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("no code", []),
        ("```\nx\n```", [("", "x\n", True)]),
        ("~~~~ json\nx\n~~~~~\n", [("json", "x\n", True)]),
        ("   ```a\n   x\n  y\n  ```", [("a", "x\ny\n", True)]),
        ("```a\n```b\n```", [("a", "```b\n", True)]),
        ("````\n```\nx\n```\n````", [("", "```\nx\n```\n", True)]),
        ("~~~\n```\n~~~", [("", "```\n", True)]),
        ("```\nx\n``` y\n```", [("", "x\n``` y\n", True)]),
        ("```\nx\n``", [("", "x\n``", False)]),
        ("```\nx\n   ``` \t", [("", "x\n", True)]),
        ("```\nx\n    ```\n```", [("", "x\n    ```\n", True)]),
        ("```\nx\n\t```\n```", [("", "x\n\t```\n", True)]),
        ("```\r\nx\r\n```\r\ny", [("", "x\r\n", True)]),
        ("```", [("", "", False)]),
        ("```\n```", [("", "", True)]),
        ("```\n\n\n```", [("", "\n\n", True)]),
        ("``` a`b\nx\n```", [("", "", False)]),
        ("~~~ a`b\nx\n~~~", [("a", "x\n", True)]),
        ("``x``", []),
        ("```a\nx\n```\ntext\n```b\ny\n```", [("a", "x\n", True), ("b", "y\n", True)]),
        ("- ```a\n  x\n  ```\n- ~~~b\n  y\n  ~~~", [("a", "x\n", True), ("b", "y\n", True)]),
        ("10. a\n\n    ```a\n    x\n        ```\n    ```", [("a", "x\n    ```\n", True)]),
        ("> ```a\n> x\n>y\n> ```\nafter", [("a", "x\ny\n", True)]),
        ("> ```a\n> x\nafter\n```b\ny", [("a", "x\n", False), ("b", "y", False)]),
        # Wider than CommonMark:
        ("    ```a\n    x\n    ```", [("a", "x\n", True)]),
        ("1. a\n   ```a\nx\n   ```", [("a", "x\n", True)]),
    ],
)
def test_blocks_are_found(text: str, blocks: list[tuple[str, str, bool]]) -> None:
    assert [(block.language, block.body, block.closed) for block in fenced_blocks(text)] == blocks


LINES = st.sampled_from(
    [
        "```",
        "````",
        "~~~",
        "~~~~",
        "``` ",
        "  ```",
        "   ~~~",
        "    ```",
        "     ```",
        "```a",
        "~~~ a b",
        "``` a`",
        "x",
        "",
        "  x",
    ]
)


@given(st.lists(LINES, max_size=12))
def test_they_are_those_of_a_parser_of_commonmark(lines: list[str]) -> None:
    tokens = [token for token in MarkdownIt("commonmark").parse("\n".join(lines)) if token.type == "fence"]
    within = {place for token in tokens if token.map for place in range(*token.map)}
    # Outside of a block only this parser takes a line for a fence that is indented like code.
    assume(all(place in within or not line.startswith("    ") for place, line in enumerate(lines)))
    found = [(block.info, block.body.rstrip("\n")) for block in fenced_blocks("\n".join(lines))]
    assert found == [(token.info.strip(), token.content.rstrip("\n")) for token in tokens]


@pytest.mark.parametrize(
    ("info", "language"),
    [
        ("python", "python"),
        ("  Python3  title=a.py", "python3"),
        ("{.python}", "python"),
        ("{#block .python .numberLines}", "python"),
        ("{python}", "python"),
        ("python,ignore", "python"),
        ("python:a.py", "python"),
        ("c++", "c++"),
        ("", ""),
        ("{}", ""),
        ("=", ""),
    ],
)
def test_the_language_of_a_block(info: str, language: str) -> None:
    assert Fence(info, "", closed=True).language == language


@pytest.mark.parametrize(
    "text",
    [
        " " * BLANKS + "x",
        "\n" * BLANKS,
        "\t" * BLANKS,
        "```" + " " * BLANKS + "`",
        "```" + "a" * BLANKS + "`",
        "`" * BLANKS,
        "```\n" * (BLANKS // 4),
        "~~~\n" * (BLANKS // 4),
        "```\n" + " " * BLANKS + "```",
        " " * (BLANKS // 2) + "```\n" + (" " * 999 + "\n") * (BLANKS // 2000),
        "> " * (BLANKS // 2) + "```\nx",
        "- " * (BLANKS // 2) + "```\nx",
        "1" * BLANKS + ". ```",
        "```\n" + "\r\n" * (BLANKS // 2),
    ],
    ids=range(14),
)
def test_a_million_characters_are_read_in_time_that_is_linear(text: str) -> None:
    begun = time.process_time()
    dedent("".join(block.body for block in fenced_blocks(text)) or text)
    assert time.process_time() - begun < 30  # what is quadratic takes hours


@given(st.text(alphabet=" \tab\n"))
def test_dedent_is_that_of_the_standard_library(text: str) -> None:
    assert dedent(text) == textwrap.dedent(text)


@pytest.mark.parametrize(
    ("text", "fenced"),
    [
        ("a\n```\nb\n```\nc", [1, 2, 3]),
        ("a\n~~~\nb", []),
        ("```\na\n```", []),
        ("\n```\na\n```\n ", []),
        ("```\na\n```\n```\nb\n```", [0, 1, 2, 3, 4, 5]),
        ("> ```\n> a\nb", [0, 1]),
        ("> ```\n> a\n```\nb\n```", [0, 1, 2, 3, 4]),
        ("```a```\nb", []),
        ("", []),
    ],
)
def test_lines_of_code_are_known(text: str, fenced: list[int]) -> None:
    assert [at for at, known in enumerate(are_fenced(text.split("\n"))) if known] == fenced


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
    assert whole_fence(text) == Fence(info, content, closed=True)


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
    assert Fence(info, "", closed=True).language == language
