"""Batches in a database: who may write to them, and what is left of them."""

import json
import time
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from service.batches.batch import Batch, BatchClaim, Counts, Line, LineFault
from service.batches.database import BatchDatabase
from service.deliveries.database import DeliveryDatabase
from service.deliveries.delivery import Destination
from service.engines.base import Usage
from service.jobs.job import Claim, JobEvent, JobTaken, Progress
from service.jobs.store import Step
from service.jobs.turns import turns
from service.programs.ids import make_id
from service.store.opening import open_database

ANSWER = JobEvent(1, "done", {"status_code": 200, "request_id": "r", "body": {"text": "Waves."}})
FAILURE = JobEvent(1, "error", {"status_code": 400, "request_id": "r", "body": {"error": {}}})
STEP = Step("key", 0, '{"Completion": {}}', 0.5)
LEASE = 15.0


def make_batch(**known: Any) -> Batch:
    batch = Batch(
        make_id("batch", "_"),
        "me",
        "/v1/generate",
        "file-1",
        window=86_400,
        keep=60,
        request_id="r",
        created=time.time(),
    )
    return replace(batch, **known)


async def claim_batch(store: BatchDatabase, owner: str = "me", lease: float = LEASE) -> BatchClaim:
    claim = await store.claim(owner, lease)
    assert claim is not None
    return claim


async def begin(store: BatchDatabase, lines: int = 2, **known: Any) -> Batch:
    """A batch whose lines wait."""
    batch = make_batch(**known)
    await store.add(batch)
    claim = await claim_batch(store)
    await store.add_lines(claim, [Line(number, f"line-{number}", "{}") for number in range(1, lines + 1)])
    await store.begin(claim, None)
    return batch


async def claim_line(store: BatchDatabase, owner: str = "me", lease: float = LEASE) -> Claim:
    claim = await store.lines.claim(owner, lease)
    assert claim is not None
    return claim


async def get(store: BatchDatabase, batch: Batch) -> Batch:
    found = await store.get(batch.id)
    assert found is not None
    return found


async def test_a_batch_is_given_as_it_was_added(store: BatchDatabase) -> None:
    batch = make_batch(metadata={"job": "waves"}, size=7)
    await store.add(batch)

    assert await store.get(batch.id) == batch
    assert (await store.held(), await store.count_open()) == (7, 1)
    assert await store.get("batch_unknown") is None


async def test_no_line_is_begun_before_all_are_checked(store: BatchDatabase) -> None:
    await store.add(make_batch())
    claim = await claim_batch(store)
    await store.add_lines(claim, [Line(1, "a", "{}")])
    early = await store.lines.claim("me", LEASE)
    await store.begin(claim, None)

    assert early is None
    assert (await claim_line(store)).order.body == "{}"


async def test_lines_that_are_added_again_stay_as_they_are(store: BatchDatabase) -> None:
    batch = make_batch()
    await store.add(batch)
    gone = await claim_batch(store, "gone")
    await store.add_lines(gone, [Line(1, "a", "first")])
    await store.release(gone, delay=0.0)
    claim = await claim_batch(store)
    await store.add_lines(claim, [Line(1, "a", "second"), Line(2, "b", "{}")])
    await store.begin(claim, None)

    assert (await get(store, batch)).counts == Counts(total=2)
    assert (await claim_line(store)).order.body == "first"


async def test_the_batches_of_a_caller_take_turns(store: BatchDatabase) -> None:
    first, second = await begin(store), await begin(store)
    order = [(await claim_line(store)).job.id for _ in range(4)]

    hexes = sorted(batch.id.removeprefix("batch_") for batch in (first, second))
    assert order == [f"job-{batch}-{number}" for number in (1, 2) for batch in hexes]
    assert await store.lines.claim("me", LEASE) is None


async def test_callers_take_turns_however_many_batches_one_of_them_has(store: BatchDatabase) -> None:
    for _ in range(3):
        await begin(store, lines=4, caller="greedy")
    begun = [await claim_line(store) for _ in range(5)]
    await begin(store, lines=3, caller="late")
    begun += [await claim_line(store) for _ in range(7)]

    assert [claim.job.caller for claim in begun] == [
        *("greedy",) * 5,
        *("late", "greedy", "late", "greedy", "late", "greedy", "greedy"),
    ]


