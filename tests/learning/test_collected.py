"""Collected texts as lines of a file."""

from pathlib import Path

from service.learning.collected import Collected, read_lines, write_lines
from tests.learning.made import collected, text


def test_a_text_with_any_line_end_is_one_line(tmp_path: Path) -> None:
    each = [collected(text("One\u2028two\x85three\x0bfour\r\nfive\x1csix")), collected(text("Seven"))]
    write_lines(tmp_path / "lines.jsonl", each)
    assert read_lines(tmp_path / "lines.jsonl", Collected) == each

    write_lines(tmp_path / "none.jsonl", [])
    assert read_lines(tmp_path / "none.jsonl", Collected) == []
