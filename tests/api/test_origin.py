"""Which hosts and which web pages the service answers to, over real HTTP."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from service.api.origin import EXPOSED
from service.settings import Settings
from tests.support.serving import Served, serving

PROMPT = {"prompt": "Write about the sea."}
KEY = "ann:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # SHA-256 of "secret"
BY_ANN = {"Authorization": "Bearer secret"}
PAGE = "https://app.example.com"


def refusal(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["x-request-id"]
    return response.status_code, response.json()["code"]


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize("path", ["/v1/generate", "/v1/chat/completions", "/v1/batch"])
async def test_a_body_that_a_page_can_send_without_a_preflight_is_refused(
    served: Served, path: str, content_type: str | None
) -> None:
    """As ``fetch`` sends a Blob in the mode no-cors, and ``sendBeacon``."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = await served.client.post(path, content=b'{"prompt": "hi"}', headers=headers)

    assert response.status_code == (400 if "chat" in path else 422)
    assert "content-type" in response.text
    assert served.engine.calls == []


@pytest.mark.parametrize("host", ["evil.test", "evil.test:8000", "127.0.0.1.evil.test", "169.254.1.1", "[::2]", "x"])
async def test_without_keys_on_loopback_another_host_is_refused(served: Served, host: str) -> None:
    """As after a page has its name resolved to 127.0.0.1."""
    headers = {"Host": host, "Origin": f"http://{host}"}
    assert refusal(await served.post("/v1/generate", PROMPT, headers=headers)) == (403, "forbidden")
    assert refusal(await served.client.get("/v1/tasks", headers=headers)) == (403, "forbidden")
    assert served.engine.calls == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:8000"])
async def test_names_of_loopback_are_answered(served: Served, host: str) -> None:
    assert (await served.post("/v1/generate", PROMPT, headers={"Host": host})).status_code == 200


async def test_probes_and_scrapes_come_by_any_name(served: Served) -> None:
    for path in ("/health/live", "/health/ready", "/metrics"):
        assert (await served.client.get(path, headers={"Host": "10.1.2.3:8000"})).status_code == 200


@pytest.mark.parametrize(
    ("settings", "host", "status"),
    [
        ({"api_keys": KEY}, "evil.test", 200),
        ({"host": "0.0.0.0", "allow_anonymous": True}, "redraft:8000", 200),
        ({"allowed_hosts": ["redraft"]}, "redraft:8000", 200),
        ({"allowed_hosts": ["redraft"]}, "localhost", 403),
        ({"allowed_hosts": ["*"]}, "evil.test", 200),
        ({"allowed_hosts": ["redraft"], "api_keys": KEY}, "evil.test", 403),
    ],
)
async def test_which_hosts_are_answered_is_a_setting(settings: dict[str, Any], host: str, status: int) -> None:
    async with serving(**settings) as served:
        response = await served.post("/v1/generate", PROMPT, headers={"Host": host, **BY_ANN})
    assert response.status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},
        {"Sec-Fetch-Site": "cross-site", "Origin": PAGE},
        {"Origin": PAGE},
        {"Origin": "null"},
    ],
)
async def test_pages_of_other_origins_are_refused(served: Served, headers: dict[str, str]) -> None:
    assert refusal(await served.post("/v1/generate", PROMPT, headers=headers)) == (403, "forbidden")
    assert served.engine.calls == []
    assert (await served.client.get("/docs", headers=headers)).status_code == 200, "a link leads here"


async def test_a_page_of_its_own_and_what_is_no_page_are_answered(served: Served) -> None:
    own = f"http://{served.client.base_url.netloc.decode()}"
    ways: list[dict[str, str]] = [
        {},
        {"Origin": own},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": PAGE},
    ]
    for headers in ways:
        assert (await served.post("/v1/generate", PROMPT, headers=headers)).status_code == 200


async def test_a_key_is_permission_enough() -> None:
    async with serving(api_keys=KEY) as served:
        headers = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site"}
        assert (await served.post("/v1/generate", PROMPT, headers={**headers, **BY_ANN})).status_code == 200
        assert (await served.post("/v1/generate", PROMPT, headers=headers)).status_code == 401


