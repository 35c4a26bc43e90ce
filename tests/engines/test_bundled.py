import pytest

from service.engines import bundled


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
