"""What a store of traces keeps, and for whom: on SQLite and on Postgres."""

import time
from dataclasses import replace
from typing import Any

from service.traces.database import TraceDatabase
from service.traces.store import EVERYTHING, Selection
from tests.support.stored_traces import candidate, feedback, make_document, make_trace

TEXTS = make_document([candidate("c0", "Wäves \u2028 \u0000 😀 'x' \\")])


async def ids(store: TraceDatabase, selection: Selection = EVERYTHING, caller: str = "ann") -> list[str]:
    return [summary.id for summary in await store.list(caller, selection, 100)]


async def test_a_trace_is_kept_as_it_is(store: TraceDatabase) -> None:
    trace = make_trace(TEXTS, score=None, passed=None)
    assert await store.add(trace)

    found = await store.get("ann", trace.summary.id)
    assert found is not None
    assert (found.trace, found.feedback) == (trace, [])


async def test_a_trace_is_stored_once(store: TraceDatabase) -> None:
    trace = make_trace()
    assert await store.add(trace)
    assert not await store.add(replace(trace, document=TEXTS))

    found = await store.get("ann", trace.summary.id)
    assert found is not None
    assert found.trace == trace


async def test_the_newest_come_first_in_pages_whatever_their_kind(store: TraceDatabase) -> None:
    made = [make_trace(id=f"{prefix}-{number:032x}") for number, prefix in enumerate(["ref", "gen", "crit"] * 3)]
    for trace in made:
        await store.add(trace)
    newest_first = [trace.summary.id for trace in reversed(made)]

    pages, last = [], None
    while page := await store.list("ann", EVERYTHING, 4, last):
        pages.append([summary.id for summary in page])
        last = page[-1].id
        await store.delete("ann", last)  # what a page is asked to follow may be gone

    assert pages == [newest_first[:4], newest_first[4:8], newest_first[8:]]


async def test_a_list_is_of_a_task_a_model_and_a_time(store: TraceDatabase) -> None:
    fields: list[dict[str, Any]] = [
        {"task": "general"},
        {"task": "summarize"},
        {"model": "other"},
        {"created": 50.0},
        {"created": 60.0},
    ]
    made = [make_trace(**{"created": 100.0, **one}) for one in fields]
    for trace in made:
        await store.add(trace)
    general, summarize, other, at_50, at_60 = [trace.summary.id for trace in made]

    assert await ids(store, Selection(task="summarize")) == [summarize]
    assert await ids(store, Selection(model="other")) == [other]
    assert await ids(store, Selection(until=60.0)) == [at_50]
    assert set(await ids(store, Selection(since=60.0))) == {general, summarize, other, at_60}
    assert await ids(store, Selection(task="general", since=55.0, until=70.0)) == [at_60]


async def test_nobody_sees_or_deletes_the_traces_of_another_caller(store: TraceDatabase) -> None:
    trace = make_trace()
    its_id = trace.summary.id
    await store.add(trace)

    assert await ids(store, caller="bob") == []
    assert await store.get("bob", its_id) is None
    assert await store.page("bob", EVERYTHING, None, 1_000) == []
    assert await store.add_feedback("bob", feedback(trace, "thumb", "c0", "up")) is None
    assert not await store.delete("bob", its_id)
    assert await store.delete_all("bob") == 0
    assert await ids(store) == [its_id]


async def test_feedback_of_a_kind_on_a_candidate_replaces_the_earlier_one(store: TraceDatabase) -> None:
    trace = make_trace()
    await store.add(trace)

    assert await store.add_feedback("ann", feedback(trace, "edit", "c0", "Wäves.")) is False
    assert await store.add_feedback("ann", feedback(trace, "score", "c0", 0.5)) is False
    last = feedback(trace, "edit", "c0", "More wäves.")
    assert await store.add_feedback("ann", last) is True

    found = await store.get("ann", trace.summary.id)
    assert found is not None
    assert [(one.kind, one.value) for one in found.feedback] == [("score", 0.5), ("edit", "More wäves.")]
    assert found.feedback[1] == last


async def test_feedback_on_nothing_is_not_kept(store: TraceDatabase) -> None:
    gone = make_trace()
    assert await store.add_feedback("ann", feedback(gone, "thumb", "c0", "up")) is None


async def test_feedback_is_deleted_with_its_trace(store: TraceDatabase) -> None:
    trace = make_trace()
    await store.add(trace)
    await store.add_feedback("ann", feedback(trace, "thumb", "c0", "up"))
    assert await store.delete("ann", trace.summary.id)
    await store.add(trace)

    found = await store.get("ann", trace.summary.id)
    assert found is not None
    assert found.feedback == []


async def test_all_traces_of_a_caller_are_deleted_however_many_there_are(store: TraceDatabase) -> None:
    for _ in range(250):
        await store.add(make_trace())
    await store.add(make_trace(caller="bob"))

    assert await store.delete_all("ann") == 250
    assert await ids(store) == []
    assert len(await ids(store, caller="bob")) == 1


async def test_what_is_too_old_is_deleted(store: TraceDatabase) -> None:
    old, new = make_trace(created=time.time() - 100), make_trace()
    await store.add(old)
    await store.add(new)

    assert await store.purge(time.time() - 50) == 1
    assert await ids(store) == [new.summary.id]


async def test_pages_for_an_export_are_bounded_and_leave_nothing_out(store: TraceDatabase) -> None:
    made = [make_trace(make_document([candidate("c0", "x" * size)])) for size in (10, 5_000, 10, 10, 9_000)]
    for number, trace in enumerate(made):
        await store.add(replace(trace, summary=replace(trace.summary, id=f"ref-{number:032x}")))

    pages, after = [], None
    while page := await store.page("ann", EVERYTHING, after, 2_000):
        pages.append(len(page))
        after = page[-1].trace.summary.id

    assert pages == [1, 1, 2, 1]


async def test_the_bytes_of_traces_and_feedback_are_counted_for_their_caller(store: TraceDatabase) -> None:
    trace = make_trace(TEXTS)
    assert await store.held("ann") == await store.held(None) == 0
    await store.add(trace)
    size = len(trace.encode().encode())
    assert await store.held("ann") == await store.held(None) == size
    await store.add_feedback("ann", feedback(trace, "edit", "c0", "Wäves"))

    assert await store.held("ann") == await store.held(None) == size + len('"Wäves"'.encode())
    assert await store.held("bob") == 0


async def test_the_callers_are_those_who_have_traces(store: TraceDatabase) -> None:
    assert await store.callers() == []
    for caller in ("ben", "ann", "ben"):
        await store.add(make_trace(caller=caller))
    assert await store.callers() == ["ann", "ben"]


async def test_of_a_trace_that_is_not_there_it_is_known_whether_its_caller_has_deleted_it(store: TraceDatabase) -> None:
    made = [make_trace(created=float(number)) for number in range(5)]
    for trace in made:
        await store.add(trace)
    old, mine, ours, theirs, kept = (trace.summary.id for trace in made)
    await store.purge(created_before=0.5)
    await store.delete("ann", mine)
    for its_id in (ours, theirs):
        await store.delete("ann", its_id)
    never = "ref-00000000000000000000000000000000"

    assert await store.absent([old, mine, kept, never]) == {old: "missing", mine: "deleted", never: "missing"}
    assert await store.absent([kept]) == {}
    assert await store.absent([]) == {}
    many = [f"ref-{number:032x}" for number in range(1_200)]
    assert set(await store.absent([*many, ours])) == {*many, ours}
