"""Whom a caller's own URL can make this service connect to. Every connection of the process is counted."""

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import trustme
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from service.evaluators.base import Evaluation, RefusedField
from service.evaluators.external.webhook import Webhook
from service.evaluators.external.webhook_client import WebhookFailed, Webhooks
from service.evaluators.toolbox import Toolbox
from service.outbound import (
    ForbiddenAddress,
    IPAddress,
    PublicTransport,
    Resolve,
    is_public,
    parse_origin,
    parse_url,
)
from service.signatures import WebhookMisconfigured
from tests.evaluators.external.test_webhook import PASSED, submission
from tests.support.listener import answered, listening
from tests.support.listener import connects as connects  # a fixture

HOST = "hooks.example.com"
PUBLIC = "93.184.215.14"

REFUSED_URLS = [
    # other schemes
    "http://hooks.example.com/",
    "ftp://hooks.example.com/",
    "file:///etc/passwd",
    "gopher://hooks.example.com/",
    "https:hooks.example.com/",
    "https:/hooks.example.com/",
    "https:///hooks.example.com/",
    "//hooks.example.com/",
    "hooks.example.com/",
    "http\u017f://hooks.example.com/",
    # other hosts
    "https://",
    "https:///",
    "https://:443/",
    "https://example.com/",
    "https://evil.example/",
    "https://a.hooks.example.com/",
    "https://hooks.example.com.evil.example/",
    "https://hooks.example.community/",
    "https://hooks-example.com/",
    "https://hooks.example.com./",
    "https://.hooks.example.com/",
    "https://hooks..example.com/",
    "https://xn--hooks-.example.com/",
    "https://localhost/",
    "https://LOCALHOST/",
    "https://localhost.localdomain/",
    "https://metadata.google.internal/",
    "https://127.0.0.1.nip.io/",
    # addresses, in every notation
    "https://127.0.0.1/",
    "https://127.1/",
    "https://127.0.0.1./",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://017700000001/",
    "https://0177.0.0.1/",
    "https://0/",
    "https://169.254.169.254/latest/meta-data/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::127.0.0.1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fe80::1%eth0]/",
    "https://[fd00:ec2::254]/",
    "https://[::1%25hooks.example.com]/",
    # a user name, or what looks like one
    "https://hooks.example.com@127.0.0.1/",
    "https://hooks.example.com:443@127.0.0.1/",
    "https://user:password@hooks.example.com/",
    "https://127.0.0.1@hooks.example.com/",
    "https://@hooks.example.com/",
    "https://hooks.example.com%40127.0.0.1/",
    "https://hooks.example.com&@127.0.0.1/",
    "https://127.0.0.1#@hooks.example.com/",
    "https://127.0.0.1?@hooks.example.com/",
    "https://127.0.0.1\\@hooks.example.com/",
    "https://hooks.example.com\\@127.0.0.1/",
    "https://hooks.example.com#@127.0.0.1/",
    "https://hooks.example.com;@127.0.0.1/",
    # separators that some read as others
    "https:\\\\hooks.example.com/",
    "https://hooks.example.com\\.evil.example/",
    "https://hooks\u3002example\u3002com/",
    "https://hooks.example\uff0ecom/",
    "https://hooks.example.com\uff0f@127.0.0.1/",
    "https://\uff48ooks.example.com/",
    "https://hoo\u212as.example.com/",
    "https://hooks.example.com\u2044.evil.example/",
    "https://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460/",
    "https://\uff11\uff12\uff17.0.0.1/",
    "https://\u0661\u0662\u0667.0.0.1/",
    "https://ho\u00adoks.example.com/",
    "https://hooks.example.com\u200b/",
    "https://hooks%2eexample.com/",
    "https://%68ooks.example.com/",
    # white space and control characters
    "https://hooks.example.com/\r\nX-Injected: 1",
    "https://hooks.example.com\r\n@127.0.0.1/",
    "https://hooks.example.com/\n",
    "https://hooks.example.com\n/",
    "https://hooks.\texample.com/",
    "https://hooks.example.com/\t",
    " https://hooks.example.com/",
    "https://hooks.example.com/ ",
    "https://hooks.example.com /",
    "\thttps://hooks.example.com/",
    "https://hooks.example.com\x00.evil.example/",
    "https://hooks.example.com/\x7f",
    # ports
    "https://hooks.example.com:80/",
    "https://hooks.example.com:22/",
    "https://hooks.example.com:0/",
    "https://hooks.example.com:00443/",
    "https://hooks.example.com:65979/",  # 443 in sixteen bits
    "https://hooks.example.com:/",
    "https://hooks.example.com:443:80/",
    "https://hooks.example.com:-443/",
    "https://hooks.example.com:+443/",
    "https://hooks.example.com:\uff14\uff14\uff13/",
    "https://hooks.example.com:https/",
    "https://checks.example.org/",
    # the rest
    "https://hooks.example.com/#fragment",
    "https://hooks.example.com?query",
    "https://hooks.example.com/\u00e9",
    "https://hooks.example.com/[",
    "https://[hooks.example.com]/",
    "https://[hooks.example.com/",
]

