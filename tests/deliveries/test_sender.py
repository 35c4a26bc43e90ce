"""Notices reach a receiver that verifies each of them, however long it was away."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.deliveries.delivery import DELAYS_SECONDS, JITTER, Backlog, Delivery, Destination
from service.deliveries.receivers import Receivers, ReceiverSettings
from service.deliveries.sender import MOST_AT_ONCE, Sender
from tests.deliveries.conftest import Clock, Store, opened
from tests.support.receiver import ReceiverServer

SETTINGS = TypeAdapter(dict[str, ReceiverSettings])
HOUR = 3600.0


@asynccontextmanager
async def sending(store: Store, folder: Path, *servers: ReceiverServer, **options: Any) -> AsyncIterator[Sender]:
    """A sender to the receivers ``r0``, ``r1`` and so on."""
    configured = {f"r{number}": server.configuration(folder) for number, server in enumerate(servers)}
    receivers = Receivers(SETTINGS.validate_python(configured))
    sender = Sender(store.deliveries, receivers, clock=store.clock, **options)
    sender.start()
    try:
        yield sender
    finally:
        await sender.close()


def to(server: ReceiverServer, number: int = 0, path: str = "") -> Destination:
    return Destination(f"r{number}", server.url + path)


async def until(store: Store, job: str, condition: Callable[[Delivery], bool]) -> Delivery:
    """The delivery, once it is as the condition says."""
    async with asyncio.timeout(20):
        while (found := await store.deliveries.get(job)) is None or not condition(found):
            await asyncio.sleep(0.005)
    return found


async def tried(store: Store, job: str, attempts: int) -> Delivery:
    """The delivery, once that many attempts have been settled."""
    return await until(store, job, lambda each: each.attempts == attempts and each.tried == store.clock.now)


async def test_a_notice_is_delivered_once(store: Store, tmp_path: Path) -> None:
    counted: Counter[tuple[str, str]] = Counter()
    async with ReceiverServer().listening() as server:
        job = await store.end(to(server, path="/42"))
        async with sending(store, tmp_path, server, on_attempt=lambda *result: counted.update([result])):
            found = await until(store, job, lambda each: each.state == "delivered")
            store.clock.now += HOUR

    [seen] = server.seen
    assert (found.attempts, found.status, found.error, found.next_attempt) == (1, 204, None, None)
    assert seen.path == "/hooks/42"
    assert seen.body["data"] == {"id": job, "kind": "refine", "state": "completed"}
    assert seen.body["id"] == seen.message_id
    assert counted == {("r0", "delivered"): 1}


async def test_a_receiver_that_is_down_for_an_hour_still_gets_its_notice(store: Store, tmp_path: Path) -> None:
    server = ReceiverServer()
    async with server.listening():
        pass  # it has a port now, at which nobody listens
    store.clock.now -= 6 * HOUR
    job = await store.end(to(server))
    down_until = store.clock.now + HOUR
    async with sending(store, tmp_path, server) as sender:
        attempts = 1
        while store.clock.now < down_until:
            found = await tried(store, job, attempts)
            assert (found.state, found.status, found.error) == ("pending", None, "no connection could be made")
            assert found.next_attempt is not None
            delay = found.next_attempt - store.clock.now
            assert JITTER[0] <= delay / DELAYS_SECONDS[attempts - 1] <= JITTER[1]
            store.clock.now = found.next_attempt
            attempts += 1
            if store.clock.now < down_until:
                sender.wake()
        store.clock.now = time.time()
        async with server.listening():
            sender.wake()
            await server.until(1)
            await until(store, job, lambda each: each.state == "delivered")

    assert len(server.seen) == 1
    assert attempts >= 4


async def test_after_a_restart_deliveries_go_on(place: str, tmp_path: Path) -> None:
    server, clock = ReceiverServer(), Clock()
    async with server.listening():
        pass
    async with opened(place, clock) as store:
        job = await store.end(to(server))
        async with sending(store, tmp_path, server):
            await tried(store, job, 1)
    clock.now += 10.0
    async with server.listening(), opened(place, clock) as store, sending(store, tmp_path, server):
        found = await until(store, job, lambda each: each.state == "delivered")

    assert (found.attempts, len(server.seen)) == (2, 1)


@pytest.mark.parametrize("status", [301, 307, 400, 404, 500, 502])
async def test_every_other_answer_is_a_failure(store: Store, tmp_path: Path, status: int) -> None:
    server = ReceiverServer([Response(status_code=status, headers={"Location": "/hooks/elsewhere"}), 204])
    async with server.listening():
        job = await store.end(to(server))
        async with sending(store, tmp_path, server) as sender:
            failed = await tried(store, job, 1)
            store.clock.now += 10.0
            sender.wake()
            delivered = await until(store, job, lambda each: each.state == "delivered")

    assert (failed.state, failed.status, delivered.status) == ("pending", status, 204)
    assert [seen.path for seen in server.seen] == ["/hooks", "/hooks"]
    assert len({seen.message_id for seen in server.seen}) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_a_receiver_that_asks_for_time_gets_it(store: Store, tmp_path: Path, status: int) -> None:
    async with ReceiverServer([Response(status_code=status, headers={"Retry-After": "1200"})]).listening() as server:
        job = await store.end(to(server))
        async with sending(store, tmp_path, server):
            found = await tried(store, job, 1)

    assert found.next_attempt == store.clock.now + 1200.0


async def test_who_answers_gone_gets_no_more(store: Store, tmp_path: Path) -> None:
    counted: Counter[tuple[str, str]] = Counter()
    async with ReceiverServer([410]).listening() as server:
        first, second = await store.end(to(server)), await store.end(to(server, path="/other"))
        async with sending(store, tmp_path, server, on_attempt=lambda *result: counted.update([result])) as sender:
            found = [await until(store, job, lambda each: each.state == "gone") for job in (first, second)]
            store.clock.now += HOUR
            sender.wake()

    assert [each.attempts for each in found] == [1, 1]
    assert len(server.seen) == counted["r0", "gone"] == 2


async def test_after_the_last_attempt_a_delivery_is_given_up(store: Store, tmp_path: Path) -> None:
    counted: Counter[tuple[str, str]] = Counter()
    store.clock.now -= 100 * HOUR
    server = ReceiverServer()
    async with server.listening():
        pass
    job = await store.end(to(server))
    async with sending(store, tmp_path, server, on_attempt=lambda *result: counted.update([result])) as sender:
        attempts = 1
        while (found := await tried(store, job, attempts)).next_attempt is not None:
            store.clock.now = found.next_attempt
            attempts += 1
            sender.wake()

    assert (found.state, found.error) == ("given_up", "no connection could be made")
    assert attempts == len(DELAYS_SECONDS) + 1
    assert counted == {("r0", "retried"): len(DELAYS_SECONDS), ("r0", "given_up"): 1}


async def test_a_url_that_is_no_longer_allowed_gets_nothing(store: Store, tmp_path: Path) -> None:
    async with ReceiverServer().listening() as server:
        job = await store.end(Destination("r0", server.url.replace("hooks", "admin")))
        async with sending(store, tmp_path, server):
            found = await tried(store, job, 1)

    assert (found.state, found.error) == ("pending", "the operator no longer allows notices to this URL")
    assert server.seen == []


async def test_of_two_services_one_sends(store: Store, tmp_path: Path) -> None:
    async with ReceiverServer().listening() as server:
        jobs = [await store.end(to(server)) for _ in range(10)]
        async with sending(store, tmp_path, server), sending(store, tmp_path, server):
            for job in jobs:
                await until(store, job, lambda each: each.state == "delivered")

    assert sorted(seen.body["data"]["id"] for seen in server.seen) == sorted(jobs)


class StuckServer(ReceiverServer):
    """Answers nobody until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()
        self.at_once = self.most_at_once = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.may_answer.wait()
        await super().__call__(scope, receive, send)
        self.at_once -= 1


