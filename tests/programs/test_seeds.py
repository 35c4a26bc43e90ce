"""Seeds: whatever integer of 64 bits a caller sends, engines are given one that they take."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engines.base import SEEDS, Sample, Sampling, engine_seed
from service.tasks.overrides import SamplingOverrides
from tests.api.openai.test_tools import ASKED as WITH_TOOLS
from tests.api.openai.test_translate import ASKED, PATH
from tests.support.chat_server import ChatServer, before
from tests.support.serving import Served

LEAST, MOST = -(2**63), 2**64 - 1
TOLD = {0: 0, 2**31: 2**31, 1_764_345_600_123_456_789: 1_764_345_600_123_456_789, -1: SEEDS - 1, MOST: 1}
PROMPT = {"prompt": "Write about the sea."}


@given(seed=st.integers(LEAST, MOST), index=st.integers(0, 1_000))
def test_siblings_have_seeds_that_engines_take(seed: int, index: int) -> None:
    sampling = SamplingOverrides(seed=seed).apply_to(Sampling())
    sibling = sampling.sibling(index)

    assert sampling.seed is not None
    assert sibling.seed is not None
    assert 0 <= sampling.seed < SEEDS
    assert sibling.seed == engine_seed(seed + index)
    assert 0 <= sibling.seed < SEEDS
    assert index == 0 or sibling.seed != sampling.seed


@pytest.mark.parametrize(("seed", "told"), TOLD.items())
async def test_a_seed_reaches_the_engine_from_every_endpoint(served: Served, seed: int, told: int) -> None:
    sampling = {"sampling": {"seed": seed}}
    line = {"custom_id": "a", "url": PATH, "body": {**ASKED, "seed": seed}}
    responses = [
        await served.post("/v1/generate", {**PROMPT, **sampling}),
        await served.post("/v1/refine", {**PROMPT, **sampling, "judge": False, "search": {"rounds": 0}}),
        await served.post(PATH, {**ASKED, "seed": seed}),
        await served.post("/v1/batch", {"requests": [line]}),
    ]

    assert [response.status_code for response in responses] == [200] * 4
    assert [sample.sampling.seed for sample in served.engine.calls_of(Sample)] == [told] * 4


@pytest.mark.parametrize("asked", [ASKED, WITH_TOOLS])
async def test_a_server_is_sent_one_that_it_takes(asked: dict[str, Any]) -> None:
    server = ChatServer()
    async with before(server) as front:
        assert (await front.post(PATH, {**asked, "seed": -1})).status_code == 200

    assert [body["seed"] for body in server.asked] == [SEEDS - 1]


@pytest.mark.parametrize("seed", [LEAST - 1, MOST + 1, 10**400, 1.5, True])
async def test_anything_else_is_refused(served: Served, seed: Any) -> None:
    chat = await served.post(PATH, {**ASKED, "seed": seed})
    plain = await served.post("/v1/generate", {**PROMPT, "sampling": {"seed": seed}})

    assert (chat.status_code, chat.json()["error"]["param"]) == (400, "seed")
    assert (plain.status_code, plain.json()["errors"][0]["field"]) == (422, "sampling.seed")
    assert served.engine.calls == []


async def test_the_api_s_schema_tells_the_bounds(served: Served) -> None:
    schemas = json.loads((await served.client.get("/openapi.json")).text)["components"]["schemas"]
    [form, _] = schemas["SamplingOverrides"]["properties"]["seed"]["anyOf"]

    assert form == {"type": "integer", "minimum": LEAST, "maximum": MOST}
