"""A canary over HTTP: who writes, what decides, and that nothing of it costs a request."""

import asyncio
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from service.learning.canary import Trial
from tests.support.adapters import Shop, answers_as, make_base
from tests.support.serving import Served

SALT = {"type": "keywords", "include": ["salt"]}
TWO = {"drafts": 2, "rounds": 0, "constraints": "off", "repairs": False, "aborts": False}
SEA = {"prompt": "Write about the sea.", "model": "learned", "judge": False, "evaluators": [SALT], "search": TWO}
ALWAYS = {"share": 1.0}
LONG = "salt " * 40


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    folder = tmp_path / "shop"
    folder.mkdir()
    return Shop(folder, make_base(tmp_path / "base"))


async def start(served: Served, digest: str, **fields: Any) -> dict[str, Any]:
    path = f"/v1/adapters/{digest}/canary"
    while (response := await served.post(path, {**ALWAYS, **fields})).status_code == 503:  # the engine still loads
        await asyncio.sleep(0.02)
    assert response.status_code == 200, response.text
    return dict(response.json()["canary"])


async def canary_of(served: Served, digest: str) -> dict[str, Any]:
    return dict((await served.client.get(f"/v1/adapters/{digest}")).json()["canary"])


async def ended(served: Served, digest: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while (found := await canary_of(served, digest))["state"] == "running":
            await asyncio.sleep(0.05)
    return found


async def refine(served: Served, **fields: Any) -> dict[str, Any]:
    response = await served.post("/v1/refine", {**SEA, **fields})
    assert response.status_code == 200, response.text
    return dict(response.json())


def writers(body: dict[str, Any]) -> Sequence[str]:
    return sorted(candidate["model"] for candidate in body["rounds"][0]["candidates"])


async def test_a_good_candidate_is_shown_to_be_better_and_may_be_promoted(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service.learning")
    old = shop.promote("waves")
    new = shop.add("salt")
    async with shop.serving() as served:
        begun = await start(served, new)
        bodies = [await refine(served) for _ in range(7)]
        canary = await ended(served, new)
        after = await refine(served)
        page = (await served.client.get("/metrics")).text
        promoted = (await served.client.post(f"/v1/adapters/{new}/promote")).json()

    assert (begun["state"], begun["verdict"], begun["trials"], begun["against"]) == ("running", "undecided", 0, old)
    names = [f"learned@{new}", f"learned@{old}"]
    assert all(writers(body) == sorted(names) for body in bodies)
    assert {(body["model"], body["text"], body["models"]["candidate"]) for body in bodies} == {
        (names[0], "salt, salt.", names[0])
    }
    assert all(body["usage"]["by_role"]["draft"]["calls"] == 2 for body in bodies)
    assert (canary["verdict"], canary["trials"], canary["won"], canary["lost"], canary["gain"]) == (
        "better",
        7,
        7,
        0,
        1,
    )
    assert canary["reason"] == "of 7 trials it won 7 and lost 0"
    assert (writers(after), "candidate" in after["models"]) == ([names[1]] * 2, False)
    assert 'redraft_canary_verdicts_total{verdict="better"} 1.0' in page
    assert promoted["serves"] == new
    assert [record.message for record in caplog.records if "canary" in record.message] == [
        "a canary begins",
        "a canary has ended",
    ]


async def test_one_that_is_to_be_promoted_serves_as_soon_as_it_is_better(shop: Shop) -> None:
    new = shop.add("salt")
    async with shop.serving() as served:
        await start(served, new, promote=True)
        for _ in range(7):
            assert (await refine(served))["passed"] is True
        await answers_as(served, new)
        assert (await canary_of(served, new))["verdict"] == "better"
        assert shop.registry.current == new


async def test_a_bad_candidate_is_stopped_and_no_answer_was_worse(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    old = shop.promote("salt")
    new = shop.add("waves")
    async with shop.serving() as served:
        await start(served, new, promote=True)
        bodies = [await refine(served) for _ in range(6)]
        canary = await ended(served, new)
        page = (await served.client.get("/metrics")).text
        refused = await served.post(f"/v1/adapters/{new}/canary", ALWAYS)
        listed = (await served.client.get("/v1/adapters")).json()

    assert all((body["passed"], body["model"]) == (True, f"learned@{old}") for body in bodies)
    assert (canary["verdict"], canary["lost"]) == ("worse", 6)
    assert listed["serves"] == old
    assert 'redraft_canary_verdicts_total{verdict="worse"} 1.0' in page
    assert (refused.status_code, refused.json()["code"]) == (409, "adapter_refused")
    assert "its canary was worse than what serves" in refused.json()["detail"]
    [record] = [record for record in caplog.records if record.message == "a canary has ended"]
    assert record.levelno == logging.WARNING


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "base"},
        {"search": {**TWO, "drafts": 1}},
        {"draft": "Sand."},
        {"evaluators": [{**SALT, "hard": False}]},
        {"budget": {"tokens": 2_000}},
        {"budget": {"calls": 10}},
    ],
)
async def test_requests_that_cannot_be_compared_are_left_alone(shop: Shop, fields: dict[str, Any]) -> None:
    new = shop.add("salt")
    async with shop.serving() as served:
        await start(served, new)
        body = await refine(served, **fields)
        assert "candidate" not in body["models"]
        assert all(candidate["model"] != f"learned@{new}" for candidate in body["rounds"][0]["candidates"])


