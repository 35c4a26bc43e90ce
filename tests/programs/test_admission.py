import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from service.errors import CallerLimit, DeadlineExceeded, Draining, Overloaded, RedraftError
from service.programs.admission import Admission


@dataclass
class Programs:
    """Programs that hold a place until they are told to end; ``started`` lists them in the order of their places."""

    admission: Admission
    started: list[str] = field(default_factory=list)
    ends: dict[str, asyncio.Event] = field(default_factory=dict)

    async def begin(self, name: str, *, caller: str = "ann", deadline: float | None = None) -> asyncio.Task[float]:
        self.ends[name] = asyncio.Event()
        task = asyncio.create_task(self._program(name, caller, deadline))
        await ticks()
        return task

    async def _program(self, name: str, caller: str, deadline: float | None) -> float:
        async with self.admission.admit(caller, deadline=deadline) as ticket:
            self.started.append(name)
            await self.ends[name].wait()
            return ticket.queued_seconds

    async def end(self, *names: str) -> None:
        for name in names:
            self.ends[name].set()
        await ticks()


async def ticks(count: int = 5) -> None:
    """Let the loop run what is ready."""
    for _ in range(count):
        await asyncio.sleep(0)


def programs(
    max_programs: int = 1, max_queued: int = 2, max_per_caller: int | None = None, shed: list[str] | None = None
) -> Programs:
    told = [] if shed is None else shed
    return Programs(Admission(max_programs, max_queued, max_per_caller, on_shed=told.append))


async def test_places_go_in_the_order_of_arrival() -> None:
    at_work = programs(max_programs=2)
    tasks = [await at_work.begin(name) for name in "abcd"]
    assert (at_work.admission.in_progress, at_work.admission.queued) == (2, 2)
    assert at_work.started == ["a", "b"]
    await at_work.end("b", "a")
    assert at_work.started == ["a", "b", "c", "d"]
    await at_work.end("c", "d")
    queued = [await task for task in tasks]
    assert max(queued[:2]) < min(queued[2:])
    assert (at_work.admission.in_progress, at_work.admission.queued) == (0, 0)


async def test_a_newcomer_cannot_take_a_place_that_was_handed_over() -> None:
    at_work = programs()
    await at_work.begin("a")
    await at_work.begin("b")
    at_work.ends["a"].set()
    await asyncio.sleep(0)  # "a" has left; "b" has its place but has not run yet
    assert at_work.started == ["a"]
    await at_work.begin("c")
    assert at_work.started == ["a", "b"]
    await at_work.end("b", "c")


async def test_past_the_queue_is_overloaded() -> None:
    shed: list[str] = []
    at_work = programs(max_queued=1, shed=shed)
    await at_work.begin("a")
    await at_work.begin("b")
    with pytest.raises(Overloaded) as raised:
        await (await at_work.begin("c"))
    assert raised.value.retry_after == 1
    assert shed == ["overloaded"]
    await at_work.end("a", "b")


async def test_a_caller_has_its_own_limit() -> None:
    shed: list[str] = []
    at_work = programs(max_programs=2, max_per_caller=2, shed=shed)
    await at_work.begin("a", caller="ann")
    await at_work.begin("b", caller="ann")
    with pytest.raises(CallerLimit) as raised:
        await (await at_work.begin("c", caller="ann"))
    assert raised.value.retry_after == 1
    await at_work.begin("d", caller="bob")
    assert (shed, at_work.admission.queued) == (["caller_limit"], 1)
    await at_work.end("a")
    await at_work.begin("e", caller="ann")
    await at_work.end("b", "d", "e")
    assert at_work.started == ["a", "b", "d", "e"]


async def test_a_drain_refuses_the_new_and_keeps_the_old() -> None:
    shed: list[str] = []
    at_work = programs(shed=shed)
    await at_work.begin("a")
    await at_work.begin("b")
    at_work.admission.drain()
    idle = asyncio.create_task(at_work.admission.idle())
    with pytest.raises(Draining):
        await (await at_work.begin("c"))
    await at_work.end("a")
    assert at_work.started == ["a", "b"]
    assert not idle.done()
    await at_work.end("b")
    assert idle.done()
    assert shed == ["draining"]


async def test_a_check_refuses_as_admission_would_and_holds_nothing() -> None:
    shed: list[str] = []
    at_work = programs(max_queued=0, max_per_caller=1, shed=shed)
    at_work.admission.check("ann")
    assert (at_work.admission.in_progress, at_work.admission.queued) == (0, 0)
    await at_work.begin("a")
    with pytest.raises(CallerLimit):
        at_work.admission.check("ann")
    with pytest.raises(Overloaded):
        at_work.admission.check("bob")
    at_work.admission.drain()
    with pytest.raises(Draining):
        at_work.admission.check("eve")
    assert shed == ["caller_limit", "overloaded", "draining"]
    await at_work.end("a")


async def test_idle_at_once_when_nothing_runs() -> None:
    async with asyncio.timeout(20):
        await programs().admission.idle()


