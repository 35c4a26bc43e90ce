"""Where the weights of a model are, by the settings."""

from pathlib import Path
from typing import Any

import pytest

from service.engines.local import bundled
from service.fleet import weights_of
from service.settings import Settings

URLS = "http://b:8000/v1, http://a:8000"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "style"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"engine": "scripted"}, "scripted"),
        ({"engine": "openai", "engine_urls": URLS, "model": "big"}, "big http://a:8000 http://b:8000/v1"),
        ({"model": "nobody/no-such-model"}, "nobody/no-such-model"),
        ({}, [bundled.checkpoint()]),
    ],
)
def test_the_main_model_s_weights(
    settings: dict[str, Any], expected: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    stated = Settings(**settings)

    assert weights_of(stated, stated.model_name) == expected


def test_a_folder_s_weights_and_an_adapter_s(tmp_path: Path, adapter: Path) -> None:
    settings = Settings(model=str(tmp_path), models={"style": {"adapter": adapter}})

    assert weights_of(settings, settings.model_name) == [tmp_path]
    assert weights_of(settings, "style") == [tmp_path, adapter]


def test_a_further_model_s_servers() -> None:
    remote: Any = {"urls": ["http://b:1", "http://a:1"], "model": "theirs"}
    settings = Settings(engine="scripted", models={"aide": remote})

    assert weights_of(settings, "aide") == "theirs http://a:1 http://b:1"
