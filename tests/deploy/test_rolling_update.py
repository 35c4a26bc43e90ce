"""Two replicas replaced one after the other under load, as the Deployment does it: a new one gets ready, an old one is
forgotten, waits (preStop), drains and ends. The engine is the scripted one: it is the service that drains."""

import asyncio
import os
import sys
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import httpx
import pytest

from bench.harness.servers import free_port

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(180)]

LATE_REQUESTS = 6
"""What a replica is still sent after the decision that it goes, until everyone has heard of it; what preStop is for."""
CLIENTS = 16


@dataclass(frozen=True)
class Replica:
    process: Process
    url: str


@dataclass
class Balancer:
    """Sends each request on to one of the replicas, in turn, and never again. ``answered`` counts the statuses of each;
    0 stands for no answer."""

    client: httpx.AsyncClient
    replicas: list[Replica] = field(default_factory=list)
    sent: "Counter[str]" = field(default_factory=Counter)
    answered: "Counter[tuple[str, int]]" = field(default_factory=Counter)
    _turn: "count[int]" = field(default_factory=count)

    async def refine(self) -> int:
        replica = self.replicas[next(self._turn) % len(self.replicas)]
        self.sent[replica.url] += 1
        body = {"prompt": "Describe the sea.", "search": {"critic": "model", "rounds": 1}}
        try:
            response = await self.client.post(f"{replica.url}/v1/refine", json=body)
        except httpx.TransportError:
            self.answered[replica.url, 0] += 1
            return 0
        self.answered[replica.url, response.status_code] += 1
        return response.status_code

    async def has_arrived(self, replica: Replica) -> bool:
        """Whether all that was sent to the replica and is not answered is at work there."""
        page = (await self.client.get(f"{replica.url}/metrics")).text
        waited_for = self.sent[replica.url] - sum(n for (url, _), n in self.answered.items() if url == replica.url)
        return f"redraft_requests_in_progress {waited_for}.0" in page


@asynccontextmanager
async def started() -> AsyncIterator[Replica]:
    """A replica that is ready."""
    port = free_port()
    environment = {**os.environ, "REDRAFT_PORT": str(port), "REDRAFT_ENGINE": "scripted", "REDRAFT_LOG_LEVEL": "error"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.deploy.slow_service"), env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client, asyncio.timeout(60):
            while not await _is_ready(client):
                assert process.returncode is None
                await asyncio.sleep(0.05)
        yield Replica(process, f"http://127.0.0.1:{port}")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health/ready")).status_code == 200
    except httpx.TransportError:
        return False


async def retire(balancer: Balancer, replica: Replica) -> None:
    """What deleting a pod does: it is still sent requests while preStop lasts; then come SIGTERM and the drain."""
    late = balancer.sent[replica.url] + LATE_REQUESTS
    while balancer.sent[replica.url] < late:
        await asyncio.sleep(0.01)
    balancer.replicas.remove(replica)
    while not await balancer.has_arrived(replica):
        await asyncio.sleep(0.01)
    replica.process.terminate()
    async with asyncio.timeout(30):
        assert await replica.process.wait() == 0


async def test_no_request_fails_while_both_replicas_are_replaced() -> None:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None))
        )
        balancer = Balancer(client)
        old = [await stack.enter_async_context(started()) for _ in range(2)]
        balancer.replicas += old
        over = asyncio.Event()

        async def ask_on() -> None:
            while not over.is_set() and await balancer.refine() == httpx.codes.OK:
                pass

        clients = [asyncio.ensure_future(ask_on()) for _ in range(CLIENTS)]
        for replica in old:
            new = await stack.enter_async_context(started())  # maxSurge 1
            balancer.replicas.append(new)
            await retire(balancer, replica)  # maxUnavailable 0: only now
        over.set()
        await asyncio.gather(*clients)

        assert {status for _, status in balancer.answered} == {200}, balancer.answered
        replicas = {*old, *balancer.replicas}
        assert {url for url, _ in balancer.answered} == {replica.url for replica in replicas}
        assert len(replicas) == 4


async def test_without_its_notice_a_replica_would_be_missed() -> None:
    """The measure can fail: a replica that drains while it is still sent requests refuses them."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=60))
        balancer = Balancer(client, [await stack.enter_async_context(started())])
        [replica] = balancer.replicas
        running = asyncio.ensure_future(balancer.refine())
        while (await client.get(f"{replica.url}/metrics")).text.count("redraft_requests_in_progress 1.0") == 0:
            await asyncio.sleep(0.01)
        replica.process.terminate()
        while (await client.get(f"{replica.url}/health/ready")).status_code == 200:
            await asyncio.sleep(0.01)
        assert await balancer.refine() == 503
        assert await running == 200
