"""What a store keeps of deliveries, and who may make an attempt: on SQLite and on Postgres."""

import asyncio
import json
import time
from datetime import datetime

import pytest

from service.deliveries.delivery import Backlog, DeliveryClaim, Destination, Settlement
from service.jobs.job import JobEvent, JobTaken, Progress
from tests.deliveries.conftest import Store

BILLING = Destination("billing", "https://hooks.example.com/billing")
AUDIT = Destination("audit", "https://hooks.example.com/audit")
ERROR = JobEvent(1, "error", {"code": "cancelled"})


async def claim(store: Store, *receivers: str, lease: float = 60.0) -> DeliveryClaim | None:
    return await store.deliveries.claim(receivers or ("billing", "audit"), store.clock.now, lease)


async def claimed(store: Store) -> DeliveryClaim:
    found = await claim(store)
    assert found is not None
    return found


async def test_the_end_of_a_job_makes_its_notice_due(store: Store) -> None:
    job = await store.add(BILLING)
    before, none = await store.deliveries.get(job), await claim(store)
    running = await store.jobs.claim("me", 15.0)
    assert running is not None
    still_none = await claim(store)
    await store.jobs.finish(running, "completed", JobEvent(1, "done", {"text": "Waves."}), Progress())
    after, found = await store.deliveries.get(job), await claim(store)

    assert before is not None
    assert (before.state, none, still_none) == ("waiting", None, None)
    assert after is not None
    assert (after.state, after.url, after.next_attempt) == ("pending", BILLING.url, store.clock.now)
    assert found is not None
    assert (found.job_id, found.destination, found.attempt) == (job, BILLING, 1)
    assert json.loads(found.body) == {
        "id": found.message_id,
        "object": "event",
        "type": "job.completed",
        "timestamp": json.loads(found.body)["timestamp"],
        "created_at": int(store.clock.now),
        "data": {"id": job, "kind": "refine", "state": "completed"},
    }
    happened = datetime.fromisoformat(json.loads(found.body)["timestamp"])
    assert happened.timestamp() == pytest.approx(store.clock.now, abs=0.001)
    assert "." not in found.message_id  # which separates what is signed


async def test_a_job_that_was_cancelled_before_it_began_has_a_notice(store: Store) -> None:
    job = await store.add(BILLING)
    ended, again = await store.jobs.cancel(job, ERROR), await store.jobs.cancel(job, ERROR)

    assert (ended, again) == (True, False)
    assert json.loads((await claimed(store)).body)["type"] == "job.cancelled"


async def test_the_notice_of_a_cancelled_job_waits_until_its_work_has_ended(store: Store) -> None:
    job = await store.add(BILLING)
    running = await store.jobs.claim("me", 15.0)
    assert running is not None
    ended = await store.jobs.cancel(job, ERROR)

    assert (ended, await claim(store)) == (False, None)
    await store.jobs.finish(running, "cancelled", ERROR, Progress())
    assert await claim(store)


async def test_an_end_that_is_not_written_makes_no_notice_due(store: Store) -> None:
    await store.add(BILLING)
    lost = await store.jobs.claim("paused", 0.0)
    assert lost is not None
    assert await store.jobs.claim("other", 15.0)
    with pytest.raises(JobTaken):
        await store.jobs.finish(lost, "completed", ERROR, Progress())

    assert await claim(store) is None


async def test_of_a_job_that_names_nobody_nothing_is_kept(store: Store) -> None:
    job = await store.end(None)

    assert await claim(store) is None
    assert await store.deliveries.get(job) is None
    assert await store.deliveries.send_again(job, store.clock.now) is None


async def test_of_several_processes_one_makes_the_attempt(store: Store) -> None:
    ended = {await store.end(BILLING) for _ in range(3)}
    found = await asyncio.gather(*(claim(store) for _ in range(8)))

    assert sorted(each.job_id for each in found if each) == sorted(ended)


async def test_only_receivers_that_are_asked_for_are_claimed_for(store: Store) -> None:
    await store.end(BILLING)

    assert await claim(store, "audit") is None
    assert await claim(store, "audit", "billing")


