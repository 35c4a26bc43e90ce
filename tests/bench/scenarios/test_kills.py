"""The check that kills the service, with the scripted engine in place of the real one."""

from pathlib import Path

import pytest

from bench.scenarios.kills import Options, alike, comparable, run


@pytest.mark.timeout(240)
async def test_a_killed_service_ends_its_jobs_and_the_check_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDRAFT_ENGINE", "scripted")
    options = Options(folder=tmp_path, jobs=3, kills=1)
    expected, found, work, state = await run(options)
    again = await run(options)

    assert [job.state for job in found] == ["completed"] * 3
    assert [comparable(job.outcome) for job in found] == [comparable(job.outcome) for job in expected]
    assert (state.kills, state.repeated) == (1, 0)
    assert len(work.calls()) > 0
    assert again[1] == found


def test_what_changes_from_run_to_run_is_left_out() -> None:
    assert comparable({"id": 1, "usage": {"seconds": 2, "calls": 3}, "rounds": [{"id": 4}]}) == {
        "usage": {"calls": 3},
        "rounds": [{}],
    }


def test_only_scores_may_differ_and_only_a_little() -> None:
    result = {"text": "Waves.", "calls": 3, "scores": [0.5, None]}

    assert alike(result, {**result, "scores": [0.505, None]})
    assert not alike(result, {**result, "scores": [0.6, None]})
    assert not alike(result, {**result, "scores": [0.5]})
    assert not alike(result, {**result, "calls": 4})
    assert not alike(result, {**result, "text": "Waves"})