async def test_a_slow_receiver_holds_no_other_up(store: Store, tmp_path: Path) -> None:
    slow = StuckServer()
    async with slow.listening(), ReceiverServer().listening() as other:
        late = [await store.end(to(slow)) for _ in range(MOST_AT_ONCE + 2)]
        job = await store.end(to(other, 1))
        async with sending(store, tmp_path, slow, other):
            await until(store, job, lambda each: each.state == "delivered")
            async with asyncio.timeout(20):
                while slow.at_once < MOST_AT_ONCE:
                    await asyncio.sleep(0.005)
            slow.may_answer.set()
            for each in late:
                await until(store, each, lambda each: each.state == "delivered")

    assert slow.most_at_once == MOST_AT_ONCE


async def test_an_attempt_that_a_shutdown_cuts_off_is_made_by_the_next_at_once(store: Store, tmp_path: Path) -> None:
    slow = StuckServer()
    async with slow.listening():
        job = await store.end(to(slow))
        async with sending(store, tmp_path, slow), asyncio.timeout(20):
            while not slow.at_once:
                await asyncio.sleep(0.005)
        left = await store.deliveries.get(job)
        slow.may_answer.set()
        async with sending(store, tmp_path, slow):
            found = await until(store, job, lambda each: each.state == "delivered")

    assert left is not None
    assert (left.state, left.attempts, left.next_attempt) == ("pending", 0, store.clock.now)
    assert found.attempts == 1


async def test_the_backlog_is_reported(store: Store, tmp_path: Path) -> None:
    reported: asyncio.Queue[Backlog] = asyncio.Queue()
    async with ReceiverServer().listening() as server:
        await store.end(Destination("removed", "https://hooks.example.com/"))
        await store.add(to(server))
        store.clock.now += 60.0
        async with sending(store, tmp_path, server, on_backlog=reported.put_nowait):
            assert await asyncio.wait_for(reported.get(), 20) == Backlog(1, 1)


async def test_without_receivers_nothing_runs(store: Store, tmp_path: Path) -> None:
    reported: list[Backlog] = []
    before = asyncio.all_tasks()
    async with sending(store, tmp_path, on_backlog=reported.append):
        assert asyncio.all_tasks() == before
