"""An exam in numbers: as a table, on the card and in the terminal."""

from service.cli.exam_table import describe
from service.learning.exam import Sat
from service.learning.figures import HEADINGS, figures_of, tabulate
from service.learning.gate import Judgement, Part, Results, Texts
from service.learning.refining import Refinement
from tests.support.adapters import make_verdict

OF_LAST_YEAR = {
    "trained.prompts": 120.0,
    "trained.incumbent.passed": 0.14,
    "trained.incumbent.bad": 0.3,
    "trained.candidate.passed": 0.215,
    "trained.gain": 0.075,
    "trained.gain.low": 0.02,
    "trained.gain.high": 0.12,
    "agreement": 1.0,
}
"""Figures from before the exam had further parts."""


def test_each_part_is_a_row() -> None:
    results = Results(
        Part([0.0] * 10, [0.5] * 10),
        {"plain": Part([-2.0] * 10, [-9.0] * 10, 0.1, 0.5, "nats"), "refine": Part([0.0, 1.0], [1.0, 1.0], 0.2)},
        Texts(10, 2, 600),
        Texts(10, 1, 500),
    )
    spent = Refinement(False, 900, False), Refinement(True, 100, False)
    figures = figures_of(Sat(results, Judgement("reject"), (spent, (spent[1], spent[1]))), 0.99)

    assert figures["plain.gain"] == -0.5
    assert tabulate(figures) == [
        ("trained kinds of rules: pass", "10", "0.0%", "50.0%", "+50.0 (+50.0 to +50.0) points"),
        ("texts without rules: nats a token", "10", "-2.000", "-9.000", "-0.500 (-0.500 to -0.500)"),
        ("refined texts: pass", "2", "50.0%", "100.0%", "+50.0 (+0.0 to +100.0) points"),
        ("refined texts: tokens for each that passes", "", "1000", "100", ""),
        ("single drafts: cut, empty or looping", "", "20.0%", "10.0%", ""),
        ("single drafts: mean tokens", "", "60", "50", ""),
    ]


def test_where_nothing_passes_there_is_no_cost() -> None:
    figures = {"refine.candidate.tokens_per_pass": 700.0}

    assert tabulate(figures) == [("refined texts: tokens for each that passes", "", "-", "700", "")]


def test_an_exam_of_an_older_manifest_has_its_rows() -> None:
    assert tabulate(OF_LAST_YEAR) == [
        ("trained kinds of rules: pass", "120", "14.0%", "21.5%", "+7.5 (+2.0 to +12.0) points")
    ]


def test_the_terminal_has_aligned_columns_and_the_reasons() -> None:
    verdict = make_verdict("promote", "").model_copy(update={"figures": OF_LAST_YEAR})
    title, rule, headings, _, row, _, decision, reason = describe("7b2f", verdict)

    assert title == "7b2f against the base, attempt 1"
    assert headings.index(HEADINGS[-1]) == row.index("+7.5")
    assert headings.index("after") + len("after") == row.index("21.5%") + len("21.5%")
    assert len(row) == len(rule)
    assert (decision, reason) == ("verdict: promote", "  because")