FORBIDDEN_ADDRESSES = [
    # IPv4
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    # IPv6
    "::",
    "::1",
    "100::1",
    "2001:2::1",
    "2001:10::1",
    "2001:db8::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "2606:4700::1111%1",
    # IPv6 around an address of IPv4, be that public
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::8.8.8.8",
    "64:ff9b:1::10.0.0.1",
    "2001:0:7f00:1::80ff:fffe",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2002:808:808::1",
    "2606:4700::5efe:7f00:1",
    "2606:4700::200:5efe:808:808",
]


def resolver(*answers: Sequence[str]) -> tuple[Resolve, list[str]]:
    """One that gives these answers in turn, and the hosts that it was asked for."""
    asked: list[str] = []

    async def resolve(host: str) -> Sequence[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return resolve, asked


async def evaluated(url: str, webhooks: Webhooks) -> Evaluation:
    try:
        stated = TypeAdapter(Webhook).validate_json(json.dumps({"type": "webhook", "url": url}))
        return await stated.resolve(Toolbox(webhooks)).evaluate(submission())
    finally:
        await webhooks.close()


def reaching(resolve: Resolve, *hosts: str, tls: ssl.SSLContext | None = None, **options: Any) -> Webhooks:
    return Webhooks(
        hosts=hosts or [HOST],
        public=PublicTransport(tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), resolve=resolve, **options),
    )


@pytest.mark.parametrize("url", REFUSED_URLS)
async def test_a_url_with_another_meaning_is_refused_before_anything_is_resolved(url: str, connects: list[Any]) -> None:
    resolve, asked = resolver([PUBLIC])
    with pytest.raises(RefusedField) as raised:
        await evaluated(url, reaching(resolve, HOST, "checks.example.org:8443"))

    assert raised.value.field == "url"
    assert (asked, connects) == ([], [])


PIECES = [
    HOST,
    "127.0.0.1",
    "evil",
    "https",
    "443",
    "80",
    *"/@:?#%.[]&;-_ \\\t\r\n",
    "//",
    "\u3002",
    "\uff0f",
    "\u2100",
]


@given(st.lists(st.sampled_from(PIECES), max_size=6).map(lambda pieces: f"https://{HOST}{''.join(pieces)}"))
@example(f"https://{HOST}:443//{HOST}")
def test_whoever_reads_an_accepted_url_finds_the_same_host(url: str) -> None:
    try:
        (host, port), parsed = parse_url(url)
    except ValueError:
        return
    split = urlsplit(url)
    assert (split.hostname, split.port or 443, split.username) == (host, port, None)
    for read in (parsed, httpx.URL(url), httpx.URL(str(parsed))):
        assert (read.scheme, read.host, read.port or 443, read.userinfo) == ("https", host, port, b"")


