"""The file that keeps what was measured."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.harness.results import OtherOrigin
from bench.performance.results import Results
from tests.bench.performance.stand_ins import ORIGIN, RATES, make_wave


def test_a_file_gives_back_what_it_was_given(tmp_path: Path) -> None:
    results = Results(tmp_path / "performance.jsonl")
    results.begin(ORIGIN)
    results.append(make_wave())
    results.append(RATES[0])
    results.begin(ORIGIN)
    assert (results.origin(), results.waves(), results.rates()) == (ORIGIN, [make_wave()], [RATES[0]])


def test_another_commits_waves_are_not_mixed_in(tmp_path: Path) -> None:
    results = Results(tmp_path / "performance.jsonl")
    results.begin(ORIGIN)
    with pytest.raises(OtherOrigin):
        results.begin(replace(ORIGIN, commit="def5678"))