async def test_no_page_reads_an_answer_by_default(served: Served) -> None:
    response = await served.client.get("/v1/tasks", headers={"Origin": PAGE})
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("settings", [{}, {"api_keys": KEY}])
async def test_a_page_that_is_allowed_asks_and_then_reads(settings: dict[str, Any]) -> None:
    asking = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
    }
    sending = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site", **BY_ANN}
    async with serving(cors_origins=[PAGE], max_body_bytes=100, **settings) as served:
        asked = await served.client.options("/v1/refine", headers=asking)
        stranger = await served.client.options("/v1/refine", headers={**asking, "Origin": "https://evil.test"})
        whole = await served.post("/v1/generate", PROMPT, headers=sending)
        streamed = await served.post("/v1/generate", {**PROMPT, "stream": True}, headers=sending)
        too_large = await served.post("/v1/generate", {"prompt": "x" * 100}, headers=sending)

    assert (asked.status_code, stranger.status_code) == (200, 400)
    assert asked.headers["x-request-id"]
    assert "x-stainless-os" in asked.headers["access-control-allow-headers"]
    for response, status in ((whole, 200), (streamed, 200), (too_large, 413)):
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == PAGE
    assert "event: done" in streamed.text


async def test_a_page_may_use_every_method_that_a_route_takes(tmp_path: Path) -> None:
    async with serving(cors_origins=[PAGE], store=str(tmp_path / "store.db")) as served:
        taken = {method for route in served.app.routes if isinstance(route, Route) for method in route.methods or ()}
        for method in (*taken, "PATCH"):
            asking = {"Origin": PAGE, "Access-Control-Request-Method": method}
            asked = await served.client.options("/v1/jobs/job-1", headers=asking)
            assert asked.status_code == (400 if method == "PATCH" else 200), method
        assert "DELETE" in taken


async def test_a_page_reads_every_header_that_says_something(tmp_path: Path) -> None:
    """The others are about the connection or the cache, or a page may read them anyway."""
    others = {"content-length", "content-type", "cache-control", "date", "server", "connection", "vary"}
    others |= {"x-accel-buffering", "x-content-type-options", "content-security-policy", "content-disposition"}
    others |= {"www-authenticate", "access-control-allow-origin", "access-control-expose-headers", "transfer-encoding"}
    once = {"Prefer": "respond-async", "Idempotency-Key": "a"}
    settings: dict[str, Any] = {"store": str(tmp_path / "store.db"), "max_programs_per_key": 1, "max_queued_jobs": 1}
    async with serving(cors_origins=[PAGE], api_keys=KEY, **settings) as served:
        client, headers = served.client, {"Origin": PAGE, **BY_ANN}
        answers = [
            *[await served.post("/v1/generate", PROMPT, headers={**headers, **once}) for _ in range(2)],
            await served.post("/v1/chat/completions", {"model": "scripted", "messages": []}, headers=headers),
            await served.post("/v1/generate", {**PROMPT, "stream": True}, headers=headers),
            await client.get("/v1/generate", headers=headers),
            await client.get("/v1/models", headers={"Origin": PAGE}),
            await client.get("/v1/files", headers=headers),
        ]
    sent = {name for answer in answers for name in answer.headers} - others

    assert answers[0].headers["access-control-expose-headers"].split(", ") == list(EXPOSED)
    assert {"location", "preference-applied", "idempotency-replayed", "allow", "ratelimit"} <= sent
    assert sent <= {name.lower() for name in EXPOSED}


@pytest.mark.parametrize(
    "wrong",
    [
        {"cors_origins": ["app.example.com"]},
        {"cors_origins": ["https://app.example.com/"]},
        {"allowed_hosts": ["redraft:8000"]},
        {"allowed_hosts": ["http://redraft"]},
    ],
)
def test_origins_have_a_scheme_and_hosts_have_no_port(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="pattern"):
        Settings(engine="scripted", **wrong)
