"""What callers are told of their limit on requests in progress."""

import asyncio
import hashlib
from collections.abc import Mapping

import httpx
import pytest

from service.api.rate_limits import FIELDS, OPENAI_FIELDS
from tests.support.scripts import stall
from tests.support.serving import Served, serving

KEYS = ",".join(f"{name}:{hashlib.sha256(name.encode()).hexdigest()}" for name in ("ann", "bob"))
PROMPT = {"prompt": "Write about the sea."}
CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "Write about the sea."}]}


def by(name: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {name}"}


def told(response: httpx.Response) -> dict[str, str]:
    return {name: response.headers[name] for name in (*FIELDS, *OPENAI_FIELDS) if name in response.headers}


def fields(remaining: int) -> dict[str, str]:
    return {
        "RateLimit-Policy": '"concurrency";q=3;qu="concurrent-requests"',
        "RateLimit": f'"concurrency";r={remaining}',
    }


async def test_a_response_says_how_many_more_requests_its_caller_may_send() -> None:
    async with serving(api_keys=KEYS, max_programs_per_key=3) as served:
        whole = await served.post("/v1/generate", PROMPT, headers=by("ann"))
        streamed = await served.post("/v1/refine", {**PROMPT, "stream": True}, headers=by("ann"))
        listed = await served.client.get("/v1/tasks", headers=by("ann"))

    assert told(whole) == told(streamed) == fields(2)  # while this one is in progress
    assert told(listed) == fields(3)


async def test_each_caller_has_a_limit_of_its_own_and_a_refusal_says_that_nothing_is_left() -> None:
    async with serving(api_keys=KEYS, max_programs_per_key=3) as served:
        stall(served.engine, lambda call: True)
        waiting = [asyncio.create_task(served.post("/v1/generate", PROMPT, headers=by("ann"))) for _ in range(3)]
        await served.until(lambda: served.app.state.admission.held_by("ann") == 3)
        refused = await served.post("/v1/generate", PROMPT, headers=by("ann"))
        other = await served.client.get("/v1/tasks", headers=by("bob"))
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        await served.at_rest()

    assert refused.status_code == 429
    assert told(refused) == fields(0)
    assert told(other) == fields(3)


async def test_openai_s_clients_are_also_told_in_their_words() -> None:
    async with serving(api_keys=KEYS, max_programs_per_key=3) as served:
        answered = await served.post("/v1/chat/completions", CHAT, headers=by("ann"))
        refused = await served.post("/v1/chat/completions", {**CHAT, "model": "none"}, headers=by("ann"))

    assert told(answered) == fields(2) | {"x-ratelimit-limit-requests": "3", "x-ratelimit-remaining-requests": "2"}
    assert refused.status_code == 404
    assert told(refused) == fields(3) | {"x-ratelimit-limit-requests": "3", "x-ratelimit-remaining-requests": "3"}


async def test_a_stranger_is_told_nothing() -> None:
    async with serving(api_keys=KEYS, max_programs_per_key=3) as served:
        response = await served.post("/v1/generate", PROMPT)
        health = await served.client.get("/health/live")

    assert response.status_code == 401
    assert told(response) == told(health) == {}


@pytest.mark.parametrize("path", ["/v1/generate", "/v1/refine"])
async def test_without_a_limit_there_is_nothing_to_tell(served: Served, path: str) -> None:
    assert told(await served.post(path, PROMPT)) == {}
