import httpx
import pytest

from redraft import AsyncRedraft, InvalidProxy, Redraft
from redraft.proxies import find_proxy

VARIABLES = [f"{name}_proxy" for name in ("all", "http", "https", "no")]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("kind", [Redraft, AsyncRedraft])
@pytest.mark.parametrize("proxy", ["socks://127.0.0.1:7890", "socks5h://u:secret@127.0.0.1:7890", "gopher://x"])
def test_a_proxy_that_cannot_be_used_is_a_redraft_error(
    kind: type[Redraft] | type[AsyncRedraft], proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)

    with pytest.raises(InvalidProxy, match="NO_PROXY") as failed:
        kind("http://redraft.example")

    assert "secret" not in str(failed.value)


@pytest.mark.parametrize("kind", [Redraft, AsyncRedraft])
@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000", "http://127.3.2.1", "https://a.localhost"],
)
def test_this_machine_is_reached_without_a_proxy(
    kind: type[Redraft] | type[AsyncRedraft], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:7890")
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1,[::1]")

    kind(url)


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({}, "http://redraft.example", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://redraft.example", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, "https://redraft.example", None),
        ({"https_proxy": "http://p:2"}, "https://redraft.example", "http://p:2"),
        ({"ALL_PROXY": "http://p:3"}, "https://redraft.example", "http://p:3"),
        ({"ALL_PROXY": "http://p:3", "NO_PROXY": "[::1],.example"}, "http://redraft.example", None),
        ({"ALL_PROXY": "http://p:3", "NO_PROXY": "*"}, "http://redraft.example", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "[::1]"}, "http://redraft.example", "http://p:1"),
    ],
)
def test_the_environment_s_proxy(
    variables: dict[str, str], url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert find_proxy(httpx.URL(url)) == proxy
