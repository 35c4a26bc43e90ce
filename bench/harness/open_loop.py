"""Load on a server. Open-loop: requests are sent when they are due, whether or not earlier ones have been answered.

A closed loop slows down with the server that it measures and so hides its waiting (Schroeder, Wierman and
Harchol-Balter 2006, "Open versus closed: a cautionary tale"). It measures only how much a server can do.
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

import aiohttp

T = TypeVar("T")
Send = Callable[[int, float], Awaitable[T]]
"""Sends the request of a number, which is due at a time of the event loop, and gives what came of it."""

KEEP_ALIVE_SECONDS = 4.0
"""Less than the five of uvicorn, so that no request meets a connection that the server is closing."""


@dataclass(frozen=True)
class Answer:
    """What came of a request. Times are the event loop's. ``status``: None where the connection failed."""

    due: float
    sent: float
    ended: float
    status: int | None
    headers: Mapping[str, str]
    body: bytes

    @property
    def seconds(self) -> float:
        """From when it was due."""
        return self.ended - self.due


def unlimited_client(url: str) -> aiohttp.ClientSession:
    """A client without limits on connections and time. Create it in the event loop that uses it."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS)
    return aiohttp.ClientSession(url, connector=connector, timeout=aiohttp.ClientTimeout(total=None))


async def post(client: aiohttp.ClientSession, path: str, body: Mapping[str, Any], due: float) -> Answer:
    """Send ``body`` as JSON, now. Nothing that the server does is raised."""
    clock = asyncio.get_running_loop().time
    sent = clock()
    try:
        async with client.post(path, json=body) as response:
            content = await response.read()
            return Answer(due, sent, clock(), response.status, response.headers, content)
    except aiohttp.ClientError:
        return Answer(due, sent, clock(), None, {}, b"")


def send_next(client: aiohttp.ClientSession, requests: Iterator[tuple[str, Mapping[str, Any]]]) -> Send[Answer]:
    """Each call sends the next request, a path and a body, whatever its number is."""

    async def send(number: int, due: float) -> Answer:
        path, body = next(requests)
        return await post(client, path, body, due)

    return send


def poisson_arrivals(rate: float, seconds: float, seed: int) -> Sequence[float]:
    """When requests are due, in seconds from the start: ``rate`` a second on average, at independent moments."""
    draws = random.Random(seed)  # noqa: S311 - nothing secret is drawn
    arrivals = []
    due = draws.expovariate(rate)
    while due < seconds:
        arrivals.append(due)
        due += draws.expovariate(rate)
    return arrivals


async def open_loop(arrivals: Sequence[float], send: Send[T]) -> list[T]:
    """Call ``send`` when each request is due, with its number and that time of the event loop. Returns all results.

    Waiting is measured from when a request is due, so that a late sender does not shorten it.
    """
    clock = asyncio.get_running_loop().time
    started = clock()

    async def one(number: int, due: float) -> T:
        await asyncio.sleep(max(0.0, started + due - clock()))
        return await send(number, started + due)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number, due)) for number, due in enumerate(arrivals)]
    return [task.result() for task in tasks]


async def closed_loop(at_once: int, seconds: float, send: Send[T]) -> list[T]:
    """Keep ``at_once`` requests in flight for ``seconds``, each due when the one before it ended."""
    clock = asyncio.get_running_loop().time
    end = clock() + seconds
    numbers = itertools.count()
    results: list[T] = []

    async def caller() -> None:
        while (now := clock()) < end:
            results.append(await send(next(numbers), now))

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(caller())
    return results


def goodput(answers: Sequence[Answer], begin: float, end: float) -> float:
    """Requests answered with 200 a second, between two times of the event loop."""
    return sum(answer.status == HTTPStatus.OK and begin <= answer.ended < end for answer in answers) / (end - begin)


async def capacity(at_once: int, warm_up: float, seconds: float, send: Send[Answer]) -> float:
    """Requests a second that a server answers with 200, with ``at_once`` in flight, for ``seconds`` after ``warm_up``.

    Returns once all that was sent is answered.
    """
    begin = asyncio.get_running_loop().time() + warm_up
    answers = await closed_loop(at_once, warm_up + seconds, send)
    return goodput(answers, begin, begin + seconds)
