"""The model that learns, over HTTP: requests name it, programs and jobs keep the weights that they began with."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from tests.support.adapters import Shop, answers_as, make_base

SEA = {"prompt": "Write about the sea.", "model": "learned"}
LONG = "one " * 40


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    folder = tmp_path / "shop"
    folder.mkdir()
    return Shop(folder, make_base(tmp_path / "base"))


async def test_the_model_answers_with_what_serves_and_says_so(shop: Shop) -> None:
    async with shop.serving() as served:
        digest = shop.promote("one")
        await answers_as(served, digest)
        written = (await served.post("/v1/generate", SEA)).json()
        plain = (await served.post("/v1/generate", {"prompt": "Write."})).json()
        chat = await served.post(
            "/v1/chat/completions", {"model": "learned", "messages": [{"role": "user", "content": "Hi"}]}
        )
        listed = (await served.client.get("/v1/models")).json()["data"]

    assert (written["choices"][0]["text"], written["model"]) == ("one, one.", f"learned@{digest}")
    assert plain["model"] == "base"
    assert chat.json()["choices"][0]["message"]["content"] == "one, one."
    assert {"learned", "learned:refine"} <= {model["id"] for model in listed}


async def test_the_base_criticizes_and_judges_what_is_learned_unless_the_request_says_otherwise(shop: Shop) -> None:
    digest = shop.promote("one")
    search = {"search": {"rounds": 0}}
    async with shop.serving() as served:
        by_default = (await served.post("/v1/refine", {**SEA, **search})).json()
        chosen = (await served.post("/v1/refine", {**SEA, **search, "models": {"judge": "learned"}})).json()

    learned = f"learned@{digest}"
    assert by_default["models"] == {"writer": learned, "critic": "base", "judge": "base"}
    assert chosen["models"] == {"writer": learned, "critic": "base", "judge": learned}


async def test_a_program_keeps_its_weights_while_others_are_promoted(shop: Shop) -> None:
    first = shop.promote(LONG)
    async with shop.serving(seconds_per_token=0.02) as served:
        working = asyncio.create_task(served.post("/v1/generate", SEA))
        await served.until(lambda: served.app.state.admission.in_progress == 1)
        second = shop.promote("two")
        await answers_as(served, second)
        assert not working.done()
        kept, new = (await working).json(), (await served.post("/v1/generate", SEA)).json()

    assert (kept["model"], new["model"]) == (f"learned@{first}", f"learned@{second}")
    assert kept["choices"][0]["text"] == f"{LONG}, {LONG}."


@pytest.mark.parametrize("gone", [False, True])
async def test_a_job_keeps_its_weights_over_a_restart_if_they_are_still_there(
    shop: Shop, tmp_path: Path, gone: bool
) -> None:
    first = shop.promote(LONG)
    store = str(tmp_path / "jobs.db")
    async with shop.serving(seconds_per_token=0.05, store=store) as served:
        headers = {"Prefer": "respond-async"}
        job = (await served.client.post("/v1/generate", json=SEA, headers=headers)).json()["id"]
        await served.until(lambda: served.app.state.admission.in_progress == 1)
        await asyncio.sleep(0.2)  # for the attempt to have begun its text
    second = shop.promote("two")
    if gone:
        shutil.rmtree(shop.folder / "adapters" / first)
    async with shop.serving(store=store) as served, asyncio.timeout(20):
        found = (await served.client.get(f"/v1/jobs/{job}")).json()
        while found["finished_at"] is None:
            await asyncio.sleep(0.05)
            found = (await served.client.get(f"/v1/jobs/{job}")).json()

    assert (found["error"], found["result"]["model"]) == (None, f"learned@{second if gone else first}")
    assert json.dumps(found["result"]["choices"]).count("two") == (2 if gone else 0)


async def test_the_metrics_say_which_weights_answer(shop: Shop) -> None:
    first = shop.promote("one")
    async with shop.serving() as served:
        shop.registry.rollback()
        await answers_as(served, "")
        page = (await served.client.get("/metrics")).text

    assert f'redraft_learned_model{{serves="learned@{first}"}} 0.0' in page
    assert 'redraft_learned_model{serves="base"} 1.0' in page
