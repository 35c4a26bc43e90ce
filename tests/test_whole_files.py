"""Files that appear whole or not at all."""

from pathlib import Path

import pytest

from service.whole_files import aside_of, write_whole


def test_a_file_is_written_with_the_folders_above_it_and_may_be_read_by_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.json"

    write_whole(path, "浪\n")

    assert path.read_text(encoding="utf-8") == "浪\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def full(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_whole(path, "after")

    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_until_it_is_whole_a_file_has_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr("os.fsync", lambda descriptor: seen.extend(file.name for file in tmp_path.iterdir()))

    write_whole(tmp_path / "file", "text")

    [name] = seen
    assert name.startswith(aside_of("file"))