@pytest.mark.parametrize("address", FORBIDDEN_ADDRESSES)
async def test_an_allowed_host_at_a_forbidden_address_is_not_connected_to(address: str, connects: list[Any]) -> None:
    resolve, asked = resolver([address])
    with pytest.raises(WebhookFailed, match="an address that is not public") as raised:
        await evaluated(f"https://{HOST}/", reaching(resolve))

    assert (asked, connects) == ([HOST], [])
    assert address not in str(raised.value)


@pytest.mark.parametrize(
    "addresses", [[PUBLIC, "127.0.0.1"], ["10.0.0.1", PUBLIC], [PUBLIC, "2606:4700::1111", "fd00::1"]]
)
async def test_one_forbidden_address_among_others_forbids_them_all(addresses: list[str], connects: list[Any]) -> None:
    resolve, _ = resolver(addresses)
    with pytest.raises(WebhookFailed, match="an address that is not public"):
        await evaluated(f"https://{HOST}/", reaching(resolve))

    assert connects == []


@pytest.mark.parametrize("host", ["localhost", "LocalHost"])
async def test_an_allowed_name_of_this_machine_is_not_connected_to(host: str, connects: list[Any]) -> None:
    async with listening(PASSED) as listener:
        webhooks = Webhooks(hosts=[f"{host}:{listener.port}"])  # with the system's resolver
        with pytest.raises(WebhookFailed, match="an address that is not public"):
            await evaluated(f"https://{host}:{listener.port}/", webhooks)

    assert (connects, listener.connections) == ([], 0)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "017700000001", "0", "[::1]", "[::ffff:7f00:1]"],
)
async def test_the_transport_alone_holds_against_addresses_in_a_url(host: str, connects: list[Any]) -> None:
    async with listening(PASSED) as listener, PublicTransport(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) as transport:
        for scheme in ("http", "https"):
            with pytest.raises(ForbiddenAddress):
                await transport.handle_async_request(httpx.Request("POST", f"{scheme}://{host}:{listener.port}/"))

    assert (connects, listener.connections) == ([], 0)


async def test_each_attempt_connects_to_what_it_checked_itself(connects: list[Any]) -> None:
    """A name server that first gives a public address, where nobody answers, and then a private one."""
    async with listening(PASSED) as listener:
        resolve, asked = resolver([PUBLIC], ["127.0.0.1"])
        host = f"{HOST}:{listener.port}"
        with pytest.raises(WebhookFailed, match="an address that is not public"):
            await evaluated(f"https://{host}/", reaching(resolve, host))

    assert asked == [HOST, HOST]
    assert connects == [(PUBLIC, listener.port)]
    assert listener.connections == 0


@pytest.mark.parametrize(
    "address", [PUBLIC, "8.8.8.8", "100.63.255.255", "172.32.0.1", "2606:4700::1111", "2a00:1450::1"]
)
async def test_public_addresses_are_connected_to(address: str, connects: list[Any]) -> None:
    resolve, _ = resolver([address])
    with pytest.raises(WebhookFailed, match="no connection could be made"):  # the spy refuses it
        await evaluated(f"https://{HOST}/", reaching(resolve))

    assert connects == [(address, 443)] * 3


@pytest.mark.parametrize(("addresses", "fault"), [([], None), ([], OSError("no such host"))])
async def test_a_host_without_an_address(addresses: list[str], fault: OSError | None, connects: list[Any]) -> None:
    async def resolve(_: str) -> Sequence[str]:
        if fault is not None:
            raise fault
        return addresses

    with pytest.raises(WebhookFailed, match="no connection could be made"):
        await evaluated(f"https://{HOST}/", reaching(resolve))

    assert connects == []


