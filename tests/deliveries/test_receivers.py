"""Which URLs may receive notices, and what is sent to them."""

import base64
from datetime import UTC, datetime
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter, ValidationError
from standardwebhooks import Webhook

from service.deliveries.delivery import Destination
from service.deliveries.receivers import DeliveryFailed, Receivers, ReceiverSettings
from service.outbound import PublicTransport
from service.signatures import WebhookMisconfigured
from tests.support.listener import answered, listening, raw
from tests.support.listener import connects as connects  # a fixture
from tests.support.receiver import SECRET

SETTINGS = TypeAdapter(ReceiverSettings)
HOOKS = "https://hooks.example.com/redraft"


def stated(tmp_path: Path, url: str, **fields: Any) -> ReceiverSettings:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    return SETTINGS.validate_python({"url": url, "secret_file": file, **fields})


@pytest.mark.parametrize("url", [HOOKS, f"{HOOKS}/", f"{HOOKS}/42/~a,b;c=d@e", f"{HOOKS}?token=%2e%2e/&a=1"])
def test_a_receiver_gets_notices_at_its_url_and_below(tmp_path: Path, url: str) -> None:
    receivers = Receivers({"billing": stated(tmp_path, HOOKS)})

    assert receivers.find(url) == Destination("billing", url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://hooks.example.com/",
        f"{HOOKS}er",
        f"{HOOKS}/../admin",
        f"{HOOKS}/./a",
        f"{HOOKS}/..",
        f"{HOOKS}/%2e%2e/admin",
        f"{HOOKS}/..%2fadmin",
        f"{HOOKS}/..\\admin",
        f"{HOOKS}/a#b",
        f"{HOOKS}/a b",
        f"{HOOKS}/a\r\nHost: b",
        f"{HOOKS}/é",
        f"{HOOKS}/{'a' * 2_048}",
        f"{HOOKS}?a#b",
        "http://hooks.example.com/redraft",
        "https://hooks.example.com:8443/redraft",
        "https://hooks.example.com.evil.example/redraft",
        "https://hooks.example.com@evil.example/redraft",
        "https://evil.example/https://hooks.example.com/redraft",
        "HTTPS://hooks.example.com/redraft",
    ],
)
def test_other_urls_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="the operator allows no notices to this URL"):
        Receivers({"billing": stated(tmp_path, HOOKS)}).find(url)


@pytest.mark.parametrize("url", ["https://hooks.example.com@evil.example/", "https://hooks.example.com.evil.example/"])
def test_what_follows_a_host_without_a_path_cannot_change_the_host(tmp_path: Path, url: str) -> None:
    receivers = Receivers({"all": stated(tmp_path, "https://hooks.example.com")})

    assert receivers.find("https://hooks.example.com/any?thing").receiver == "all"
    with pytest.raises(ValueError, match="no notices to this URL"):
        receivers.find(url)


def test_of_two_receivers_the_one_whose_url_says_more_is_meant(tmp_path: Path) -> None:
    receivers = Receivers({"all": stated(tmp_path, "https://hooks.example.com"), "one": stated(tmp_path, HOOKS)})

    assert receivers.find(f"{HOOKS}/a").receiver == "one"
    assert receivers.find("https://hooks.example.com/a").receiver == "all"


def test_without_receivers_the_caller_hears_which_setting_is_missing() -> None:
    with pytest.raises(ValueError, match="REDRAFT_NOTICE_RECEIVERS"):
        Receivers().find(HOOKS)


@pytest.mark.parametrize(
    "url",
    [
        "hooks.example.com",
        "https:///redraft",
        "ftp://hooks.example.com/",
        "https://user@hooks.example.com/",
        f"{HOOKS}?a=1",
        f"{HOOKS}#a",
        f"{HOOKS}/../a",
        "https://hooks.example.com:99999/",
        "https://[::1/",
        "http://hooks.example.com/",
    ],
)
def test_a_url_that_the_operator_cannot_mean_keeps_the_service_from_starting(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValidationError, match="a receiver's url is https"):
        stated(tmp_path, url)


def test_plain_http_needs_private_addresses(tmp_path: Path) -> None:
    assert stated(tmp_path, "http://hooks.internal:8080/", private_addresses=True).private_addresses