async def test_the_share_of_requests_is_what_was_asked_for(shop: Shop) -> None:
    new = shop.add("waves")
    async with shop.serving() as served:
        await start(served, new, share=0.3)
        bodies = [await refine(served) for _ in range(150)]
        page = (await served.client.get("/metrics")).text

    tried = sum("candidate" in body["models"] for body in bodies)
    assert 20 < tried < 75
    assert 'redraft_canary_trials{winner="candidate"} 0.0' in page


async def test_it_is_stopped_by_hand_and_goes_on_with_its_trials(shop: Shop) -> None:
    new, other = shop.add("salt"), shop.add("foam")
    async with shop.serving() as served:
        await start(served, new)
        busy = await served.post(f"/v1/adapters/{other}/canary", ALWAYS)
        await refine(served)
        wrong = await served.client.delete(f"/v1/adapters/{other}/canary")
        stopped = (await served.client.delete(f"/v1/adapters/{new}/canary")).json()["canary"]
        plain = await refine(served)
        await start(served, new)
        for _ in range(6):
            await refine(served)
        canary = await ended(served, new)

    assert busy.status_code == wrong.status_code == 409
    assert (stopped["state"], stopped["verdict"], stopped["reason"]) == ("ended", "undecided", "it was stopped")
    assert "candidate" not in plain["models"]
    assert (canary["verdict"], canary["trials"]) == ("better", 7)


async def test_it_goes_on_after_a_restart_and_for_all_services_on_the_folder(shop: Shop) -> None:
    new = shop.add("salt")
    async with shop.serving() as served:
        await start(served, new)
        for _ in range(2):
            await refine(served)
    async with shop.serving() as one, shop.serving() as two:
        for served in (one, two):
            while "candidate" not in (await refine(served))["models"]:
                await asyncio.sleep(0.05)
        for _ in range(2):
            await asyncio.gather(refine(one), refine(two))
        ends = [await ended(served, new) for served in (one, two)]
        verdicts = [(await served.client.get("/metrics")).text for served in (one, two)]

    assert ends[0] == ends[1]
    assert (ends[0]["verdict"], ends[0]["trials"]) == ("better", 8)
    assert sum('redraft_canary_verdicts_total{verdict="better"} 1.0' in page for page in verdicts) == 1


async def test_what_the_command_line_starts_and_stops_is_noticed(shop: Shop) -> None:
    new = shop.add("salt")
    async with shop.serving() as served, asyncio.timeout(20):
        shop.registry.start_canary(new, 1.0)
        while "candidate" not in (await refine(served))["models"]:
            await asyncio.sleep(0.05)
        shop.registry.stop_canary()
        while "candidate" in (await refine(served))["models"]:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(("weights", "damage"), [("unusable", False), ("salt", True)])
async def test_a_candidate_that_cannot_be_loaded_ends_its_canary_and_costs_no_request(
    shop: Shop, weights: str, damage: bool
) -> None:
    shop.promote("salt and waves")
    new = shop.add(weights)
    shop.registry.start_canary(new, 1.0)
    if damage:
        (shop.folder / "adapters" / new / "adapter_model.safetensors").write_text("half")
    async with shop.serving() as served:
        assert (await refine(served))["passed"] is True
        canary = await ended(served, new)
        refused = await served.post(f"/v1/adapters/{new}/canary", ALWAYS)

    assert (canary["verdict"], refused.status_code) == ("broken", 409)
    assert canary["reason"].startswith("it cannot be loaded: ")


