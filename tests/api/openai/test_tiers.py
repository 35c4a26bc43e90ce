"""``metadata`` and ``service_tier`` of chat completions."""

import asyncio
import logging
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.api.openai.test_translate import ASKED, PATH, REFINED, refusal, streamed
from tests.support.scripts import stall
from tests.support.serving import Served, serving

NOTES = {"ticket": "T-1", "team": "Meer"}
LINE = {"custom_id": "a", "url": PATH, "body": {**ASKED, "metadata": NOTES, "service_tier": "default"}}


@pytest.mark.parametrize("asked", [ASKED, REFINED], ids=["generate", "refine"])
async def test_metadata_comes_back_in_the_answer_and_in_the_last_chunk(served: Served, asked: dict[str, Any]) -> None:
    whole = (await served.post(PATH, {**asked, "metadata": NOTES})).json()
    chunks = await streamed(served, {**asked, "metadata": NOTES})

    assert whole["metadata"] == NOTES
    assert [chunk["metadata"] for chunk in chunks if "metadata" in chunk] == [NOTES]
    assert chunks[-1]["metadata"] == NOTES


async def test_metadata_is_in_the_log(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await served.post(PATH, {**ASKED, "metadata": NOTES})
    await served.post(PATH, ASKED)

    noted, plain = (vars(record) for record in caplog.records if record.getMessage() == "program ended")
    assert noted["metadata"] == NOTES
    assert "metadata" not in plain


@pytest.mark.parametrize("stated", [{}, {"metadata": None, "service_tier": None}], ids=["left out", "null"])
async def test_what_is_not_asked_for_is_not_answered(served: Served, stated: dict[str, Any]) -> None:
    whole = (await served.post(PATH, {**ASKED, **stated})).json()
    chunks = await streamed(served, {**ASKED, **stated})

    assert not any({"metadata", "service_tier"} & each.keys() for each in (whole, *chunks))


@pytest.mark.parametrize(
    "metadata",
    [
        {str(number): "" for number in range(17)},
        {"x" * 65: ""},
        {"x": "y" * 513},
        {"x": 1},
        {"x": None},
        ["x"],
    ],
    ids=["pairs", "key", "value", "number", "null", "list"],
)
async def test_metadata_is_bounded_as_openai_bounds_it(served: Served, metadata: Any) -> None:
    status, _, param, _ = refusal(await served.post(PATH, {**ASKED, "metadata": metadata}))

    assert status == 400
    assert param is not None
    assert param.split(".")[0] == "metadata"
    assert served.engine.calls == []


async def test_the_most_metadata_that_is_allowed(served: Served) -> None:
    most = {f"{number:064}": "y" * 512 for number in range(16)}
    assert (await served.post(PATH, {**ASKED, "metadata": most})).json()["metadata"] == most


@pytest.mark.parametrize(
    ("asked", "told"), [("flex", "flex"), ("auto", "default"), ("default", "default"), ("priority", "default")]
)
async def test_the_answer_says_which_tier_served_it(served: Served, asked: str, told: str) -> None:
    whole = (await served.post(PATH, {**ASKED, "service_tier": asked})).json()
    chunks = await streamed(served, {**ASKED, "service_tier": asked})

    assert whole["service_tier"] == told
    assert {chunk["service_tier"] for chunk in chunks} == {told}


async def test_a_tier_that_is_unknown_is_refused(served: Served) -> None:
    response = await served.post(PATH, {**ASKED, "service_tier": "cheap"})
    assert refusal(response) == (400, "invalid_request_error", "service_tier", "invalid_request")


async def test_flex_waits_in_the_lane_of_batches_and_lets_others_pass() -> None:
    async with serving(max_programs=1, max_queued=1, max_batch_programs=1) as served:
        stall(served.engine, lambda call: True)
        flex = {**ASKED, "service_tier": "flex"}
        waiting = [asyncio.create_task(served.post(PATH, flex)) for _ in range(2)]
        await served.until(lambda: len(served.engine.calls) == 1)
        lane = served.app.state.admission
        assert (lane.in_progress, lane.queued) == (0, 0)

        served.engine.script = type(served.engine.script)()
        assert (await served.post(PATH, ASKED)).status_code == 200
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        await served.at_rest()


async def test_flex_is_refused_where_no_batch_would_be_taken() -> None:
    async with serving(max_batches=1) as served:
        stall(served.engine, lambda call: True)
        first = asyncio.create_task(served.post(PATH, {**ASKED, "service_tier": "flex"}))
        await served.until(lambda: len(served.engine.calls) == 1)
        refused = await served.post(PATH, {**ASKED, "service_tier": "flex"})
        first.cancel()
        await asyncio.wait([first])
        await served.at_rest()

    assert refusal(refused) == (503, "server_error", None, "overloaded")


async def test_a_line_of_a_batch_says_flex_whatever_it_asks_for(served: Served) -> None:
    answer = (await served.post("/v1/batch", {"requests": [LINE]})).json()["response"]["body"]

    assert answer["service_tier"] == "flex"
    assert answer["metadata"] == NOTES


async def test_openai_s_client_reads_both(served: Served) -> None:
    async with AsyncOpenAI(base_url=f"{served.client.base_url}/v1", api_key="none", max_retries=0) as client:
        answer = await client.chat.completions.create(
            model="scripted",
            messages=[{"role": "user", "content": "Write."}],
            metadata=NOTES,
            service_tier="flex",
        )

    assert answer.service_tier == "flex"
    assert answer.model_extra is not None
    assert answer.model_extra.get("metadata", getattr(answer, "metadata", None)) == NOTES
