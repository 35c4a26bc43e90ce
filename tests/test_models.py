"""Further models in the settings: what is taken, what is refused, and that no message holds a key."""

import json
from pathlib import Path

import pytest

from service.engines.thoughts import Thinking
from service.models import Adapter, RemoteModel, Servers
from service.settings import Settings

URL = "http://a:1/v1"


def settings(monkeypatch: pytest.MonkeyPatch, models: object, **environment: str) -> Settings:
    monkeypatch.setenv("REDRAFT_MODELS", models if isinstance(models, str) else json.dumps(models))
    for name, value in environment.items():
        monkeypatch.setenv(f"REDRAFT_{name}", value)
    return Settings()


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    (tmp_path / "adapter_config.json").write_text('{"r": 8}')
    return tmp_path


def test_models_have_names_servers_and_adapters(monkeypatch: pytest.MonkeyPatch, adapter: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("hush\n")
    stated = {
        "org/judge-72b": {"urls": [URL, "http://b", URL], "model": "big", "key_file": str(key), "tokenizer": "org/t"},
        "plain": {"urls": [URL]},
        "thinker": {"urls": [URL], "reasoning_parser": "none", "chat_template_kwargs": {"thinking": True}},
        "style": {"adapter": str(adapter)},
    }
    made = settings(monkeypatch, stated, CRITIC="style", JUDGE="org/judge-72b")

    assert made.model_names == ("SmolLM2-135M-Instruct", "org/judge-72b", "plain", "thinker", "style")
    assert (made.critic, made.judge, made.adapters) == ("style", "org/judge-72b", [adapter])
    judge, plain, thinker, style = made.models.values()
    assert isinstance(judge, RemoteModel)
    assert isinstance(plain, RemoteModel)
    assert isinstance(thinker, RemoteModel)
    assert thinker.servers("thinker").thinking == Thinking("none", {"thinking": True})
    assert style == Adapter(adapter=adapter)
    assert judge.servers("org/judge-72b") == Servers((URL, "http://b"), "big", "hush", "org/t")
    assert plain.servers("plain") == Servers((URL,), "plain")
    assert "hush" not in repr((made, judge, judge.servers("org/judge-72b")))


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ("[]", "dict"),
        ({"a:b": {"urls": [URL]}}, "pattern"),
        ({"a": {}}, "urls"),
        ({"a": {"urls": []}}, "urls"),
        ({"a": {"urls": ["ftp://a"]}}, "urls"),
        ({"a": {"urls": ["http://name:hush@a"]}}, "urls"),
        ({"a": {"urls": [URL, "http://a?key=hush"]}}, "must not have a query, a fragment or a user name"),
        ({"a": {"urls": [URL], "key": "hush"}}, "key"),
        ({"a": {"urls": [URL], "key_file": "/no/such/file"}}, "/no/such/file cannot be read: FileNotFoundError"),
        ({"a": {"adapter": "/no/such/folder"}}, "/no/such/folder is not the folder of an adapter"),
        ({"a": {"adapter": "/no/such/folder", "urls": [URL]}}, "urls"),
        ({"SmolLM2-135M-Instruct": {"urls": [URL]}}, "the main model's name"),
    ],
)
def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, models: object, said: str) -> None:
    with pytest.raises(ValueError, match=r"models|MODELS") as refused:
        settings(monkeypatch, models)

    assert said in str(refused.value)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("content", ["", "\n", "hush hush", "hush\nhush", "hüsh"])
def test_a_file_that_holds_no_key_is_refused_untold(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "key"
    file.write_text(content)

    with pytest.raises(ValueError, match=str(file)) as refused:
        settings(monkeypatch, {"a": {"urls": [URL], "key_file": str(file)}})

    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("setting", ["CRITIC", "JUDGE"])
def test_a_role_for_nobody_is_refused(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting}: unknown model 'x'; known are SmolLM2-135M-Instruct, a"):
        settings(monkeypatch, {"a": {"urls": [URL]}}, **{setting: "x"})


def test_adapters_need_the_engine_in_this_process(monkeypatch: pytest.MonkeyPatch, adapter: Path) -> None:
    with pytest.raises(ValueError, match="need the engine vllm"):
        settings(monkeypatch, {"a": {"adapter": str(adapter)}}, ENGINE="scripted")
