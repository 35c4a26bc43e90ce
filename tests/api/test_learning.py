"""The routes of learning: what operators see and change, and that nobody else does."""

import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.adapters import Shop, add_adapter, make_base
from tests.support.serving import serving

SECRETS = ("one", "two")
KEYS = ",".join(f"{name}:{hashlib.sha256(name.encode()).hexdigest()}" for name in SECRETS)
NEVER = "0000000000000000"


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    folder = tmp_path / "shop"
    folder.mkdir()
    return Shop(folder, make_base(tmp_path / "base"))


def by_id(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {adapter["id"]: adapter for adapter in body["adapters"]}


async def test_the_list_says_what_serves_and_what_may(shop: Shop) -> None:
    passed = shop.add("one", created="2026-11-29T12:00:01+00:00")
    failed = add_adapter(shop.registry, shop.folder, "two", "reject", base=shop.digest)
    damaged = shop.add("three", created="2026-11-29T12:00:02+00:00")
    (shop.folder / "adapters" / damaged / "manifest.json").write_text("{")
    async with shop.serving() as served:
        body = (await served.client.get("/v1/adapters")).json()

    found = by_id(body)
    assert [adapter["id"] for adapter in body["adapters"]] == [passed, failed, damaged]
    assert {key: body[key] for key in body if key != "adapters"} == {
        "model": "learned", "base": "base", "ready": True, "serves": None, "current": None, "problem": None,
        "previous": None, "can_roll_back": False,
    }  # fmt: skip
    assert (found[passed]["state"], found[passed]["obstacle"], found[passed]["rank"]) == ("idle", None, 8)
    assert found[passed]["verdict"]["decision"] == "promote"
    assert "verdict is reject" in found[failed]["obstacle"]
    assert (found[damaged]["state"], found[damaged]["verdict"]) == ("damaged", None)


async def test_what_is_promoted_serves_and_is_rolled_back(shop: Shop) -> None:
    digest = shop.add("one")
    async with shop.serving() as served:
        promoted = (await served.client.post(f"/v1/adapters/{digest}/promote")).json()
        written = (await served.post("/v1/generate", {"prompt": "Hi.", "model": "learned"})).json()
        again = await served.client.post(f"/v1/adapters/{digest}/promote")
        returned = (await served.client.post("/v1/adapters/rollback")).json()
        after = (await served.post("/v1/generate", {"prompt": "Hi.", "model": "learned"})).json()

    assert (promoted["serves"], promoted["current"], promoted["can_roll_back"]) == (digest, digest, True)
    assert by_id(promoted)[digest]["state"] == "current"
    assert written["model"] == f"learned@{digest}"
    assert again.status_code == 409
    assert (returned["serves"], returned["previous"]) == (None, digest)
    assert by_id(returned)[digest]["state"] == "previous"
    assert after["model"] == "base"


async def test_an_adapter_has_a_card(shop: Shop) -> None:
    digest = shop.add("one")
    async with shop.serving() as served:
        body = (await served.client.get(f"/v1/adapters/{digest}")).json()
        unknown = await served.client.get(f"/v1/adapters/{NEVER}")

    assert body["card"].startswith(f"# Adapter {digest}\n")
    assert body["card"] == (shop.folder / "adapters" / digest / "README.md").read_text()
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")


async def test_what_cannot_serve_is_refused_with_the_reason(shop: Shop) -> None:
    digest = shop.add("one", base="another")
    async with shop.serving() as served:
        refused = await served.client.post(f"/v1/adapters/{digest}/promote")
        unknown = await served.client.post(f"/v1/adapters/{NEVER}/promote")
        nothing = await served.client.post("/v1/adapters/rollback")

    assert (refused.status_code, refused.json()["code"]) == (409, "adapter_refused")
    assert "another base" in refused.json()["detail"]
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    assert (nothing.status_code, nothing.json()["code"]) == (409, "adapter_refused")


async def test_only_operators_see_and_change_it(shop: Shop) -> None:
    digest = shop.add("one")
    routes = [
        ("GET", "/v1/adapters"),
        ("GET", f"/v1/adapters/{digest}"),
        ("POST", f"/v1/adapters/{digest}/promote"),
        ("POST", "/v1/adapters/rollback"),
        ("POST", f"/v1/adapters/{digest}/canary"),
        ("DELETE", f"/v1/adapters/{digest}/canary"),
    ]
    found: dict[str, list[int]] = {"": [], "one": [], "two": []}
    async with shop.serving(api_keys=KEYS, operators=["one"], secret="one") as served:
        for method, path in routes:
            for key, statuses in found.items():
                headers = {"Authorization": f"Bearer {key}"} if key else {"Authorization": ""}
                body: dict[str, Any] | None = {} if (method, path[-7:]) == ("POST", "/canary") else None
                answer = await served.client.request(method, path, headers=headers, json=body)
                statuses.append(answer.status_code)

    assert found == {"": [401] * 6, "one": [200] * 6, "two": [403] * 6}


@pytest.mark.parametrize(
    ("settings", "status", "code"),
    [
        ({}, 404, "not_found"),
        ({"host": "0.0.0.0", "allow_anonymous": True}, 403, "operator_only"),
    ],
)
async def test_where_nothing_learns_there_is_nothing_and_strangers_are_no_operators(
    settings: dict[str, Any], status: int, code: str
) -> None:
    async with serving(**settings) as served:
        answers: list[httpx.Response] = [
            await served.client.get("/v1/adapters"),
            await served.client.post("/v1/adapters/rollback"),
        ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(status, code)] * 2
