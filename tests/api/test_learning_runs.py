"""The routes of runs of learning: operators start, watch and cancel them."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.learning.runs import record_run, take_folder
from tests.api.test_learning import KEYS
from tests.support.adapters import Shop, launch, make_base
from tests.support.serving import Served, frames

RUNS = "/v1/learning/runs"
HANGS = ("sh", "-c", "exec cat")
ENDS = ("sh", "-c", "echo out of luck; exit 3")


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    folder = tmp_path / "shop"
    folder.mkdir()
    return Shop(folder, make_base(tmp_path / "base"))


async def watch(served: Served, address: str, after: str = "") -> list[tuple[str, dict[str, Any]]]:
    headers = {"Last-Event-ID": after} if after else {}
    async with served.client.stream("GET", f"{address}/events", headers=headers) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8", await response.aread()
        return [frame async for frame in frames(response)]


async def test_a_run_is_started_and_cancelled(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, *HANGS)
    async with shop.serving() as served:
        begun = await served.post(RUNS, {"recipe": "quick"})
        address = begun.headers["location"]
        second = await served.post(RUNS, {})
        shown = await served.client.get(address)
        cancelled = await served.client.delete(address)
        again = await served.client.delete(address)
        third = await served.post(RUNS, {})

    assert (begun.status_code, begun.json()["state"], begun.json()["recipe"]) == (202, "running", "quick")
    assert address == f"{RUNS}/{begun.json()['id']}"
    assert shown.json() == begun.json()
    assert (second.status_code, second.json()["code"]) == (409, "run_refused")
    assert "another process works in" in second.json()["detail"]
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert (again.status_code, again.json()) == (200, cancelled.json())
    assert third.status_code == 202


async def test_a_run_is_watched_to_its_end(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, *ENDS)
    async with shop.serving() as served:
        address = (await served.post(RUNS, {})).headers["location"]
        events = await watch(served, address)
        missed = await watch(served, address, "1")
        nothing = await served.client.get(f"{address}/events", headers={"Last-Event-ID": "2"})
        wrong = await served.client.get(f"{address}/events", headers={"Last-Event-ID": "last"})
        ended = (await served.client.get(address)).json()

    assert [name for name, _ in events][-1] == "done"
    assert {name for name, _ in events[:-1]} <= {"progress"}
    assert events[-1][1] == ended
    assert (ended["state"], ended["error"]) == (
        "failed",
        "its process ended with exit code 3, after it said: out of luck",
    )
    assert missed == events[-1:]
    assert (nothing.status_code, wrong.status_code, wrong.json()["errors"][0]["field"]) == (204, 422, "last-event-id")


async def test_a_run_that_the_service_has_not_started_is_watched_and_not_cancelled(shop: Shop) -> None:
    async with shop.serving() as served:
        with record_run(shop.folder, "quick") as record:
            record.begin("train")
            record.show(3, 80, "texts: loss 1.954")
            listed = (await served.client.get(RUNS)).json()["runs"]
            refused = await served.client.delete(f"{RUNS}/{record.run.id}")
            async with served.client.stream("GET", f"{RUNS}/{record.run.id}/events") as response:
                events = frames(response)
                first = await anext(events)
                record.show(4, 80)
                rest = [await anext(events)]
                record.end()
                rest += [event async for event in events]
        unknown = [
            await served.client.request(method, f"{RUNS}/run_1{rest}")
            for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/events"))
        ]

    assert [(run["state"], run["step"], run["done"], run["total"]) for run in listed] == [("running", "train", 3, 80)]
    assert (refused.status_code, refused.json()["code"]) == (409, "run_refused")
    assert (first[0], first[1]["note"]) == ("progress", "texts: loss 1.954")
    assert [(name, run["done"], run["state"]) for name, run in rest] == [
        ("progress", 4, "running"),
        ("done", 4, "ended"),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in unknown] == [(404, "not_found")] * 3


async def test_a_request_sent_again_starts_one_run(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, *HANGS)
    async with shop.serving() as served:
        first, second = [await served.post(RUNS, {}, headers={"Idempotency-Key": "a"}) for _ in range(2)]
        listed = (await served.client.get(RUNS)).json()["runs"]

    assert (first.status_code, second.status_code, second.json()) == (202, 202, first.json())
    assert [run["id"] for run in listed] == [first.json()["id"]]


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"recipe": "slow"}, "recipe", "must be the name of a built-in recipe: full, grpo, quick"),
        ({"sources": ["store"]}, "sources", "this service stores no traces"),
        ({"sources": []}, "sources", "at least 1 item"),
        ({"sources": ["files"]}, "sources.0", "'practice' or 'store'"),
        ({"trust": ["ann"]}, "trust", "Extra inputs are not permitted"),
    ],
)
async def test_what_cannot_be_asked_for_is_named(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, body: dict[str, Any], field: str, message: str
) -> None:
    launch(monkeypatch, *HANGS)
    async with shop.serving() as served:
        answer = await served.post(RUNS, body)

    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["field"] == field
    assert message in error["message"]


async def test_a_recipe_of_a_caller_is_never_read(shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    launch(monkeypatch, *HANGS)
    path = tmp_path / "own.toml"
    path.write_text("[practice]")
    async with shop.serving() as served:
        answers = [await served.post(RUNS, {"recipe": recipe}) for recipe in (str(path), "../recipes/quick", "")]

    assert [answer.status_code for answer in answers] == [422] * 3
    assert {answer.json()["errors"][0]["message"] for answer in answers} == {
        "must be the name of a built-in recipe: full, grpo, quick"
    }


async def test_without_the_extra_it_says_what_to_install(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.learning.process.find_spec", lambda name: None)
    async with shop.serving() as served:
        answer = await served.post(RUNS, {})

    assert (answer.status_code, answer.json()["code"]) == (409, "run_refused")
    assert "pip install 'redraft[learn]'" in answer.json()["detail"]


async def test_a_service_that_shuts_down_starts_none(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, *HANGS)
    async with shop.serving() as served:
        served.app.state.admission.drain()
        answer = await served.post(RUNS, {})

    assert (answer.status_code, answer.json()["code"]) == (503, "draining")
    with take_folder(shop.folder):
        pass


async def test_a_run_fails_with_the_end_of_the_service(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, *HANGS)
    async with shop.serving() as served:
        begun = (await served.post(RUNS, {})).json()

    record = json.loads((shop.folder / "runs" / begun["id"] / "state.json").read_text())
    assert (record["state"], record["error"]) == ("failed", "the service that started it has ended")


async def test_runs_are_for_operators(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, *ENDS)
    with record_run(shop.folder) as record:
        pass
    one = f"{RUNS}/{record.run.id}"
    routes = [("GET", RUNS), ("GET", one), ("GET", f"{one}/events"), ("DELETE", one), ("POST", RUNS)]
    found: dict[str, list[int]] = {"": [], "two": [], "one": []}
    async with shop.serving(api_keys=KEYS, operators=["one"], secret="one") as served:
        for key, statuses in found.items():
            headers = {"Authorization": f"Bearer {key}"} if key else {"Authorization": ""}
            for method, path in routes:
                body: dict[str, Any] | None = {} if method == "POST" else None
                statuses.append((await served.client.request(method, path, headers=headers, json=body)).status_code)

    assert found == {"": [401] * 5, "two": [403] * 5, "one": [200, 200, 200, 200, 202]}
