"""The same request with the same seed has the same account, in whichever order the calls that run together end."""

import asyncio
import hashlib
import json
import os
import re
from collections.abc import Sequence
from typing import Any

import pytest

from bench.harness.counted import CountedEngine
from service.engines.base import Choose
from service.engines.scripted import Script, ScriptedEngine
from service.engines.served import ServedEngine
from service.refinement.program import PRESETS
from tests.support.counted_service import reply
from tests.support.orders import comparable
from tests.support.serving import serving

RUNS = 8
FENCE = re.compile(r"\[[0-9a-f]{12}\]")


def weights(call: Choose) -> Sequence[float]:
    """Probabilities that depend on the call alone, and not on the delimiter that each program draws."""
    seen = hashlib.sha256(FENCE.sub("", call.prompt).encode()).digest()
    drawn = [1 + byte for byte in seen[: len(call.options)]]
    return [each / sum(drawn) for each in drawn]


@pytest.mark.parametrize("preset", PRESETS)
async def test_a_seeded_refine_has_one_account(preset: str) -> None:
    calm = {"type": "judge", "criteria": [{"name": "calm", "question": "Is it calm?"}]}
    request = {
        "prompt": "Describe the sea.",
        "search": {"preset": preset, "rounds": 3},
        "stop": {"patience": 9},
        "evaluators": [{"type": "keywords", "include": ["a word that no text has"]}, *[calm] * (preset != "vote")],
        "sampling": {"seed": 1, "max_tokens": 24},
    }

    async def start(*_: Any) -> ServedEngine:
        calls = os.open(os.devnull, os.O_WRONLY)
        return CountedEngine(ScriptedEngine(Script(reply=reply, weights=weights)), calls, seconds_per_call=0.004)

    async with serving(start=start) as served:
        while (await served.client.get("/health/ready")).status_code != 200:
            await asyncio.sleep(0.01)
        answers = await asyncio.gather(*(served.post("/v1/refine", request) for _ in range(RUNS)))

    accounts = {FENCE.sub("", json.dumps(comparable(answer.json()), sort_keys=True)) for answer in answers}
    assert [answer.status_code for answer in answers] == [200] * RUNS
    assert len(accounts) == 1
