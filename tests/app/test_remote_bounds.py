"""The service before servers that attack it: what they send is bounded, and what they count is not believed."""

import asyncio
import json
import logging
import resource
from typing import Any

import pytest

from service.engines.remote.bodies import MIB
from tests.app.test_remote_servers import before, readiness, ready
from tests.support.hostile_server import ATTACKS, HostileServer, attacking
from tests.support.serving import Served

MAX_TOKENS = 512
MOST_SENT = 32 * MIB
"""What a server gets rid of: what is read, and what the buffers of both ends hold. An attack has ten times as much."""
MOST_GROWTH = 64 * MIB


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def asked(front: Served, attack: str, *, stream: bool) -> tuple[int, str, int]:
    """The status, what was said of the failure, and the bytes that the client was sent."""
    body = {"prompt": f"{attack} please", "sampling": {"max_tokens": MAX_TOKENS}, "stream": stream}
    async with front.client.stream("POST", "/v1/generate", json=body, timeout=60) as response:
        content = await response.aread()
    return response.status_code, content[-2000:].decode(), len(content)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("attack", ATTACKS)
async def test_no_attack_gets_further_than_what_was_asked_for(attack: str, *, stream: bool) -> None:
    server = HostileServer()
    async with attacking(server) as url, before(url, model="m") as front:
        await ready(front)
        grown = peak()
        status, said, size = await asked(front, attack, stream=stream)
        grown = peak() - grown
        after = await front.post("/v1/generate", {"prompt": "Say yes."})

    assert status == 503 or (stream and status == 200)
    assert "engine_unavailable" in said
    assert size < 4 * MIB
    assert server.sent < MOST_SENT
    assert grown < MOST_GROWTH
    assert after.status_code == 200
    assert server.encodings == {"identity"}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_server_whose_list_and_probes_attack_does_not_come_up(attack: str) -> None:
    server = HostileServer(everywhere=attack)
    async with attacking(server) as url, before(url, model="m") as front:
        grown = peak()
        told = await readiness(front)
        grown = peak() - grown

    assert (told.status_code, told.json()["code"]) == (503, "engine_unavailable")
    assert grown < MOST_GROWTH


async def test_the_log_says_what_was_wrong_with_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    server = HostileServer()
    async with attacking(server) as url, before(url, model="m") as front:
        await ready(front)
        with caplog.at_level(logging.WARNING):
            _, said, _ = await asked(front, "endless_body", stream=False)

    failures = [record.__dict__.get("failure", "") for record in caplog.records]
    assert any("more than 2097152 bytes" in failure for failure in failures)
    assert "more than 2097152 bytes" in said


ABSURD: list[Any] = [
    {"prompt_tokens": -5, "completion_tokens": -7},
    {"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": -3}},
    {"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 50}},
    {"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": [1]},
    {"prompt_tokens": True, "completion_tokens": False},
    {"prompt_tokens": 1.5, "completion_tokens": 2.0},
    {"prompt_tokens": 10**30, "completion_tokens": 10**18},
    {"prompt_tokens": 1e300, "completion_tokens": float("inf")},
    {"prompt_tokens": float("nan"), "completion_tokens": float("-inf")},
    {"prompt_tokens": "9", "completion_tokens": "many"},
    {"prompt_tokens": None, "completion_tokens": None},
    {"prompt_tokens": {}, "completion_tokens": []},
    {"completion_tokens": 7},
    {},
    [],
    "nine",
    7,
    None,
]


@pytest.mark.parametrize("usage", ABSURD, ids=json.dumps)
async def test_counts_that_cannot_be_cost_nothing(usage: Any) -> None:
    server = HostileServer()
    refine = {"prompt": "Say yes.", "evaluators": [{"type": "keywords", "include": ["no"]}], "judge": False}
    async with attacking(server) as url, before(url, model="m") as front:
        await ready(front)
        server.usage = usage
        whole = await front.post("/v1/generate", {"prompt": "Say yes."})
        streamed = await front.stream("/v1/generate", {"prompt": "Say yes."})
        refined = await front.post("/v1/refine", {**refine, "search": {"rounds": 1}})
        page = await front.client.get("/metrics")

    assert (whole.status_code, refined.status_code, page.status_code) == (200, 200, 200)
    name, last = streamed[-1]
    assert name == "done"
    for told in (whole.json()["usage"], last["usage"]):
        assert all(type(told[count]) is int for count in ("prompt_tokens", "cached_tokens", "completion_tokens"))
        assert 0 <= told["cached_tokens"] <= told["prompt_tokens"] <= 100_000_000
        assert 0 <= told["completion_tokens"] <= 100_000_000


async def test_attacks_do_not_hold_up_those_who_ask_meanwhile() -> None:
    server = HostileServer()
    async with attacking(server) as url, before(url, model="m") as front:
        await ready(front)
        attacks = [asyncio.ensure_future(asked(front, attack, stream=True)) for attack in ("endless_line", "bomb")]
        alive = [(await front.client.get("/health/live")).status_code for _ in range(50)]
        await asyncio.gather(*attacks)

    assert set(alive) == {200}