async def test_an_attempt_that_nobody_settles_is_made_again_when_its_lease_is_over(store: Store) -> None:
    await store.end(BILLING)
    lost = await claimed(store)
    early = await claim(store)
    store.clock.now += 60.0
    again = await claimed(store)

    assert early is None
    assert (lost.attempt, again.attempt, again.message_id) == (1, 2, lost.message_id)
    assert not await store.deliveries.settle(lost, Settlement("delivered", store.clock.now, status=200))
    assert await store.deliveries.settle(again, Settlement("delivered", store.clock.now, status=200))


async def test_an_attempt_that_is_let_go_does_not_count(store: Store) -> None:
    await store.end(BILLING)
    await store.deliveries.release(await claimed(store), store.clock.now)

    assert (await claimed(store)).attempt == 1


async def test_what_is_retried_is_due_again_then(store: Store) -> None:
    job = await store.end(BILLING)
    now = store.clock.now
    await store.deliveries.settle(await claimed(store), Settlement("retried", now, now + 5.0, 500, None))
    kept, early = await store.deliveries.get(job), await claim(store)
    store.clock.now += 5.0

    assert kept is not None
    assert (kept.state, kept.attempts, kept.tried, kept.next_attempt) == ("pending", 1, now, now + 5.0)
    assert (kept.status, kept.error) == (500, None)
    assert early is None
    assert (await claimed(store)).attempt == 2


@pytest.mark.parametrize("result", ["delivered", "given_up", "gone"])
async def test_what_has_ended_is_sent_again_only_by_hand(store: Store, result: str) -> None:
    job = await store.end(BILLING)
    first = await claimed(store)
    settlement = Settlement(result, store.clock.now, status=200)  # type: ignore[arg-type]
    await store.deliveries.settle(first, settlement)
    store.clock.now += 1e6
    ended, none = await store.deliveries.get(job), await claim(store)
    again = await store.deliveries.send_again(job, store.clock.now)
    second = await claimed(store)

    assert ended is not None
    assert (ended.state, ended.attempts, ended.next_attempt, none) == (result, 1, None, None)
    assert again is not None
    assert (again.state, again.attempts, again.next_attempt) == ("pending", 0, store.clock.now)
    assert (second.message_id, second.body, second.attempt) == (first.message_id, first.body, 1)


async def test_a_wish_to_send_again_is_not_lost_to_an_attempt_that_is_being_made(store: Store) -> None:
    job = await store.end(BILLING)
    first = await claimed(store)
    await store.deliveries.send_again(job, store.clock.now)

    assert not await store.deliveries.settle(first, Settlement("delivered", store.clock.now, status=200))
    assert (await claimed(store)).attempt == 1


async def test_nothing_is_sent_again_before_the_job_has_ended(store: Store) -> None:
    job = await store.add(BILLING)
    found = await store.deliveries.send_again(job, store.clock.now)

    assert found is not None
    assert found.state == "waiting"
    assert await claim(store) is None


async def test_who_is_gone_gets_nothing_that_is_pending_any_more(store: Store) -> None:
    jobs = [await store.end(BILLING) for _ in range(3)]
    other, waiting = await store.end(AUDIT), await store.add(BILLING)
    found = await claim(store, "billing")
    assert found is not None
    assert await store.deliveries.settle(found, Settlement("gone", store.clock.now, status=410))
    states = [await store.deliveries.get(job) for job in [*jobs, waiting, other]]

    assert [each.state for each in states if each] == ["gone", "gone", "gone", "waiting", "pending"]


async def test_deliveries_are_dropped_with_their_jobs(store: Store) -> None:
    ended, live = await store.end(BILLING), await store.add(BILLING)
    await store.jobs.purge(time.time() + 1)

    assert await store.deliveries.get(ended) is None
    assert await store.deliveries.get(live) is not None


async def test_what_is_pending_and_overdue_is_counted(store: Store) -> None:
    for _ in range(3):
        await store.end(BILLING)
    await store.add(BILLING)
    await store.deliveries.settle(await claimed(store), Settlement("delivered", store.clock.now, status=200))
    fresh = await store.deliveries.measure(store.clock.now, 60.0)
    await claimed(store)  # for 60 seconds it is at work
    store.clock.now += 60.0
    later = await store.deliveries.measure(store.clock.now, 60.0)

    assert (fresh, later) == (Backlog(2, 0), Backlog(2, 1))