async def test_a_deadline_ends_the_wait_but_not_the_work() -> None:
    shed: list[str] = []
    at_work = programs(shed=shed)
    past = asyncio.get_running_loop().time() - 1
    await at_work.begin("a", deadline=past)
    with pytest.raises(DeadlineExceeded):
        await (await at_work.begin("b", deadline=past))
    assert (at_work.admission.in_progress, at_work.admission.queued, shed) == (1, 0, ["deadline"])
    await at_work.end("a")
    assert at_work.admission.in_progress == 0


async def test_leaving_the_queue_leaks_nothing() -> None:
    shed: list[str] = []
    at_work = programs(max_queued=3, shed=shed)
    await at_work.begin("a")
    waiting = await at_work.begin("b")
    await at_work.begin("c")
    waiting.cancel()
    at_work.ends["a"].set()  # in the same moment
    await ticks()
    assert at_work.started == ["a", "c"]
    await at_work.end("c")
    assert (at_work.admission.in_progress, at_work.admission.queued, shed) == (0, 0, [])


async def test_a_place_that_comes_with_the_cancellation_is_passed_on() -> None:
    at_work = programs()
    await at_work.begin("a")
    granted = await at_work.begin("b")
    await at_work.begin("c")
    at_work.ends["a"].set()
    await asyncio.sleep(0)  # "b" has its place but has not run yet
    granted.cancel()
    await ticks()
    assert at_work.started == ["a", "c"]
    await at_work.end("c")
    assert at_work.admission.in_progress == 0


async def test_a_failing_program_gives_its_place_back() -> None:
    admission = programs().admission
    with pytest.raises(KeyError):
        async with admission.admit("ann"):
            raise KeyError
    assert admission.in_progress == 0


async def test_retry_after_grows_with_durations_and_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    admission = Admission(2, 0, 1, on_shed=lambda reason: None)
    async with admission.admit("ann"):
        now += 9.0
    async with admission.admit("ann"), admission.admit("bob"):
        with pytest.raises(Overloaded) as full:
            async with admission.admit("eve"):
                pass
        with pytest.raises(CallerLimit) as own:
            async with admission.admit("ann"):
                pass
        now += 1e6
    async with admission.admit("ann"), admission.admit("bob"):
        with pytest.raises(Overloaded) as jammed:
            async with admission.admit("eve"):
                pass
    assert (full.value.retry_after, own.value.retry_after, jammed.value.retry_after) == (5, 9, 60)


@dataclass(frozen=True)
class Client:
    """One client of the stress test; times are turns of the event loop."""

    caller: str
    arrives: int
    holds: int
    hurried: bool  # its deadline passes as soon as it waits
    leaves: int | None  # turns after arriving


CLIENTS = st.builds(
    Client,
    caller=st.sampled_from("ab"),
    arrives=st.integers(0, 8),
    holds=st.integers(0, 5),
    hurried=st.booleans(),
    leaves=st.none() | st.integers(0, 8),
)


@example_settings(deadline=None, max_examples=300)
@given(
    clients=st.lists(CLIENTS, max_size=20),
    max_programs=st.integers(1, 3),
    max_queued=st.integers(0, 5),
    max_per_caller=st.none() | st.integers(1, 5),
)
def test_never_over_the_limits_and_exactly_fair(
    clients: list[Client], max_programs: int, max_queued: int, max_per_caller: int | None
) -> None:
    asyncio.run(stress(clients, max_programs, max_queued, max_per_caller))


async def stress(clients: list[Client], max_programs: int, max_queued: int, max_per_caller: int | None) -> None:
    shed: Counter[str] = Counter()
    admission = Admission(max_programs, max_queued, max_per_caller, on_shed=lambda reason: shed.update([reason]))
    inside: Counter[str] = Counter()
    queue: list[int] = []  # of those that had to wait, in the order of arrival
    served: list[int] = []  # of those, in the order of their places

    async def visit(number: int, client: Client) -> None:
        waits = admission.in_progress >= max_programs
        assert waits or not admission.queued
        if waits:
            queue.append(number)
        deadline = asyncio.get_running_loop().time() if client.hurried else None
        async with admission.admit(client.caller, deadline=deadline):
            inside[client.caller] += 1
            if waits:
                served.append(number)
            try:
                assert inside.total() <= admission.in_progress <= max_programs
                assert admission.queued <= max_queued
                assert max_per_caller is None or inside[client.caller] <= max_per_caller
                await ticks(client.holds)
            finally:
                inside[client.caller] -= 1

    tasks: dict[int, asyncio.Task[None]] = {}
    for turn in range(20):
        for number, client in enumerate(clients):
            if client.arrives == turn:
                tasks[number] = asyncio.create_task(visit(number, client))
            if client.leaves is not None and client.arrives + client.leaves == turn:
                tasks[number].cancel()
        await asyncio.sleep(0)
    ends = await asyncio.gather(*tasks.values(), return_exceptions=True)

    assert all(end is None or isinstance(end, RedraftError | asyncio.CancelledError) for end in ends)
    assert shed.total() == sum(isinstance(end, RedraftError) for end in ends)
    assert served == [number for number in queue if number in served]
    assert (admission.in_progress, admission.queued) == (0, 0)
    async with asyncio.timeout(20):
        await admission.idle()
