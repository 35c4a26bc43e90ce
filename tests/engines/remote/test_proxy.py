"""Which proxy a server is reached through, by the variables that desktops and containers export."""

import os

import pytest

from service.engines.remote.proxy import proxy_for
from service.engines.served import EngineMisconfigured

REMOTE = "http://engine.example:8000"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000", "http://[::1]:8000", "http://localhost", "http://a.localhost/v1"]
)
@pytest.mark.parametrize("proxy", ["http://proxy.example:3128", "socks://127.0.0.1:7890", "nonsense://"])
def test_this_machine_is_reached_without_one(monkeypatch: pytest.MonkeyPatch, url: str, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("HTTP_PROXY", proxy)

    assert proxy_for(url) is None


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({}, None),
        ({"HTTP_PROXY": "http://proxy.example:3128"}, "http://proxy.example:3128"),
        ({"http_proxy": "proxy.example:3128"}, "http://proxy.example:3128"),
        ({"ALL_PROXY": "http://proxy.example"}, "http://proxy.example"),
        ({"HTTPS_PROXY": "socks5://127.0.0.1:9"}, None),
        ({"ALL_PROXY": "socks://127.0.0.1:9", "HTTP_PROXY": "http://a"}, "http://a"),
        ({"ALL_PROXY": "socks://127.0.0.1:9", "NO_PROXY": "engine.example"}, None),
        ({"HTTP_PROXY": "http://a", "NO_PROXY": "localhost, .example"}, None),
        ({"HTTP_PROXY": "http://a", "NO_PROXY": "*"}, None),
        ({"HTTP_PROXY": "http://a", "NO_PROXY": "127.0.0.1,[::1],other.example"}, "http://a"),
    ],
)
def test_another_machine_is_reached_as_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], proxy: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert proxy_for(REMOTE) == proxy


def test_an_address_in_brackets_may_be_exempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://a")
    monkeypatch.setenv("NO_PROXY", "[2001:db8::1]")

    assert proxy_for("http://[2001:db8::1]:8000") is None


@pytest.mark.parametrize("proxy", ["socks://me:hush@a:1", "socks5h://me:hush@a:1", "ftp://hush", "http://hush:port"])
def test_one_that_cannot_be_used_is_refused_without_being_repeated(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(EngineMisconfigured) as refused:
        proxy_for(REMOTE)

    assert "ALL_PROXY" in str(refused.value)
    assert "hush" not in str(refused.value)
