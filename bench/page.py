"""Pages whose tables are made by benchmarks and whose prose is written by hand."""

from pathlib import Path

PERFORMANCE = Path(__file__).parents[1] / "docs" / "performance.md"


def replace_section(page: Path, name: str, text: str) -> None:
    """Put ``text`` between the lines ``<!-- name -->`` and ``<!-- end of name -->``. ValueError without them."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{page} has no section {name}")
    page.write_text(f"{before}{begin}\n{text.strip()}\n\n{end}{after}")