async def test_a_candidate_whose_folder_goes_while_it_is_tried_is_not_promoted(shop: Shop) -> None:
    old = shop.promote("waves")
    new = shop.add("salt")
    async with shop.serving() as served:
        await start(served, new, promote=True)
        (shop.folder / "adapters" / new / "adapter_model.safetensors").write_text("half")
        for _ in range(7):
            assert (await refine(served))["passed"] is True
        while shop.registry.canaries.running:
            await asyncio.sleep(0.05)
        canary = shop.registry.canaries.last(new)

    assert canary is not None
    assert canary.verdict == "broken"
    assert "is damaged" in canary.reason
    assert shop.registry.current == old


async def test_a_candidate_that_fails_in_the_engine_ends_its_canary_and_costs_no_request(shop: Shop) -> None:
    shop.promote("salt")
    new = shop.add("failing")
    async with shop.serving() as served:
        await start(served, new)
        body = await refine(served)
        canary = await ended(served, new)

    assert (body["passed"], body["stop_reason"], len(body["rounds"][0]["candidates"])) == (True, "target", 2)
    assert (canary["verdict"], canary["trials"]) == ("broken", 0)
    assert canary["reason"] == "it failed in the engine: the adapter is gone"


async def test_a_job_keeps_its_voices_over_a_restart_and_is_one_trial(shop: Shop, tmp_path: Path) -> None:
    old = shop.promote(LONG)
    new = shop.add(LONG.replace("salt", "waves"))
    store = str(tmp_path / "jobs.db")
    async with shop.serving(seconds_per_token=0.03, store=store) as served:
        await start(served, new)
        headers = {"Prefer": "respond-async"}
        job = (await served.client.post("/v1/refine", json=SEA, headers=headers)).json()["id"]
        await served.until(lambda: served.app.state.admission.in_progress == 1)
        await asyncio.sleep(0.3)  # for the attempt to have begun its texts
    shop.registry.stop_canary()
    async with shop.serving(store=store) as served, asyncio.timeout(30):
        found = (await served.client.get(f"/v1/jobs/{job}")).json()
        while found["finished_at"] is None:
            await asyncio.sleep(0.05)
            found = (await served.client.get(f"/v1/jobs/{job}")).json()
        while not (trials := shop.registry.canaries.trials(new, old)):
            await asyncio.sleep(0.05)

    assert found["error"] is None
    assert writers(found["result"]) == sorted([f"learned@{new}", f"learned@{old}"])
    assert [(trial.candidate, trial.incumbent) for trial in trials] == [(0.0, 1.0)]


async def test_a_job_whose_candidate_is_gone_goes_on_with_its_writer(shop: Shop, tmp_path: Path) -> None:
    old = shop.promote(LONG)
    new = shop.add(LONG.replace("salt", "waves"))
    store = str(tmp_path / "jobs.db")
    async with shop.serving(seconds_per_token=0.03, store=store) as served:
        await start(served, new)
        job = (await served.client.post("/v1/refine", json=SEA, headers={"Prefer": "respond-async"})).json()["id"]
        await served.until(lambda: served.app.state.admission.in_progress == 1)
        await asyncio.sleep(0.3)
    shutil.rmtree(shop.folder / "adapters" / new)
    async with shop.serving(store=store) as served, asyncio.timeout(30):
        found = (await served.client.get(f"/v1/jobs/{job}")).json()
        while found["finished_at"] is None:
            await asyncio.sleep(0.05)
            found = (await served.client.get(f"/v1/jobs/{job}")).json()

    assert found["error"] is None
    assert writers(found["result"]) == [f"learned@{old}"] * 2


async def test_another_promotion_ends_the_canary(shop: Shop) -> None:
    new, other = shop.add("salt"), shop.add("foam")
    async with shop.serving() as served:
        await start(served, new)
        await served.client.post(f"/v1/adapters/{other}/promote")
        body = await refine(served)
        canary = await ended(served, new)

    assert writers(body) == [f"learned@{other}"] * 2
    assert (canary["verdict"], canary["reason"]) == ("undecided", "something else serves now")


async def test_trials_of_before_decide_as_soon_as_a_service_looks(shop: Shop) -> None:
    new = shop.add("salt")
    shop.registry.start_canary(new, 0.5, promotes=True)
    for number in range(7):
        shop.registry.canaries.add(new, "", Trial(program=str(number), candidate=1.0, incumbent=0.0))
    async with shop.serving() as served:
        await answers_as(served, new)
