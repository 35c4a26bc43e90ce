"""Tables, and sections of a page that benchmarks write."""

from pathlib import Path

import pytest

from bench.harness.page import replace_section, tabulate, tabulate_bars


def test_a_table_has_a_row_for_each_item_and_a_cell_for_each_column() -> None:
    table = tabulate({"number": str, "square": lambda number: str(number**2)}, [2, 3])

    assert table.splitlines() == ["| number | square |", "| --- | --- |", "| 2 | 4 |", "| 3 | 9 |"]


def test_a_bar_is_met_missed_or_was_not_run() -> None:
    rows = tabulate_bars([("fast", "1 s", True), ("small", "9 B", False), ("cheap", None, False)]).splitlines()[2:]

    assert rows == ["| fast | 1 s | yes |", "| small | 9 B | **no** |", "| cheap | not run |  |"]


def test_only_the_named_section_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n<!-- a -->\n\nold\n\n<!-- end of a -->\n\n<!-- b -->\n\nkept\n\n<!-- end of b -->\n")

    replace_section(page, "a", "new\n")

    assert page.read_text() == (
        "# Title\n\n<!-- a -->\n\nnew\n\n<!-- end of a -->\n\n<!-- b -->\n\nkept\n\n<!-- end of b -->\n"
    )


@pytest.mark.parametrize("text", ["no section", "<!-- a -->\n without an end", "no begin <!-- end of a -->"])
def test_a_page_without_the_section_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)

    with pytest.raises(ValueError, match="has no section a"):
        replace_section(page, "a", "new")

    assert page.read_text() == text
