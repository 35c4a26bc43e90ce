import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from service.cli.main import serve
from service.engines.thoughts import Thinking
from service.evaluators.external.webhook_client import WebhookSettings
from service.settings import Settings

DIGEST = hashlib.sha256(b"secret").hexdigest()


def test_defaults_need_nothing() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.engine, settings.model) == ("127.0.0.1", 8000, "vllm", "bundled")
    assert settings.keys == ()


def test_environment_is_read_and_settings_are_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDRAFT_ENGINE_ARGS", '{"max_model_len": 512}')
    monkeypatch.setenv("REDRAFT_MAX_PROGRAMS_PER_KEY", "3")
    monkeypatch.setenv("REDRAFT_TASKS_DIR", "")
    settings = Settings()
    assert settings.engine_args == {"max_model_len": 512}
    assert settings.max_programs_per_key == 3
    assert settings.tasks_dir is None
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"),
        ("ENGINE", "openai"),
        ("STORED_TRACES_DAYS", "0"),
        ("REDACTION", "a hook"),
        ("ENGINE_URLS", "http://a"),
        ("ENGINE_URLS", "http://name:hush@a"),
        ("ENGINE_URLS", "ftp://a"),
        ("ENGINE_URLS", "http://a?key=hush"),
        ("ENGINE_URLS", "http://a/v1#hush"),
        ("ENGINE_URLS", "http://b, http://a?key=hush"),
        ("ENGINE_URLS", "http://a b"),
        ("ENGINE_URLS", "http://[::1"),
        ("ENGINE_URLS", "http://a:99999"),
        ("ENGINE_URLS", "http://a,"),
        ("ENGINE_KEY", "hush\n"),
        ("TOKENIZER", "a"),
        ("ENGINE_ARGS", "[1]"),
        ("ENGINE_ARGS", "{"),
        ("MAX_PROGRAMS", "0"),
        ("MAX_SECONDS", "inf"),
        ("LOG_LEVEL", "loud"),
        ("WEBHOOKS", "[]"),
        ("WEBHOOKS", '{"a b": {"url": "http://hush"}}'),
        ("WEBHOOKS", '{"a": {}}'),
        ("WEBHOOKS", '{"a": {"url": "hush"}}'),
        ("WEBHOOKS", '{"a": {"url": "ftp://hush/"}}'),
        ("WEBHOOKS", '{"a": {"url": "http:///hush"}}'),
        ("WEBHOOKS", '{"a": {"url": "http://user:hush@host/"}}'),
        ("WEBHOOKS", '{"a": {"url": "http://host/#hush"}}'),
        ("WEBHOOKS", '{"a": {"url": "http://host:hush/"}}'),
        ("WEBHOOKS", '{"a": {"url": "http://host:65536/hush"}}'),
        ("WEBHOOKS", '{"a": {"url": "http://hush/", "authority": "oracle"}}'),
        ("WEBHOOKS", '{"a": {"url": "http://hush/", "timeout_seconds": 61}}'),
        ("WEBHOOKS", '{"a": {"url": "http://hush/", "timeout_seconds": 0}}'),
        ("WEBHOOKS", '{"a": {"url": "http://hush/", "secret": "hush"}}'),
        ("WEBHOOK_HOSTS", "hooks.example.com"),
        ("IMAGE_HOSTS", "images.example.com"),
        ("IMAGE_HOSTS", '["https://images.example.com"]'),
        ("IMAGE_HOSTS", '["10.0.0.1"]'),
    ],
)
def test_values_out_of_bounds_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"REDRAFT_{name}", value)
    with pytest.raises(ValueError, match=name.lower()) as raised:
        Settings()
    assert "hush" not in str(raised.value)


def test_traces_need_a_database() -> None:
    with pytest.raises(ValueError, match="REDRAFT_STORED_TRACES needs REDRAFT_STORE"):
        Settings(stored_traces=True)


def test_webhooks(monkeypatch: pytest.MonkeyPatch) -> None:
    webhooks = {
        "a": {"url": "http://host/?hush", "timeout_seconds": 0.5, "secret_file": "secret"},
        "B.1-_": {"url": "https://host", "authority": "judge"},
    }
    monkeypatch.setenv("REDRAFT_WEBHOOKS", json.dumps(webhooks))
    monkeypatch.setenv("REDRAFT_WEBHOOK_HOSTS", '["hooks.example.com"]')
    settings = Settings()
    assert settings.webhooks == {
        "a": WebhookSettings(url="http://host/?hush", timeout_seconds=0.5, secret_file=Path("secret")),
        "B.1-_": WebhookSettings(url="https://host", authority="judge", timeout_seconds=10.0),
    }
    assert settings.webhook_hosts == ["hooks.example.com"]
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PORT", "65536", "REDRAFT_PORT: Input should be less than or equal to 65535"),
        (
            "WEBHOOKS",
            '{"House": {"url": "http://host/", "x": 1}}',
            "REDRAFT_WEBHOOKS.House.x: Unexpected keyword argument",
        ),
        ("PROT", "1", "unknown setting REDRAFT_PROT; did you mean REDRAFT_PORT?"),
    ],
)
def test_the_operator_is_told_which_setting_keeps_the_service_from_starting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(f"REDRAFT_{name}", value)

    assert serve() == 1
    assert capsys.readouterr().out == f"Cannot start: {told}\n"