async def test_a_slow_name_server_holds_up_nobody_but_those_who_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = threading.Event(), threading.Event()

    def getaddrinfo(*_: object, **__: object) -> None:
        asked.set()
        answer.wait(10)
        raise OSError("no such host")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    webhooks = Webhooks(hosts=[HOST])
    hook = webhooks.at(f"https://{HOST}/")
    waiting = [asyncio.create_task(hook.ask(b"{}")) for _ in range(32)]
    try:
        async with asyncio.timeout(20):
            while not asked.is_set():
                await asyncio.sleep(0.01)
            await asyncio.to_thread(asked.is_set)
    finally:
        answer.set()
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        await webhooks.close()
    with pytest.raises(RuntimeError, match="after shutdown"):
        await hook.ask(b"{}")


@dataclass(frozen=True)
class Authority:
    """A certificate authority that the client trusts."""

    root: trustme.CA = field(default_factory=trustme.CA)

    def server(self, *hosts: str) -> ssl.SSLContext:
        """Of a server with a certificate for these hosts."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.root.issue_cert(*hosts).configure_cert(context)
        return context

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.root.configure_trust(context)
        return context


def is_loopback(address: IPAddress) -> bool:
    return address.is_loopback


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_host_and_tls_keep_the_name(
    address: str, authority: Authority, connects: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, asked = resolver([address])
    async with listening(PASSED, tls=authority.server(HOST), host=address) as listener:
        looked_up: list[Any] = []
        monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **_: looked_up.append(arguments))
        webhooks = reaching(resolve, f"{HOST}:{listener.port}", tls=authority.client(), allowed=is_loopback)
        found = await evaluated(
            f"HTTPS://Hooks.Example.com:{listener.port}//a/b?q=%20&u=https://evil.example", webhooks
        )

    assert (found.authority, found.passed) == ("verifier", True)
    assert (asked, looked_up) == ([HOST], [])
    assert connects == [(address, listener.port)]
    assert listener.server_names == [HOST]
    [received] = listener.requests
    assert received.head.startswith("POST //a/b?q=%20&u=https://evil.example HTTP/1.1\r\n")
    assert received.headers["host"] == f"{HOST}:{listener.port}"
    assert received.json["evaluator"] is None
    assert "webhook-signature" not in received.headers


async def test_an_international_name_is_resolved_and_verified_as_it_is_sent(authority: Authority) -> None:
    host = "xn--bcher-kva.example"
    resolve, asked = resolver(["127.0.0.1"])
    async with listening(PASSED, tls=authority.server(host)) as listener:
        origin = f"{host}:{listener.port}"
        await evaluated(f"https://{origin}/", reaching(resolve, origin, tls=authority.client(), allowed=is_loopback))

    assert (asked, listener.server_names) == ([host], [host])
    assert listener.requests[0].headers["host"] == origin


@pytest.mark.parametrize("named", ["other.example.com", "127.0.0.1"])
async def test_a_certificate_for_anything_but_the_name_is_refused(named: str, authority: Authority) -> None:
    resolve, _ = resolver(["127.0.0.1"])
    async with listening(PASSED, tls=authority.server(named)) as listener:
        origin = f"{HOST}:{listener.port}"
        with pytest.raises(WebhookFailed, match="no connection could be made"):
            await evaluated(
                f"https://{origin}/", reaching(resolve, origin, tls=authority.client(), allowed=is_loopback)
            )

    assert listener.connections + len(listener.server_names) > 0
    assert listener.requests == []


async def test_a_certificate_of_an_unknown_authority_is_refused(authority: Authority) -> None:
    resolve, _ = resolver(["127.0.0.1"])
    async with listening(PASSED, tls=Authority().server(HOST)) as listener:
        origin = f"{HOST}:{listener.port}"
        with pytest.raises(WebhookFailed, match="no connection could be made"):
            await evaluated(
                f"https://{origin}/", reaching(resolve, origin, tls=authority.client(), allowed=is_loopback)
            )

    assert listener.requests == []


async def test_hosts_at_one_address_share_no_connection(authority: Authority) -> None:
    """The certificate is only for one of them, and it is checked for each."""
    resolve, _ = resolver(["127.0.0.1"])
    async with listening(PASSED, tls=authority.server(HOST)) as listener:
        origins = [f"{host}:{listener.port}" for host in (HOST, "other.example.com")]
        webhooks = reaching(resolve, *origins, tls=authority.client(), allowed=is_loopback)
        first, second = (webhooks.at(f"https://{origin}/") for origin in origins)
        await first.ask(b"{}")
        await first.ask(b"{}")
        with pytest.raises(WebhookFailed):
            await second.ask(b"{}")
        await webhooks.close()

    assert listener.connections == len(listener.requests) == 2
    assert set(listener.server_names) == {HOST, "other.example.com"}


async def test_the_next_address_is_tried_where_one_does_not_answer(authority: Authority, connects: list[Any]) -> None:
    resolve, _ = resolver(["::1", "127.0.0.1"])
    async with listening(PASSED, tls=authority.server(HOST)) as listener:
        origin = f"{HOST}:{listener.port}"
        await evaluated(f"https://{origin}/", reaching(resolve, origin, tls=authority.client(), allowed=is_loopback))

    assert connects == [("::1", listener.port), ("127.0.0.1", listener.port)]


@pytest.mark.parametrize("status", [301, 307, 308])
async def test_a_redirect_to_this_machine_is_not_followed(
    status: int, authority: Authority, connects: list[Any]
) -> None:
    resolve, _ = resolver(["127.0.0.1"])
    async with listening(PASSED) as target:
        redirect = answered(b"", status, f"Location: {target.url}")
        async with listening(redirect, tls=authority.server(HOST)) as listener:
            origin = f"{HOST}:{listener.port}"
            webhooks = reaching(resolve, origin, tls=authority.client(), allowed=is_loopback)
            with pytest.raises(WebhookFailed, match=f"status {status}"):
                await evaluated(f"https://{origin}/", webhooks)

    assert connects == [("127.0.0.1", listener.port)]
    assert target.connections == 0


async def test_the_spy_sees_connections(connects: list[Any]) -> None:
    async with listening(PASSED) as listener, httpx.AsyncHTTPTransport() as transport:
        await transport.handle_async_request(httpx.Request("POST", listener.url))

    assert connects == [("127.0.0.1", listener.port)]
    assert listener.connections == 1


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        (HOST, (HOST, 443)),
        ("HOOKS.example.com:8443", (HOST, 8443)),
        ("hooks", ("hooks", 443)),
        ("3com.example", ("3com.example", 443)),
        ("xn--bcher-kva.example:1", ("xn--bcher-kva.example", 1)),
    ],
)
def test_hosts_of_the_operator_s(text: str, origin: tuple[str, int]) -> None:
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    "host",
    [
        "",
        "*",
        "*.example.com",
        "https://hooks.example.com",
        "hooks.example.com/",
        "hooks.example.com.",
        "hooks.example.com:",
        "hooks.example.com:0",
        "hooks.example.com:65536",
        "bücher.example",
        "-a.example",
        "a..example",
        "a_b.example",
        "a" * 64 + ".example",
        ".".join(["a" * 60] * 5),
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7F.0x1",
        "a.0X7f",
        "0x",
        "0177.0.0.1",
        "a.1",
        "[::1]",
        "::1",
    ],
)
def test_other_hosts_of_the_operator_s_are_refused(host: str) -> None:
    with pytest.raises(WebhookMisconfigured, match=r"^REDRAFT_WEBHOOK_HOSTS: "):
        Webhooks(hosts=[HOST, host])


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_no_address_around_a_forbidden_one_is_public(address: IPAddress) -> None:
    """By the standard library's own reading of what an address holds, and of what kind it is."""
    if is_public(address):
        kinds = ("is_multicast", "is_reserved", "is_private", "is_link_local", "ipv4_mapped", "sixtofour", "teredo")
        assert [kind for kind in kinds if getattr(address, kind, None)] == []