async def test_new_batches_do_not_keep_the_last_lines_of_an_old_one_waiting(store: BatchDatabase) -> None:
    old = await begin(store, lines=4, caller="patient")
    for _ in range(3):
        await claim_line(store)
    for _ in range(3):
        await begin(store, lines=1, caller="busy")
    begun = [await claim_line(store) for _ in range(2)]

    assert old.id.removeprefix("batch_") in "".join(claim.job.id for claim in begun)


async def test_a_batch_that_has_ended_leaves_no_turn(place: str) -> None:
    database = open_database(place)
    try:
        store = BatchDatabase(database, DeliveryDatabase(database), LEASE)
        await begin(store, lines=1)
        line = await claim_line(store)
        await store.lines.finish(line, "completed", ANSWER, Progress())
        await store.finish(await claim_batch(store), {})
        left = await database.read(lambda c: c.execute(sa.select(turns.c.queue)).scalars().all())
    finally:
        await database.close()

    assert left == ["lines"]


async def test_nothing_more_is_written_for_a_line_that_another_process_has_taken(store: BatchDatabase) -> None:
    await begin(store, lines=1)
    lost = await claim_line(store, "paused", lease=0.0)
    await store.lines.record(replace(lost, owner="paused"), STEP, worked=1.0)
    # The write has renewed the lease, so it is let go of for the other one.
    await store.lines.release(lost, worked=1.0, delay=0.0)
    claim = await claim_line(store, "other")

    for write in (
        store.lines.record(lost, STEP, 2.0),
        store.lines.finish(lost, "completed", ANSWER, Progress()),
        store.lines.release(lost, 2.0, 0.0),
    ):
        with pytest.raises(JobTaken):
            await write
    assert (claim.attempt, claim.worked, await store.lines.steps(claim.job.id)) == (2, 1.0, [STEP])


async def test_a_line_that_has_ended_is_never_begun_again(store: BatchDatabase) -> None:
    batch = await begin(store)
    done = await claim_line(store)
    await store.lines.record(done, STEP, worked=1.0)
    await store.lines.finish(done, "completed", ANSWER, Progress())
    failed = await claim_line(store)
    await store.lines.finish(failed, "failed", FAILURE, Progress())

    assert await store.lines.claim("me", LEASE) is None
    assert await store.lines.steps(done.job.id) == []
    assert (await get(store, batch)).counts == Counts(2, 1, 1)


async def test_results_are_written_once_no_line_is_open(store: BatchDatabase) -> None:
    batch = await begin(store)
    done = await claim_line(store)
    await store.lines.finish(done, "completed", ANSWER, Progress())
    open_line = await claim_line(store)
    early = await store.claim("me", LEASE)
    await store.lines.finish(open_line, "failed", FAILURE, Progress())
    claim = await claim_batch(store)
    await store.begin_finalizing(claim)
    finalizing = await get(store, batch)
    found = [*await store.results(claim, 0, 1), *await store.results(claim, 1, 10)]
    await store.finish(claim, {"output_file": "file-o"})
    ended = await get(store, batch)

    assert early is None
    assert finalizing.state == "finalizing"
    assert [(result.number, result.custom_id, result.state) for result in found] == [
        (1, "line-1", "completed"),
        (2, "line-2", "failed"),
    ]
    assert (ended.state, ended.output_file, ended.error_file) == ("completed", "file-o", None)
    assert (ended.counts, set(ended.times)) == (Counts(2, 1, 1), {"in_progress", "finalizing", "completed"})
    assert (await store.held(), await store.count_open(), await store.claim("me", LEASE)) == (0, 0, None)


async def test_a_batch_whose_process_is_gone_is_taken_over(store: BatchDatabase) -> None:
    batch = make_batch()
    await store.add(batch)
    lost = await claim_batch(store, "gone", lease=0.0)
    claim = await claim_batch(store)

    with pytest.raises(JobTaken):
        await store.begin(lost, None)
    await store.fail(claim, [LineFault("empty_file", "the file has no line")])
    assert (await get(store, batch)).faults == (LineFault("empty_file", "the file has no line"),)
    with pytest.raises(JobTaken):
        await store.fail(claim, [])


