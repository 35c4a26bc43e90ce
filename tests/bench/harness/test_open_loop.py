"""Load: when requests are due, what is measured of them, and that no answer holds the next request back."""

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from bench.harness.open_loop import (
    Answer,
    capacity,
    closed_loop,
    goodput,
    open_loop,
    poisson_arrivals,
    post,
    unlimited_client,
)
from bench.harness.servers import free_port
from service.engines.scripted import Script
from tests.support.serving import Served, reply, serving

REFINE = {"prompt": "Describe the sea.", "judge": False, "search": {"rounds": 0}}


def answer(ended: float, status: int | None = 200) -> Answer:
    return Answer(0.0, 0.0, ended, status, {}, b"")


def test_arrivals_are_as_many_as_the_rate_says_and_the_same_for_a_seed() -> None:
    arrivals = poisson_arrivals(5.0, 1000.0, seed=1)

    assert 4700 < len(arrivals) < 5300  # four standard deviations
    assert all(earlier < later for earlier, later in pairwise(arrivals))
    assert arrivals[-1] < 1000.0
    assert arrivals == poisson_arrivals(5.0, 1000.0, seed=1) != poisson_arrivals(5.0, 1000.0, seed=2)


def test_arrivals_are_independent() -> None:
    gaps = [later - earlier for earlier, later in pairwise(poisson_arrivals(5.0, 1000.0, seed=1))]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5

    assert deviation == pytest.approx(mean, rel=0.1)  # an exponential distribution's


async def test_an_open_loop_does_not_wait_for_answers() -> None:
    under_way: set[int] = set()
    all_there = asyncio.Event()

    async def send(number: int, due: float) -> float:
        under_way.add(number)
        if len(under_way) == 3:
            all_there.set()
        await all_there.wait()
        return due

    began = asyncio.get_running_loop().time()
    async with asyncio.timeout(20):
        dues = await open_loop([0.0, 0.01, 0.02], send)

    assert [due - dues[0] for due in dues] == pytest.approx([0.0, 0.01, 0.02])
    assert began <= dues[0] < began + 10


async def test_an_open_loop_counts_a_late_request_from_when_it_was_due() -> None:
    async def send(number: int, due: float) -> float:
        return asyncio.get_running_loop().time() - due

    async def hog() -> None:
        time.sleep(0.05)  # noqa: ASYNC251 - the loop stands still, as that of a busy client does

    late, _ = await asyncio.gather(open_loop([0.01], send), hog())

    assert late[0] >= 0.03


async def test_a_closed_loop_sends_the_next_when_one_has_ended() -> None:
    most = under_way = 0

    async def send(number: int, due: float) -> int:
        nonlocal most, under_way
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return number

    numbers = await closed_loop(3, 0.1, send)

    assert most == 3
    assert sorted(numbers) == list(range(len(numbers)))
    assert len(numbers) > 6


def test_goodput_counts_results_inside_the_window() -> None:
    answers = [answer(0.9), answer(1.0), answer(2.0), answer(2.5, 503), answer(2.6, None), answer(3.0)]

    assert goodput(answers, 1.0, 3.0) == 2 / 2.0


async def test_capacity_is_what_the_server_does_after_the_warm_up() -> None:
    began = asyncio.get_running_loop().time()
    ends = [began + 0.05, began + 0.2, began + 0.2, began + 0.4]  # one in the warm-up, two in the window, one after it

    async def send(number: int, due: float) -> Answer:
        await asyncio.sleep(0.01)
        return answer(ends[number]) if number < len(ends) else answer(began + 0.2, status=503)

    assert await capacity(2, warm_up=0.1, seconds=0.2, send=send) == pytest.approx(2 / 0.2)


@pytest.fixture
async def full() -> AsyncIterator[Served]:
    """A service that takes one program and lets none wait."""
    async with serving(Script(reply=reply, seconds_per_call=0.2), max_programs=1, max_queued=0) as served:
        yield served


async def test_an_answer_tells_of_results_and_of_refusals(full: Served) -> None:
    due = asyncio.get_running_loop().time() - 1.0
    async with unlimited_client(str(full.client.base_url)) as client:
        answers = await asyncio.gather(*(post(client, "/v1/refine", REFINE, due) for _ in range(3)))

    served = [each for each in answers if each.status == 200]
    refused = [each for each in answers if each.status == 503]
    assert (len(served), len(refused)) == (1, 2)
    assert b'"text":"Waves."' in served[0].body
    assert all(int(each.headers["Retry-After"]) >= 1 for each in refused)
    assert all(each.due == due and 1.0 <= each.seconds < 3.0 for each in answers)
    assert all(each.ended - each.sent < 0.2 for each in refused)


async def test_a_connection_that_fails_is_no_status() -> None:
    async with unlimited_client(f"http://127.0.0.1:{free_port()}") as client:
        found = await post(client, "/v1/refine", REFINE, due=0.0)

    assert found.status is None
    assert found.sent <= found.ended