def test_unknown_variable_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDRAFT_MAX_PROGRAM", "3")
    with pytest.raises(ValueError, match="unknown setting REDRAFT_MAX_PROGRAM; did you mean REDRAFT_MAX_PROGRAMS"):
        Settings()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_reachable_host_needs_keys(host: str) -> None:
    with pytest.raises(ValueError, match="REDRAFT_ALLOW_ANONYMOUS=true"):
        Settings(host=host)
    assert Settings(host=host, allow_anonymous=True).host == host
    assert Settings(host=host, api_keys=f"ann:{DIGEST}").host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_keys(host: str) -> None:
    assert Settings(host=host).host == host


def test_a_file_without_a_key_does_not_open_the_service(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# none yet\n")
    with pytest.raises(ValueError, match="it contains no key"):
        Settings(api_keys_file=file)


def test_keys_come_from_both_places(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# staff\n\nbob:{DIGEST}  # until May\n")
    settings = Settings(api_keys=f"ann:{DIGEST}, ann:{DIGEST.upper()}", api_keys_file=file)
    assert [name for name, _ in settings.keys] == ["ann", "ann", "bob"]
    assert {digest.hex() for _, digest in settings.keys} == {DIGEST}
    assert DIGEST not in repr(settings)


@pytest.mark.parametrize("entry", ["secret", "ann:secret", f"a b:{DIGEST}", f"ann:{DIGEST}0", f":{DIGEST}", "ann:"])
def test_bad_keys_are_refused_without_printing_them(tmp_path: Path, entry: str) -> None:
    file = tmp_path / "keys"
    file.write_text(f"ann:{DIGEST}\n{entry}\n")
    with pytest.raises(ValueError, match="REDRAFT_API_KEYS, entry 2") as from_variable:
        Settings(api_keys=f"ann:{DIGEST},{entry}")
    with pytest.raises(ValueError, match="line 2") as from_file:
        Settings(api_keys_file=file)
    for raised in (from_variable, from_file):
        assert DIGEST not in str(raised.value)
        assert "secret" not in str(raised.value)


def test_missing_keys_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read: FileNotFoundError"):
        Settings(api_keys_file=tmp_path / "none")


def test_table_lists_every_setting() -> None:
    table = {name: (default, meaning) for name, default, meaning in Settings.table()}
    assert len(table) == len(Settings.model_fields)
    assert table["REDRAFT_PORT"][0] == "8000"
    assert table["REDRAFT_ALLOW_ANONYMOUS"][0] == "false"
    assert table["REDRAFT_TASKS_DIR"][0] == "none"
    assert all(meaning for _, meaning in table.values())


def test_remote_servers_are_a_list_that_names_each_once() -> None:
    settings = Settings(engine="openai", engine_urls="http://a/v1, https://b:8000,http://a/v1", model="a model")
    assert settings.servers.urls == ("http://a/v1", "https://b:8000")


@pytest.mark.parametrize("url", ["http://a?key=hush", "http://a#hush", "http://me:hush@a", "http://hush@a"])
def test_an_address_that_may_hold_a_secret_is_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(ValueError, match="must not have a query, a fragment or a user name") as refused:
        Settings(engine="openai", engine_urls=f"http://b,{url}", model="a model")

    assert "hush" not in str(refused.value)


def test_how_a_model_thinks_is_set_for_the_engine_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDRAFT_REASONING_PARSER", "qwen3")
    monkeypatch.setenv("REDRAFT_CHAT_TEMPLATE_KWARGS", '{"enable_thinking": false}')

    assert Settings().thinking == Thinking("qwen3", {"enable_thinking": False})


def test_a_parser_of_vllm_s_is_no_setting_for_remote_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("ENGINE", "openai"),
        ("ENGINE_URLS", "http://a"),
        ("MODEL", "m"),
        ("REASONING_PARSER", "qwen3"),
    ):
        monkeypatch.setenv(f"REDRAFT_{name}", value)
    with pytest.raises(ValueError, match="start remote servers with --reasoning-parser"):
        Settings()

    monkeypatch.setenv("REDRAFT_REASONING_PARSER", "none")
    assert Settings().servers.thinking == Thinking("none")


@pytest.mark.parametrize(
    "value",
    [
        "https://a.example,https://b.example",
        " https://a.example , https://b.example,",
        '["https://a.example", "https://b.example"]',
    ],
)
def test_lists_are_written_between_commas_or_as_json(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDRAFT_CORS_ORIGINS", value)

    assert Settings().cors_origins == ["https://a.example", "https://b.example"]


def test_a_list_that_is_broken_json_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDRAFT_ALLOWED_HOSTS", '["a.example"')

    with pytest.raises(ValueError, match="allowed_hosts"):
        Settings()


def test_learning_needs_the_engine_in_this_process_and_a_free_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="REDRAFT_LEARNING_DIR needs the engine vllm"):
        Settings(engine="scripted", learning_dir=tmp_path)
    server: Any = {"urls": ["http://a:1"]}
    with pytest.raises(ValueError, match="no other model may be called 'learned'"):
        Settings(models={"learned": server}, learning_dir=tmp_path)
    assert Settings(learning_dir=tmp_path).served_names[1:] == ("learned",)


@pytest.mark.parametrize(
    ("settings", "operators"),
    [
        ({}, None),
        ({"host": "0.0.0.0", "allow_anonymous": True}, set()),
        ({"api_keys": f"a:{'0' * 64},b:{'1' * 64}"}, set()),
        ({"api_keys": f"a:{'0' * 64},b:{'1' * 64}", "operators": "b"}, {"b"}),
    ],
)
def test_operators_are_named_or_on_this_machine(settings: dict[str, Any], operators: set[str] | None) -> None:
    assert Settings(**settings).operator_names == operators
    with pytest.raises(ValueError, match="no key is called 'nobody'"):
        Settings(**{**settings, "operators": "nobody"})