@pytest.mark.parametrize("begun", [False, True])
async def test_a_batch_that_is_cancelled_begins_no_further_line(store: BatchDatabase, begun: bool) -> None:
    if begun:
        batch = await begin(store)
        line = await claim_line(store)
    else:
        batch = make_batch()
        await store.add(batch)
        checking = await claim_batch(store)
        await store.add_lines(checking, [Line(1, "line-1", "{}")])
    await store.cancel(batch.id)
    cancelling = await get(store, batch)

    assert cancelling.state == "cancelling"
    assert await store.lines.claim("other", LEASE) is None
    if begun:
        assert await store.lines.renew("me", LEASE) == {line.job.id: True}
        assert await store.lines.renew("me", LEASE, [line.job.id]) == {line.job.id: True}
        assert await store.lines.renew("me", LEASE, ["job-0-1"]) == {}
        assert await store.claim("me", LEASE) is None
        await store.lines.finish(line, "cancelled", FAILURE, Progress())
    else:
        with pytest.raises(JobTaken):
            await store.begin(checking, None)
    claim = await claim_batch(store)
    assert {result.state for result in await store.results(claim, 0, 10)} == {"cancelled"}
    await store.finish(claim, {})
    assert (await get(store, batch)).state == "cancelled"


async def test_a_batch_whose_time_is_over_ends(store: BatchDatabase) -> None:
    batch, other = await begin(store, window=-1.0), await begin(store)
    await store.end_overdue()
    claim = await claim_batch(store)
    results = await store.results(claim, 0, 10)
    await store.finish(claim, {})

    assert claim.batch.id == batch.id
    assert {result.state for result in results} == {"expired"}
    assert (await get(store, batch)).state == "expired"
    assert (await get(store, other)).state == "in_progress"


async def test_ended_batches_are_dropped_once_they_are_old(store: BatchDatabase) -> None:
    old, new = make_batch(), make_batch()
    await store.add(old)
    await store.fail(await claim_batch(store), [])
    between = time.time()
    await store.add(new)

    assert await store.purge(between) == 1
    assert (await store.get(old.id), await store.get(new.id)) == (None, new)


async def test_what_the_lines_cost_is_added_up(store: BatchDatabase) -> None:
    batch = await begin(store, lines=3)
    for number in range(2):
        usage = {
            "calls": 1,
            "prompt_tokens": 10,
            "cached_tokens": 4,
            "completion_tokens": 3,
            "reasoning_tokens": number,
        }
        answer = JobEvent(1, "done", {**ANSWER.data, "usage": usage})
        await store.lines.finish(await claim_line(store), "completed", answer, Progress())
    running = await get(store, batch)
    await store.lines.finish(await claim_line(store), "failed", FAILURE, Progress())
    claim = await claim_batch(store)
    found = await store.results(claim, 0, 10)
    await store.finish(claim, {})

    assert running.counts == Counts(3, 2, 0, Usage(0, 20, 8, 6, 1))
    assert (await get(store, batch)).counts == Counts(3, 2, 1, Usage(0, 20, 8, 6, 1))
    assert json.loads(found[0].answer or "") == ANSWER.data


async def end(store: BatchDatabase, batch: Batch, how: str) -> None:
    if how == "failed":
        await store.fail(await claim_batch(store), [])
        return
    checking = await claim_batch(store)
    await store.add_lines(checking, [Line(1, "line-1", "{}")])
    await store.begin(checking, None)
    if how == "completed":
        await store.lines.finish(await claim_line(store), "completed", ANSWER, Progress())
    elif how == "cancelled":
        await store.cancel(batch.id)
    else:
        await store.end_overdue()
    await store.finish(await claim_batch(store), {})


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled", "expired"])
async def test_a_notice_of_a_batch_s_end_becomes_due_with_it_and_goes_with_it(place: str, how: str) -> None:
    database = open_database(place)
    deliveries = DeliveryDatabase(database)
    store = BatchDatabase(database, deliveries, LEASE)
    batch = make_batch(window=-1.0 if how == "expired" else 86_400)
    await store.add(batch, Destination("billing", "https://hooks.example.com"))
    early = await deliveries.claim(["billing"], time.time() + 1, LEASE)
    await end(store, batch, how)
    found = await deliveries.claim(["billing"], time.time() + 1, LEASE)
    await store.purge(time.time() + 1)
    left = await deliveries.get(batch.id)
    await database.close()

    assert early is None
    assert found is not None
    body = json.loads(found.body)
    assert (body["type"], body["id"]) == (f"batch.{how}", batch.id.replace("batch_", "msg-"))
    assert body["data"] == {"id": batch.id, "kind": "batch", "state": how}
    assert left is None
