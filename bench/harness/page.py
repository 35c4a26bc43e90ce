"""Pages of results: their tables are made by benchmarks, their prose is written by hand."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PAGES = Path(__file__).parents[2] / "docs/results"
PERFORMANCE = PAGES / "performance.md"


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, ["---"] * len(columns), *rows))


def tabulate(columns: Mapping[str, Callable[[T], str]], items: Iterable[T]) -> str:
    """A Markdown table with a row for each item. ``columns``: by heading, what makes the cell of an item."""
    return markdown_table(list(columns), [[cell(item) for cell in columns.values()] for item in items])


def tabulate_bars(bars: Iterable[tuple[str, str | None, bool]]) -> str:
    """A Markdown table of bars: what is required, what was measured (None: not run), and whether the bar is met."""
    rows = [
        (text, "not run", "") if measured is None else (text, measured, yes_or_no(met)) for text, measured, met in bars
    ]
    return markdown_table(("bar", "measured", "met"), rows)


def yes_or_no(met: bool) -> str:
    return "yes" if met else "**no**"


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
