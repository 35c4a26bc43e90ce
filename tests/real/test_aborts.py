"""Texts that are stopped while they are written, on the real engine."""

import asyncio
import time
from typing import Any

from service.concurrency import gather
from tests.real.conftest import Service

REQUESTS = 20
NO_E: dict[str, Any] = {
    "prompt": "Describe the sea in one long sentence.",
    "evaluators": [{"type": "keywords", "letters": {"e": {"max": 0}}}],
    "judge": False,
    "search": {"drafts": 4, "rounds": 0, "constraints": "off"},
    "sampling": {"max_tokens": 24, "temperature": 1.0},
}


async def test_tokens_of_aborted_texts_are_those_that_the_engine_counted(service: Service) -> None:
    before = await service.engine_series()

    async def ask(seed: int) -> dict[str, Any]:
        sampling = {**NO_E["sampling"], "seed": seed}
        response = await service.client.post("/v1/refine", json={**NO_E, "sampling": sampling})
        answer: dict[str, Any] = response.json()
        assert response.status_code == 200, answer
        return answer

    answers = await gather(ask(seed) for seed in range(REQUESTS))
    ended = time.monotonic()
    async with asyncio.timeout(30):
        while service.unfinished() or await service.in_flight():
            await asyncio.sleep(0.02)
    print(f"idle {time.monotonic() - ended:.2f} s after the last answer")
    after = await service.engine_series()

    lost = [text for answer in answers for text in answer["rounds"][0].get("lost", ())]
    assert len(lost) >= 200
    assert all(text["usage"]["completion_tokens"] <= 24 for text in lost)
    spent = [answer["usage"]["total"] for answer in answers]
    for kind, series in (
        ("completion_tokens", "vllm:generation_tokens_total"),
        ("prompt_tokens", "vllm:prompt_tokens_total"),
    ):
        assert sum(usage[kind] for usage in spent) == after[series] - before[series], kind
    assert sum(usage["calls"] for usage in spent) == len(lost) + 4 * REQUESTS