def test_a_secret_that_is_none_keeps_the_service_from_starting(tmp_path: Path) -> None:
    settings = stated(tmp_path, HOOKS)
    settings.secret_file.write_text("hush")
    with pytest.raises(WebhookMisconfigured, match=r"^REDRAFT_NOTICE_RECEIVERS: billing: "):
        Receivers({"billing": settings})


async def test_a_notice_is_signed_with_every_secret(tmp_path: Path) -> None:
    other = "whsec_" + base64.b64encode(b"what will be the next secret").decode()
    async with listening(answered(b"", 204)) as listener:
        settings = stated(tmp_path, listener.url.partition("?")[0], private_addresses=True)
        settings.secret_file.write_text(f"{SECRET}\n{other}\n")
        receivers = Receivers({"billing": settings})
        now = datetime.now(UTC).timestamp()
        answer = await receivers.get("billing").send(listener.url, "msg-1", '{"type":"job.completed"}', now)
        await receivers.close()

    [received] = listener.requests
    assert answer.status == 204
    assert received.head.startswith("POST /score?token=hush HTTP/1.1\r\n")
    assert (received.headers["webhook-id"], received.headers["webhook-timestamp"]) == ("msg-1", str(int(now)))
    for secret in (SECRET, other):
        assert Webhook(secret).verify(received.body, dict(received.headers)) == {"type": "job.completed"}


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("Retry-After: 120", 120.0),
        (f"Retry-After: {format_datetime(datetime.fromtimestamp(1_000_060, UTC), usegmt=True)}", 60.0),
        (f"Retry-After: {format_datetime(datetime.fromtimestamp(999_000, UTC), usegmt=True)}", 0.0),
        ("Retry-After: soon", 0.0),
        ("Retry-After: -1", 0.0),
        ("X-Other: 1", 0.0),
    ],
)
async def test_a_receiver_says_how_long_to_wait(tmp_path: Path, header: str, seconds: float) -> None:
    async with listening(answered(b"", 503, header)) as listener:
        settings = stated(tmp_path, listener.url.partition("?")[0], private_addresses=True)
        receivers = Receivers({"billing": settings})
        answer = await receivers.get("billing").send(listener.url, "msg-1", "{}", 1_000_000.0)
        await receivers.close()

    assert (answer.status, answer.retry_after) == (503, seconds)


async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    async with listening(answered(b"", 307, "Location: /elsewhere")) as listener:
        receivers = Receivers({"a": stated(tmp_path, listener.url.partition("?")[0], private_addresses=True)})
        answer = await receivers.get("a").send(listener.url, "msg-1", "{}", 0.0)
        await receivers.close()

    assert answer.status == 307
    assert listener.connections == 1


async def test_a_connection_that_breaks_is_no_answer(tmp_path: Path) -> None:
    async with listening(raw(b"HTTP/1.1 2", then_close=True)) as listener:
        receivers = Receivers({"a": stated(tmp_path, listener.url.partition("?")[0], private_addresses=True)})
        with pytest.raises(DeliveryFailed, match=r"^the connection broke before there was an answer$"):
            await receivers.get("a").send(listener.url, "msg-1", "{}", 0.0)
        await receivers.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1"])
async def test_a_host_that_leads_inside_is_not_reached(
    tmp_path: Path, address: str, connects: list[tuple[str, int]]
) -> None:
    async def resolve(host: str) -> list[str]:
        return [address]

    public = PublicTransport(httpx.create_ssl_context(), resolve=resolve)
    receivers = Receivers({"billing": stated(tmp_path, HOOKS)}, public=public)
    with pytest.raises(DeliveryFailed, match=r"^the host has an address that is not public$"):
        await receivers.get("billing").send(HOOKS, "msg-1", "{}", 0.0)
    await receivers.close()

    assert connects == []


async def test_a_host_at_a_public_address_is_reached(tmp_path: Path, connects: list[tuple[str, int]]) -> None:
    async def resolve(host: str) -> list[str]:
        return ["127.0.0.1"]

    public = PublicTransport(
        httpx.create_ssl_context(), resolve=resolve, allowed=lambda address: address == ip_address("127.0.0.1")
    )
    receivers = Receivers({"billing": stated(tmp_path, "https://hooks.example.com:9/")}, public=public)
    with pytest.raises(DeliveryFailed, match=r"^no connection could be made$"):
        await receivers.get("billing").send("https://hooks.example.com:9/a", "msg-1", "{}", 0.0)
    await receivers.close()

    assert connects == [("127.0.0.1", 9)]
