"""Files of results: what a benchmark that was cut finds when it continues."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import ValidationError

from bench.harness.results import OtherOrigin, Records, Results


@dataclass(frozen=True)
class Found:
    seed: int
    note: str


@dataclass(frozen=True)
class Source:
    commit: str


ONE, TWO = Found(1, "a\nb"), Found(2, "größe")


def records(file: Path) -> Records[Found]:
    return Records(file, Found)


def results(file: Path) -> Results[Source, Found]:
    return Results(file, Source, Found)


def test_records_are_read_as_they_were_added(tmp_path: Path) -> None:
    file = tmp_path / "new" / "records.jsonl"

    assert records(file).read() == []
    records(file).append(ONE)
    records(file).append(TWO)

    assert records(file).read() == [ONE, TWO]
    assert len(file.read_text().splitlines()) == 2


@pytest.mark.parametrize("cut", [1, 2, 10])
def test_a_record_after_a_line_that_was_cut_is_on_a_line_of_its_own(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "records.jsonl"
    records(file).append(ONE)
    records(file).append(ONE)
    file.write_bytes(file.read_bytes()[:-cut])
    whole = 2 if cut == 1 else 1

    assert records(file).read() == [ONE] * whole
    records(file).append(TWO)

    assert records(file).read() == [*[ONE] * whole, TWO]


def test_a_whole_line_of_another_form_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text('{"seed": 1}\n')

    with pytest.raises(ValidationError):
        records(file).read()


def test_the_origin_is_no_record(tmp_path: Path) -> None:
    made = results(tmp_path / "new" / "results.jsonl")

    made.begin(Source("abc1234"))
    made.append(ONE)
    made.begin(Source("abc1234"))

    assert made.origin() == Source("abc1234")
    assert made.read() == [ONE]


def test_results_of_another_origin_are_left_alone(tmp_path: Path) -> None:
    made = results(tmp_path / "results.jsonl")
    made.begin(Source("abc1234"))
    before = made.file.read_bytes()

    with pytest.raises(OtherOrigin, match=r"another origin \(Source\(commit='abc1234'\)\)"):
        made.begin(Source("def5678"))

    assert made.file.read_bytes() == before
