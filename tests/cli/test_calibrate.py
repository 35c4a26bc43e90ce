"""``python -m service calibrate`` against the whole service over real HTTP."""

import json
from pathlib import Path

import pytest

from service.calibration.store import default_path, load
from service.engines.base import Choose, Sample
from service.engines.scripted import EngineCall, Script
from tests.cli.test_ask import Run, at, run
from tests.support.scripts import rated
from tests.support.serving import serving

__all__ = ["run"]


@pytest.fixture(autouse=True)
def _cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    file = tmp_path / "pairs.jsonl"
    lines = [{"request": f"Question {number}?", "right": "A good one.", "wrong": "A bad one."} for number in range(60)]
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


def knowing(call: Choose) -> list[float]:
    return list(rated(1.0 if "A good one." in call.prompt else 0.0))


async def test_what_was_found_is_printed_and_kept_for_the_next_start(run: Run, pairs: Path, tmp_path: Path) -> None:
    ended = await calibrated(run, pairs)

    assert ended[0] == 0
    assert "ranked rightly  60 of 60 pairs, 100%" in ended[1]
    assert "trust           drive: it may drive the loop" in ended[1]
    [kept] = (tmp_path / "cache" / "redraft" / "judges").iterdir()
    found = load(kept)
    assert kept == default_path(found.judge)
    assert (found.model, found.source, found.level, found.pairs) == ("scripted", "calibrated", "drive", 60)
    async with serving() as again:
        [model, *_] = (await again.client.get("/v1/models")).json()["data"]
        assert model["judge_digest"] == found.judge
        assert model["judge_trust"] == {"level": "drive", "share": 1.0, "source": "calibrated"}


async def calibrated(run: Run, pairs: Path, *options: str) -> tuple[int, str, str]:
    async with serving(Script(weights=knowing)) as served:
        ended = await run("calibrate", *at(served), "--pairs", str(pairs), *options)
        assert not [call for call in served.engine.calls if isinstance(call, Sample)]
    return ended.code, ended.out, ended.err


async def test_a_file_of_its_own_is_named_in_a_setting(run: Run, pairs: Path, tmp_path: Path) -> None:
    target = tmp_path / "judge.json"

    code, _, err = await calibrated(run, pairs, "--to", str(target))

    assert code == 0
    assert f"REDRAFT_CALIBRATION={target}" in "".join(err.split("\n"))
    assert load(target).level == "drive"


async def test_pairs_that_cannot_be_read_are_wrong_usage(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"request": "a", "right": "b"}')

    ended = await run("calibrate", "--pairs", str(file))

    assert ended.code == 2
    assert "line 1: wrong: Field required" in ended.err


async def test_a_pair_that_the_service_rejects_is_named(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    good = {"request": "a", "right": "b", "wrong": "c"}
    file.write_text("\n".join(map(json.dumps, [good, {**good, "task": "nothing"}])))

    code, out, err = await calibrated(run, file)

    assert (code, out) == (1, "")
    assert err.startswith("pair 2: ")
    assert "there is no such task" in err


async def test_a_judge_that_gives_no_answer_is_not_measured(run: Run, pairs: Path) -> None:
    def fault(call: EngineCall) -> None:
        raise ValueError("no such option")

    async with serving(Script(fault=fault)) as served:
        ended = await run("calibrate", *at(served), "--pairs", str(pairs))

    assert ended.code == 1
    assert "pair 1: the judge gave no answer: ValueError: no such option" in ended.err


async def test_a_service_that_is_not_there_is_said_to_be_so(run: Run, pairs: Path) -> None:
    ended = await run("calibrate", "--url", "http://127.0.0.1:9", "--pairs", str(pairs))

    assert ended.code == 1
    assert "Is the service running?" in ended.err
