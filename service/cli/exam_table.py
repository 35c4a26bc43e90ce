"""An exam in the terminal: its figures as a table, and the verdict."""

from collections.abc import Iterator, Sequence

from service.learning.figures import HEADINGS, tabulate
from service.learning.manifest import Verdict


def describe(adapter: str, verdict: Verdict) -> Iterator[str]:
    """The lines that end an exam."""
    rows = [HEADINGS, *tabulate(verdict.figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "─" * (sum(widths) + 2 * len(widths) - 2)
    yield f"{adapter} against {verdict.against or 'the base'}, attempt {verdict.attempt}"
    yield rule
    for number, row in enumerate(rows):
        yield _line(row, widths)
        if number == 0:
            yield rule
    yield rule
    yield f"verdict: {verdict.decision}"
    yield from (f"  {reason}" for reason in verdict.reasons)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    """The first cell begins, and the last one too; the numbers between them end where their column does."""
    cells = (
        cell.ljust(width) if place in (0, len(row) - 1) else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join(cells).rstrip()
