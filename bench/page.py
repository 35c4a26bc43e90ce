"""Pages whose tables are made by benchmarks and whose prose is written by hand."""

from collections.abc import Iterable, Sequence
from pathlib import Path

PERFORMANCE = Path(__file__).parents[1] / "docs/results/performance.md"


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, ["---"] * len(columns), *rows))


def publish(name: str, text: str, *, write: bool) -> None:
    """Print what was measured, and put it into its section of the performance page if ``write``."""
    print(text)  # noqa: T201 - it is what benchmarks are run for
    if write:
        replace_section(PERFORMANCE, name, text)


def replace_section(page: Path, name: str, text: str) -> None:
    """Put ``text`` between the lines ``<!-- name -->`` and ``<!-- end of name -->``. ValueError without them."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{page} has no section {name}")
    page.write_text(f"{before}{begin}\n{text.strip()}\n\n{end}{after}")
