"""The decision records have one form, and their index says the same as their heads."""

import re
from pathlib import Path

import pytest

RECORDS = Path(__file__).parents[2] / "docs/design/decisions"
FILES = sorted(RECORDS.glob("0*.md"))


def head(file: Path) -> tuple[str, str, str, str]:
    """Number, title, date and status."""
    title, blank, dated = file.read_text().splitlines()[:3]
    titled = re.fullmatch(r"# (\d{4})\. (\S.*)", title)
    stated = re.fullmatch(r"Date: (\d{4}-\d{2}-\d{2}) · Status: ((?:accepted|superseded)\b.*)", dated)
    assert titled, title
    assert not blank
    assert stated, dated
    return titled[1], titled[2], stated[1], stated[2]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_record_begins_with_its_number_title_date_and_status(file: Path) -> None:
    number, *_ = head(file)
    assert file.name.startswith(f"{number}-")


def test_the_index_lists_every_record() -> None:
    rows = [line for line in RECORDS.joinpath("README.md").read_text().splitlines() if line.startswith("| 0")]
    expected = []
    for file in FILES:
        number, title, date, status = head(file)
        expected.append(f"| {number} | [{title}]({file.name}) | {date} | {status} |")
    assert rows == expected
