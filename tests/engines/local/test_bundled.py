import errno
import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from service.engines.local import bundled


def test_weights_that_are_not_installed_are_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "PACKAGE", "no-such-package")

    with pytest.raises(
        bundled.WeightsMissing, match="no-such-package is not installed; install it or set REDRAFT_MODEL"
    ):
        bundled.packaged_file()


def test_a_package_without_the_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "GGUF_FILE", "other.gguf")

    with pytest.raises(bundled.WeightsMissing, match=r"does not hold other\.gguf"):
        bundled.packaged_file()


def test_damaged_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "GGUF_SHA256", "0" * 64)

    with pytest.raises(bundled.WeightsMissing, match="damaged"):
        bundled.packaged_file()


def test_the_packaged_file_is_the_one_that_is_known() -> None:
    assert bundled.packaged_file().name == bundled.GGUF_FILE


def test_the_checkpoint_lies_in_the_cache_folder_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")

    assert str(bundled.checkpoint()).startswith(f"/somewhere/redraft/{bundled.NAME}-")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the checkpoint of a new user will be; its conversion takes no time, and makes the smallest there is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(bundled, "_convert", lambda source, target: write(target))
    return bundled.checkpoint()


def write(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text('{"architectures": [], "model": {}, "tokenizer_class": ""}')
    save_file({"w": torch.zeros(4)}, folder / "model.safetensors")


def cut(name: str, left: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, left)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "config.json is not JSON": cut("config.json", 3),
    "config.json has no architectures": lambda folder: (folder / "config.json").write_text("{}"),
    "tokenizer.json has no model": lambda folder: (folder / "tokenizer.json").write_text("[]"),
    "config.json: No such file or directory": lambda folder: (folder / "config.json").unlink(),
    "tokenizer.json is not JSON": lambda folder: (folder / "tokenizer.json").write_bytes(b"\xff{}"),
    "there are no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "model.safetensors is cut off or damaged": cut("model.safetensors", 70),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_a_damaged_checkpoint_is_found_and_converted_again(folder: Path, reason: str) -> None:
    write(folder)
    DAMAGES[reason](folder)
    assert bundled.damage(folder) == reason
    assert not bundled.is_prepared()

    assert bundled.prepare() == folder

    assert bundled.damage(folder) is None
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("left", [0, 7, 8, 20, 70, 79])
def test_weights_that_are_cut_anywhere_are_damaged(folder: Path, left: int) -> None:
    write(folder)
    size = (folder / "model.safetensors").stat().st_size
    assert left < size

    cut("model.safetensors", left)(folder)

    assert bundled.damage(folder) == "model.safetensors is cut off or damaged"


def test_weights_with_a_header_that_lies_are_damaged(folder: Path) -> None:
    write(folder)
    for content in (
        b"\xff" * 64,
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 9) + b"{",
    ):
        (folder / "model.safetensors").write_bytes(content)
        assert bundled.damage(folder) == "model.safetensors is cut off or damaged"


def test_a_damaged_checkpoint_without_the_package_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder)
    cut("config.json", 3)(folder)
    monkeypatch.setattr(bundled, "PACKAGE", "no-such-package")

    with pytest.raises(
        bundled.WeightsMissing, match=r"is damaged \(config\.json is not JSON\), delete it; .*install it"
    ):
        bundled.prepare()


def test_a_whole_checkpoint_is_left_alone(folder: Path) -> None:
    write(folder)
    (folder / "note").touch()

    assert bundled.is_prepared()
    assert bundled.prepare() == folder
    assert (folder / "note").exists()


def test_leftovers_of_killed_conversions_are_removed_and_those_of_living_ones_are_not(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    dead, living, new = (folder.parent / f".converting-{name}" for name in ("dead", "living", "new"))
    for path in (dead, living, new):
        path.mkdir()
        (path / "part").touch()
    for path in (dead, living):
        os.utime(path, (0, 0))
    lock = os.open(living, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)

    bundled.prepare()

    os.close(lock)
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, living.name, new.name}


@pytest.mark.parametrize("damaged", [False, True])
def test_a_disk_that_is_full_is_named_with_the_way_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    if damaged:
        write(folder)
        cut("config.json", 0)(folder)

    def fail(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bundled, "_convert", fail)
    with pytest.raises(bundled.WeightsMissing, match=r"No space left on device.*XDG_CACHE_HOME") as raised:
        bundled.prepare()
    assert ("delete it" in str(raised.value)) is damaged
    assert list(folder.parent.glob(".*")) == []


def test_a_home_that_cannot_be_written_ends_the_command_with_a_sentence(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.touch()  # no folder can be made below it, not even by root
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-m", "service", "prepare"], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("Cannot prepare: the embedded model cannot be written to ")
    assert "Not a directory" in done.stdout
