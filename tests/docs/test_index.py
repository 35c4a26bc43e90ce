"""docs/README.md leads to every page, and the glossary explains each word once."""

import re
from collections import Counter
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
RECORDS = DOCS / "design/decisions"


def linked(page: Path) -> set[Path]:
    return {(page.parent / target).resolve() for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text())}


def test_the_index_links_to_every_page() -> None:
    records = {record for record in RECORDS.glob("*.md") if record.name != "README.md"}  # these have their own index
    assert set(DOCS.rglob("*.md")) - records - {DOCS / "README.md"} <= linked(DOCS / "README.md")


def test_the_glossary_explains_each_word_once() -> None:
    words = re.findall(r"^- \*\*(.+?)\*\*:? ", (DOCS / "glossary.md").read_text(), re.MULTILINE)
    assert words
    assert [word for word, count in Counter(words).items() if count > 1] == []
