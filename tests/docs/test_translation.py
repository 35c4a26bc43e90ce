"""README.zh-CN.md says the same as README.md: what need not be translated is equal in both."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENGLISH = (ROOT / "README.md").read_text()
CHINESE = (ROOT / "README.zh-CN.md").read_text()
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
EACH_OTHER = {"README.md", "README.zh-CN.md"}


def heading_levels(text: str) -> list[int]:
    return [len(marks) for marks in re.findall(r"^(#+) ", CODE.sub("", text), re.MULTILINE)]


def quotations(text: str) -> Counter[str]:
    """Commands, fields and settings in running text, whose order depends on the language."""
    return Counter(re.findall(r"`([^`]+)`", CODE.sub("", text)))


def links(text: str) -> Counter[str]:
    return Counter(target for target in re.findall(r"\]\(([^)]+)\)", text) if target not in EACH_OTHER)


def row_shapes(text: str) -> list[int]:
    """The number of cells in each row of each table."""
    return [row.count("|") - 1 for row in re.findall(r"^\|.*\|$", CODE.sub("", text), re.MULTILINE)]


def measurements(text: str) -> Counter[str]:
    """Every number with a decimal point: they are results."""
    return Counter(re.findall(r"\d+\.\d+", CODE.sub("", text)))


def test_headings_have_the_same_levels_in_the_same_order() -> None:
    assert heading_levels(CHINESE) == heading_levels(ENGLISH)


def test_code_blocks_are_identical() -> None:
    assert CODE.findall(CHINESE) == CODE.findall(ENGLISH) != []


def test_the_same_commands_and_names_are_quoted() -> None:
    assert quotations(CHINESE) == quotations(ENGLISH)


def test_links_lead_to_the_same_places() -> None:
    assert links(CHINESE) == links(ENGLISH)


def test_tables_have_the_same_shape() -> None:
    assert row_shapes(CHINESE) == row_shapes(ENGLISH)


def test_results_are_the_same() -> None:
    assert measurements(CHINESE) == measurements(ENGLISH)


def test_each_page_links_to_the_other() -> None:
    assert "](README.zh-CN.md)" in ENGLISH
    assert "](README.md)" in CHINESE
