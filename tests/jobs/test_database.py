"""What a store keeps, and who may write to it: on SQLite and on Postgres."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

import pytest
import sqlalchemy as sa

from service.jobs.database import events, jobs
from service.jobs.job import Claim, Job, JobEvent, JobTaken, Once, Progress
from service.jobs.store import JobStore, LiveJobs, Step
from service.programs.ids import make_id
from service.store.opening import open_database
from tests.support.orders import add_jobs, job_store, make_order, make_request

STEP = Step("key", 0, '{"Completion": {"text": "Wäves \u2028 😀"}}', 0.5)
STARTED = JobEvent(1, "started", {"id": "ref-1", "text": "Wäves 😀"})
DONE = JobEvent(2, "done", {"text": "Waves."})


async def add(store: JobStore, number: int = 0) -> str:
    [job] = await add_jobs(store, [make_request(number)])
    return job


async def claim(store: JobStore, lease: float = 15.0) -> Claim:
    found = await store.claim("me", lease)
    assert found is not None
    return found


async def test_a_job_goes_from_the_queue_to_its_end(store: JobStore) -> None:
    job = await add(store)
    queued = await store.get(job)
    claim = await store.claim("me", 15.0)
    assert claim is not None
    await store.record(claim, STEP, worked=1.0)
    await store.append(claim, STARTED, Progress(0, 1, 0.5, 7))
    running = await store.get(job)
    steps = await store.steps(job)
    await store.finish(claim, "completed", DONE, Progress(1, 2, 1.0, 9))
    ended = await store.get(job)

    assert queued is not None
    assert (queued.state, queued.started, queued.outcome) == ("queued", None, None)
    assert claim.order == make_order(make_request(0))
    assert running is not None
    assert (running.state, running.progress) == ("running", Progress(0, 1, 0.5, 7))
    assert steps == [STEP]
    assert ended is not None
    assert (ended.state, ended.outcome, ended.progress) == ("completed", DONE.data, Progress(1, 2, 1.0, 9))
    assert list(await store.events(job, 0)) == [STARTED, DONE]
    assert list(await store.events(job, 1)) == [DONE]
    assert list(await store.steps(job)) == []
    assert await store.claim("me", 15.0) is None


async def test_jobs_are_claimed_in_the_order_in_which_they_came(store: JobStore) -> None:
    added = []
    for number in range(3):
        added.append(await add(store, number))
        await asyncio.sleep(0.002)  # ids sort by milliseconds
    claims = [await store.claim("me", 15.0) for _ in added]

    assert [claim.job.id for claim in claims if claim] == added


async def test_callers_take_turns_however_many_jobs_one_of_them_has(store: JobStore) -> None:
    await add_jobs(store, [make_request(number) for number in range(30)], "greedy")
    begun = [await claim(store) for _ in range(3)]
    await add_jobs(store, [make_request(0)], "late")
    await add_jobs(store, [make_request(number) for number in range(3)], "second")
    begun += [await claim(store) for _ in range(9)]

    assert [found.job.caller for found in begun] == [
        *("greedy", "greedy", "greedy"),
        *("late", "second", "greedy", "second", "greedy", "second"),
        *("greedy", "greedy", "greedy"),
    ]


async def test_a_caller_who_was_away_has_one_turn_and_no_more(store: JobStore) -> None:
    await add_jobs(store, [make_request(0)], "back")
    await claim(store)
    await add_jobs(store, [make_request(number) for number in range(9)], "steady")
    for _ in range(4):
        await claim(store)
    await add_jobs(store, [make_request(number) for number in range(3)], "back")

    assert [(await claim(store)).job.caller for _ in range(4)] == ["back", "steady", "back", "steady"]


async def test_deleted_jobs_count_as_turns_too(store: JobStore) -> None:
    await add_jobs(store, [make_request(number) for number in range(3)], "tidy")
    await add_jobs(store, [make_request(number) for number in range(3)], "other")
    callers = []
    for _ in range(4):
        begun = await claim(store)
        callers.append(begun.job.caller)
        await store.delete(begun.job.id)

    assert sorted(callers[:2]) == sorted(callers[2:]) == ["other", "tidy"]


async def test_the_jobs_of_a_process_that_is_gone_come_before_those_that_wait(store: JobStore) -> None:
    await add_jobs(store, [make_request(0)], "lost")
    lost = await claim(store, lease=0.0)
    await add_jobs(store, [make_request(1)], "waiting")

    assert (await claim(store)).job.id == lost.job.id


async def test_processes_that_claim_at_once_share_the_jobs_between_the_callers(place: str) -> None:
    async with job_store(place) as one:
        await add_jobs(one, [make_request(number) for number in range(40)], "greedy")
        await add_jobs(one, [make_request(number) for number in range(4)], "small")
        async with AsyncExitStack() as opened:
            is_file = "://" not in place
            stores = [one] * 3 if is_file else [await opened.enter_async_context(job_store(place)) for _ in range(3)]
            claims = await asyncio.gather(*(claim(stores[number % 3]) for number in range(20)))

    assert len({found.job.id for found in claims}) == 20
    assert sum(found.job.caller == "small" for found in claims) == 4


async def test_a_job_is_claimed_once(store: JobStore) -> None:
    for number in range(4):
        await add(store, number)
    claims = await asyncio.gather(*(store.claim(f"worker {number}", 15.0) for number in range(8)))

    assert len({claim.job.id for claim in claims if claim}) == sum(1 for claim in claims if claim) == 4


async def test_who_lets_a_job_go_for_longer_than_its_lease_cannot_write_to_it_any_more(store: JobStore) -> None:
    job = await add(store)
    lost = await store.claim("paused", 0.0)
    assert lost is not None
    taken = await store.claim("other", 15.0)
    assert taken is not None

    for write in (
        store.record(lost, STEP, worked=1.0),
        store.append(lost, STARTED, Progress()),
        store.finish(lost, "completed", DONE, Progress()),
        store.release(lost, worked=1.0, delay=0.0),
    ):
        with pytest.raises(JobTaken):
            await write
    assert await store.renew("paused", 15.0) == {}
    assert await store.renew("other", 15.0) == {job: False}
    assert list(await store.steps(job)) == []
    assert list(await store.events(job, 0)) == []
    await store.finish(taken, "completed", STARTED, Progress())


async def test_only_the_leases_of_the_named_jobs_are_renewed(store: JobStore) -> None:
    for number in range(2):
        await add(store, number)
    worked_on, left = await claim(store), await claim(store)
    await store.renew("me", 0.0)

    assert await store.renew("me", 15.0, [worked_on.job.id]) == {worked_on.job.id: False}
    assert (await claim(store)).job.id == left.job.id
    assert await store.renew("me", 15.0, []) == {}


async def test_one_who_claims_a_job_again_cannot_write_by_the_earlier_claim(store: JobStore) -> None:
    await add(store)
    first = await store.claim("me", 0.0)
    second = await store.claim("me", 15.0)
    assert first is not None
    assert second is not None

    with pytest.raises(JobTaken):
        await store.record(first, STEP, worked=1.0)
    await store.record(second, STEP, worked=1.0)
    assert (first.attempt, second.attempt) == (1, 2)


async def test_every_write_renews_the_lease(place: str) -> None:
    async with job_store(place) as store:
        await add(store)
        claim = await store.claim("me", 1.0)
        assert claim is not None
        await store.record(claim, STEP, worked=1.0)
        await asyncio.sleep(1.1)

        assert await store.claim("other", 15.0) is None


async def test_a_job_that_is_let_go_waits_and_its_next_attempt_knows_what_was_done(store: JobStore) -> None:
    await add(store)
    claim = await store.claim("me", 15.0)
    assert claim is not None
    await store.record(claim, STEP, worked=2.0)
    await store.append(claim, STARTED, Progress(tokens=7))
    await store.release(claim, worked=3.0, delay=1.0)
    early = await store.claim("other", 15.0)
    await asyncio.sleep(1.1)
    again = await store.claim("other", 15.0)

    assert early is None
    assert again is not None
    assert (again.attempt, again.worked, again.events, again.keys) == (2, 3.0, 1, frozenset({"started"}))
    assert again.order == claim.order


async def test_attempts_that_record_nothing_are_counted(store: JobStore) -> None:
    await add(store)
    claims = [await store.claim("me", 0.0) for _ in range(3)]
    last = claims[-1]
    assert last is not None
    await store.record(last, STEP, worked=1.0)
    await asyncio.sleep(0)

    assert [claim.idle_attempts for claim in claims if claim] == [1, 2, 3]


async def test_a_job_that_nobody_has_begun_is_cancelled_at_once(store: JobStore) -> None:
    job = await add(store)
    await store.cancel(job, STARTED)
    found = await store.get(job)

    assert found is not None
    assert (found.state, found.outcome) == ("cancelled", STARTED.data)
    assert list(await store.events(job, 0)) == [STARTED]
    assert await store.claim("me", 15.0) is None


async def test_a_job_at_work_is_cancelled_by_who_works_on_it(store: JobStore) -> None:
    job = await add(store)
    claim = await store.claim("me", 15.0)
    assert claim is not None
    await store.cancel(job, STARTED)

    assert await store.renew("me", 15.0) == {job: True}
    found = await store.get(job)
    assert found is not None
    assert (found.state, found.cancelling) == ("running", True)
    await store.finish(claim, "cancelled", DONE, Progress())
    await store.cancel(job, STARTED)
    ended = await store.get(job)
    assert ended is not None
    assert (ended.state, ended.outcome) == ("cancelled", DONE.data)


async def test_a_job_that_was_cancelled_between_two_attempts_comes_before_others(store: JobStore) -> None:
    await add(store)
    await asyncio.sleep(0.002)
    cancelled = await add(store, 1)
    claims = [await store.claim("me", 15.0) for _ in range(2)]
    for claim in claims:
        assert claim is not None
        await store.release(claim, worked=0.0, delay=0.0)
    await store.cancel(cancelled, STARTED)
    claim = await store.claim("me", 15.0)

    assert claim is not None
    assert (claim.job.id, claim.job.cancelling) == (cancelled, True)


async def test_lists_have_the_caller_s_own_jobs(store: JobStore) -> None:
    mine = [f"job-{number}" for number in range(3)]
    for job in mine:
        await store.add(Job(job, "me", "refine", "queued", time.time()), make_order(make_request(0), "me"))
    await store.add(Job("job-9", "other", "refine", "queued", time.time()), make_order(make_request(0), "other"))

    assert [job.id for job in await store.list("me", 9)] == mine[::-1]
    assert [job.id for job in await store.list("me", 1, before="job-2")] == ["job-1"]


async def test_what_ended_long_ago_is_dropped(store: JobStore) -> None:
    old, live = await add(store), await add(store, 1)
    claim = await store.claim("me", 15.0)
    assert claim is not None
    await store.append(claim, STARTED, Progress())
    await store.finish(claim, "completed", DONE, Progress())

    assert await store.purge(time.time() - 60) == 0
    assert await store.purge(time.time() + 1) == 1
    left = live if claim.job.id == old else old
    assert await store.get(claim.job.id) is None
    assert list(await store.events(claim.job.id, 0)) == []
    assert await store.get(left) is not None


async def test_the_jobs_that_have_not_ended_are_counted(store: JobStore) -> None:
    nothing = await store.measure()
    await add(store)
    claim = await store.claim("me", 15.0)
    assert claim is not None
    begun = time.time()
    for number in (1, 2):
        await add(store, number)
    found = await store.measure()
    await store.finish(claim, "completed", DONE, Progress())
    left = await store.measure()

    assert nothing == LiveJobs(0, 0, None)
    assert (found.queued, found.running) == (2, 1)
    assert found.oldest_queued is not None
    assert begun <= found.oldest_queued <= time.time()
    assert (left.queued, left.running) == (2, 0)


async def test_many_writes_at_once_are_all_there(store: JobStore) -> None:
    await add(store)
    claim = await store.claim("me", 15.0)
    assert claim is not None
    steps = [replace(STEP, key=str(number)) for number in range(200)]
    await asyncio.gather(*(store.record(claim, step, worked=1.0) for step in steps))

    assert {step.key for step in await store.steps(claim.job.id)} == {step.key for step in steps}


async def test_a_write_that_fails_takes_no_other_with_it(store: JobStore) -> None:
    await add(store)
    lost = await store.claim("paused", 0.0)
    claim = await store.claim("me", 15.0)
    assert lost is not None
    assert claim is not None
    outcomes = await asyncio.gather(
        *(store.record(each, replace(STEP, key=str(n)), worked=1.0) for n, each in enumerate([claim, lost, claim])),
        return_exceptions=True,
    )

    assert [type(outcome) for outcome in outcomes] == [type(None), JobTaken, type(None)]
    assert {step.key for step in await store.steps(claim.job.id)} == {"0", "2"}


async def test_a_write_that_was_done_does_no_harm_when_it_is_done_again(store: JobStore) -> None:
    """After a lost connection nobody knows whether a commit arrived."""
    await add(store)
    claim = await store.claim("me", 15.0)
    assert claim is not None
    for _ in range(2):
        await store.record(claim, STEP, worked=1.0)
        await store.append(claim, STARTED, Progress())

    assert list(await store.steps(claim.job.id)) == [STEP]
    assert list(await store.events(claim.job.id, 0)) == [STARTED]


async def test_what_was_kept_is_there_when_the_store_is_opened_again(place: str) -> None:
    for _ in range(2):
        async with job_store(place) as store:
            await add(store)

    async with job_store(place) as store:
        assert await store.count_queued() == 2


async def test_a_database_from_before_gets_the_table_and_the_index_that_it_lacks(place: str) -> None:
    async with job_store(place) as store:
        await add(store)
    database = open_database(place)
    try:
        for statement in ("DROP TABLE redraft_turns", "DROP INDEX redraft_jobs_by_turn"):
            database.run_now(partial(_execute, statement))
        async with job_store(place) as store:
            await claim(store)
        found = database.run_now(lambda c: {index["name"] for index in sa.inspect(c).get_indexes("redraft_jobs")})
    finally:
        await database.close()

    assert "redraft_jobs_by_turn" in found


def _execute(statement: str, connection: sa.Connection) -> None:
    connection.exec_driver_sql(statement)


def test_ids_sort_by_time() -> None:
    made = []
    for _ in range(3):
        made.append(make_id("job"))
        time.sleep(0.002)

    assert sorted(made) == made


async def add_once(store: JobStore, key: str, fingerprint: str) -> str:
    job = Job(make_id("job"), "anonymous", "refine", "queued", time.time(), stated={"model": "Wäves"})
    return await store.add(job, make_order(make_request(0)), Once(key, fingerprint))


async def test_a_key_gives_one_job_until_it_asks_for_another(store: JobStore) -> None:
    added = await asyncio.gather(*(add_once(store, "k", "f") for _ in range(10)))
    kept = await store.get(added[0])
    others = [await add_once(store, "k", "other"), await add_once(store, "other", "f")]
    again = await add_once(store, "k", "other")

    assert len({*added, *others}) == 3
    assert again == others[0]
    assert await store.count_queued() == 3
    assert kept is not None
    assert kept.stated == {"model": "Wäves"}


async def test_a_deleted_job_is_gone_and_takes_no_more(store: JobStore) -> None:
    job = await add_once(store, "k", "f")
    claim = await store.claim("me", 15.0)
    assert claim is not None
    await store.record(claim, STEP, worked=1.0)
    await store.append(claim, STARTED, Progress())
    await store.delete(job)

    with pytest.raises(JobTaken):
        await store.finish(claim, "completed", DONE, Progress())
    assert await store.get(job) is None
    assert (list(await store.steps(job)), list(await store.events(job, 0))) == ([], [])
    assert await add_once(store, "k", "f") != job


@pytest.mark.parametrize("end", ["completed", "cancelled"])
async def test_the_bytes_of_a_job_are_those_of_its_texts(store: JobStore, end: str) -> None:
    async def assert_counted() -> None:
        assert await store.held("anonymous") == await store.held(None) == await store._database.read(_sizes)  # type: ignore[attr-defined]

    job = await add(store)
    await add(store, 1)
    await assert_counted()
    if end == "cancelled":
        assert await store.cancel(job, JobEvent(1, "error", {"detail": "Wäves"}))
    else:
        claim = await store.claim("me", 15.0)
        assert claim is not None
        await store.append(claim, STARTED, Progress())
        await assert_counted()
        await store.finish(claim, "completed", DONE, Progress())
    await assert_counted()
    assert await store.held("nobody") == 0


def _sizes(connection: sa.Connection) -> int:
    of_jobs = connection.execute(sa.select(jobs.c.body, jobs.c.stated, jobs.c.outcome)).all()
    of_events = connection.execute(sa.select(events.c.data)).all()
    return sum(len(text.encode()) for row in (*of_jobs, *of_events) for text in row if text)
