"""Calibrations on disk."""

from pathlib import Path

import pytest

from service.calibration.measurement import ScoredPair, measure
from service.calibration.store import CalibrationError, built_in_path, default_path, load, save

FOUND = measure([ScoredPair(0.9, 0.1)], judge="abc", model="m", source="calibrated")


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "new" / "judge.json"

    save(FOUND, path)

    assert load(path) == FOUND
    assert [file.name for file in path.parent.iterdir()] == ["judge.json"]


def test_the_cache_folder_is_the_user_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert default_path("abc") == tmp_path / "redraft" / "judges" / "abc.json"
    assert built_in_path("abc").parent == default_path("abc").parent
    assert built_in_path("abc") != default_path("abc")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file or directory"),
        ("nonsense", "is not a calibration: Invalid JSON"),
        (FOUND.model_dump_json().replace('"pairs":1', '"pairs":0'), "is not a calibration: pairs: "),
        (FOUND.model_dump_json().replace('"format":1', '"format":2'), "is not a calibration: format: "),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, content: str | None, problem: str) -> None:
    path = tmp_path / "judge.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(CalibrationError) as raised:
        load(path)

    assert str(raised.value).startswith(f"{path} {problem}")
