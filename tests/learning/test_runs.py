"""A run says how far it has come, also to other processes, and a killed one is not taken to be at work."""

import subprocess
import sys
from pathlib import Path

import pytest

from service.learning.runs import KEPT, read_run, read_runs, record_run

ROOT = Path(__file__).parents[2]
KILLED = """
import os, signal, sys
from pathlib import Path
from service.learning.runs import record_run
with record_run(Path(sys.argv[1]), "quick") as record:
    record.begin("train")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_shows_how_far_it_has_come_and_what_came_of_it(tmp_path: Path) -> None:
    with record_run(tmp_path, "quick") as record:
        record.begin("collect")
        record.show(3, 8, "so far")
        [working] = read_runs(tmp_path)
        record.begin("exam")
        record.give("abc", "promote")
    [ended] = read_runs(tmp_path)

    assert (working.state, working.step, working.done, working.total, working.note) == (
        "running",
        "collect",
        3,
        8,
        "so far",
    )
    assert (ended.state, ended.step, ended.done, ended.note) == ("ended", "exam", None, "")
    assert (ended.adapter, ended.decision, ended.recipe) == ("abc", "promote", "quick")
    assert ended.finished_at
    assert read_run(tmp_path, ended.id) == ended
    assert read_run(tmp_path, "../runs") is None


def test_a_run_fails_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too few"), record_run(tmp_path):
        raise ValueError("too few")

    [run] = read_runs(tmp_path)
    assert (run.state, run.error) == ("failed", "too few")


def test_a_run_whose_process_was_killed_has_failed(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, check=False)

    [run] = read_runs(tmp_path)
    assert killed.returncode < 0
    assert (run.state, run.step, run.error) == ("failed", "train", "its process has ended")


def test_old_and_damaged_records_are_dropped(tmp_path: Path) -> None:
    for _ in range(KEPT + 2):
        with record_run(tmp_path):
            pass
    newest, *_ = kept = read_runs(tmp_path)
    (tmp_path / "runs" / newest.id / "state.json").write_text("{")

    assert len(kept) == KEPT
    assert [run.id for run in kept] == sorted((run.id for run in kept), reverse=True)
    assert read_runs(tmp_path) == kept[1:]
    assert read_runs(tmp_path / "nothing") == []


def test_the_record_of_a_run_at_work_stays_however_many_come_after_it(tmp_path: Path) -> None:
    with record_run(tmp_path) as record:
        for _ in range(KEPT + 2):
            with record_run(tmp_path):
                pass
        working = read_run(tmp_path, record.run.id)

    assert working is not None
    assert working.state == "running"


def test_a_full_disk_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("service.learning.runs.write_whole", full)
    with record_run(tmp_path) as record:
        record.begin("train")

    assert record.run.state == "ended"
