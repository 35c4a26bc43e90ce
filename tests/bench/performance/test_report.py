"""What waves amount to: floors, ratios, bars, checks, the section and the plot."""

from dataclasses import replace
from datetime import date
from pathlib import Path

from bench.harness.spread import Spread
from bench.performance import report
from bench.performance.results import Counted, Rates, Results, Wave
from bench.performance.waves import floor
from tests.bench.performance.stand_ins import ORIGIN, RATES, make_wave


def test_the_floor_is_what_was_never_seen_and_the_decode_steps_at_the_cells_median_rates() -> None:
    assert floor(make_wave(), RATES) == 1_000 / 1_000 + (960 - 10) / 190


def test_a_speedup_compares_waves_of_the_same_repetition() -> None:
    ours = [make_wave(wall=5, repetition=0), make_wave(wall=10, repetition=1), make_wave(wall=1, repetition=2)]
    theirs = [make_wave("textbook", 20, repetition=1), make_wave("textbook", 5, repetition=0)]
    assert report.speedup(ours, theirs) == Spread(1.5, 1.0, 2.0)
    assert report.speedup(ours[2:], theirs) is None


def test_recomputed_tokens_with_and_without_rounding() -> None:
    accounts = [make_wave().account, replace(make_wave().account, cached=1_700)]
    assert report.recomputed_ratio(accounts, rounding=True) == (1_100 + 1_300) / 2_000
    assert report.recomputed_ratio(accounts, rounding=False) == (1_040 + 1_240) / 2_000


def test_a_bar_is_met_by_the_worst_cell_and_arm_or_not_run() -> None:
    waves = [
        make_wave("redraft", 8),
        make_wave("redraft_judge", 12),
        make_wave("textbook", 16),
        make_wave("one_chat", 7),
    ]
    waves[1] = replace(waves[1], account=replace(waves[1].account, cached=1_600))
    found = {bar.text: bar for bar in report.bars(report.group_waves(waves), RATES)}
    account_bar = found["computed / never seen, without rounding, 512 tokens: at most 1.20"]
    assert (account_bar.measured, account_bar.met) == (1.34, False)
    slower = found["fixed lengths, every cell, times B2: at least 1.00"]
    assert (slower.measured, slower.met) == (7 / 8, False)
    unknown = found["fixed lengths, 512x8, times B1: at least 1.30"]
    assert (unknown.measured, unknown.met) == (None, False)


def test_checks_tell_of_other_counts_lengths_and_evictions() -> None:
    sound = replace(make_wave(), counted=Counted(10, 3_000, 1_900, 960, 0))
    assert "differ by at most 0." in report.checks([sound])[0]
    assert report.checks([sound])[1].endswith("planned: 0.")
    doubtful = replace(sound, counted=Counted(9, 3_010, 1_900, 960, 2))
    judged = replace(make_wave("redraft_judge"), counted=Counted(28 - 3, 3_000, 1_900, 960 + 15, 0))
    apart, unequal, spared, strangers, preempted, evicted = report.checks([doubtful, judged])
    assert "at most 10." in apart
    assert unequal.endswith("planned: 1.")
    assert spared.endswith("text: 3.")
    assert strangers.endswith("0.25 on average, 0.25 in the worst wave.")
    assert preempted == "Preemptions: 2."
    assert evicted.endswith("80.")


def test_the_section_and_the_plot_hold_every_arm_that_ran(tmp_path: Path) -> None:
    results = Results(tmp_path / "results" / "performance.jsonl")
    results.begin(ORIGIN)
    waves = [
        make_wave(arm, 10 + place) for place, arm in enumerate(("textbook", "one_chat", "redraft", "redraft_judge"))
    ]
    waves.append(make_wave("self_refine", lengths="natural"))
    records: list[Wave | Rates] = [*waves, *RATES]
    for record in records:
        results.append(record)
    page = report.section(results, date(2026, 1, 2))
    assert "Model a-model, 2026-01-02, commit abc1234. a machine; vllm 1;" in page
    row = next(line for line in page.splitlines() if line.startswith("| Redraft, the same calls |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:7] == ["10 (10 to 10)", "80", "11.5", "11.9", "0.83 (0.83 to 0.83)", "0.92 (0.92 to 0.92)"]
    assert cells[7:] == ["2.00", "5.0", "1,500", "550", "480", "1.100", "1.040"]
    assert "| Redraft, preset `self_refine` |" in page
    report.plot(results.waves(), tmp_path / "performance.svg")
    assert "<svg" in (tmp_path / "performance.svg").read_text()
