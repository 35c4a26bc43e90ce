"""The gate: who is let in, in which order, and that no place is ever lost."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engines.base import Choose, Sample, Sampling, Weigh
from service.engines.conversation import Conversation, Turn
from service.engines.gated import Gate, GatedEngine
from service.engines.scripted import Script, ScriptedEngine
from service.engines.siblings import sample_siblings

REQUEST = Conversation(Turn("user", "Write about the sea."))


class Limit:
    def __init__(self, value: int) -> None:
        self.value = value

    def __call__(self) -> int:
        return self.value


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Callers:
    """Callers by number: each comes, is let in, and leaves when it is told to."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.tasks: list[asyncio.Task[None]] = []
        self.releases: list[asyncio.Event] = []
        self.inside: list[int] = []

    def come(self) -> None:
        number, release = len(self.tasks), asyncio.Event()

        async def call() -> None:
            async with self.gate.enter():
                self.inside.append(number)
                try:
                    await release.wait()
                finally:
                    self.inside.remove(number)

        self.releases.append(release)
        self.tasks.append(asyncio.create_task(call()))

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_who_came_first_is_let_in_first_and_a_wider_gate_lets_in_more() -> None:
    limit = Limit(1)
    gate = Gate(limit)
    callers = Callers(gate)
    for _ in range(4):
        callers.come()
    await settled()
    assert callers.inside == [0]

    callers.releases[0].set()
    await settled()
    assert callers.inside == [1]

    limit.value = 3
    gate.open()
    await settled()
    assert callers.inside == [1, 2, 3]

    limit.value = 1
    callers.come()
    callers.releases[1].set()
    await settled()
    assert callers.inside == [2, 3], "two are still inside, where one may be"
    await callers.end()


async def test_after_a_call_its_place_rests_unless_there_is_no_more_need() -> None:
    rest = Limit(1_000)
    gate = Gate(Limit(1), rest)
    callers = Callers(gate)
    callers.come()
    await asyncio.sleep(0.01)
    callers.come()
    callers.releases[0].set()
    await asyncio.sleep(0.02)
    assert callers.inside == [], "ten seconds have not passed"

    rest.value = 0
    gate.open()
    await settled()
    assert callers.inside == [1]

    await callers.end()


async def test_a_place_that_has_rested_is_there_again() -> None:
    callers = Callers(Gate(Limit(1), Limit(1)))
    callers.come()
    callers.come()
    await asyncio.sleep(0.01)
    callers.releases[0].set()
    async with asyncio.timeout(5):
        while callers.inside != [1]:
            await asyncio.sleep(0.005)
    await callers.end()


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from(["come", "leave", "cancel", "cancel at once"]), st.integers(0, 9))),
)
def test_no_place_is_lost(most: int, steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        callers = Callers(Gate(Limit(most)))
        for step, number in steps:
            if step == "come" or not callers.tasks:
                callers.come()
            elif step == "leave":
                callers.releases[number % len(callers.tasks)].set()
            else:
                callers.tasks[number % len(callers.tasks)].cancel()
            if step != "cancel at once":
                await settled()
            assert len(callers.inside) <= most
        await callers.end()
        for _ in range(most):
            callers.come()
        await settled()
        assert len(callers.inside) == most
        await callers.end()

    asyncio.run(run())


async def test_each_sequence_passes_and_siblings_are_what_the_engine_makes_of_them() -> None:
    engine = ScriptedEngine(Script(seconds_per_call=0.01))
    gate = Gate(Limit(1))
    gated = GatedEngine(engine, gate)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, engine.in_flight)
            await asyncio.sleep(0.001)

    watching = asyncio.create_task(watch())
    sampling = Sampling(seed=7)
    texts = [completion.text for completion in await sample_siblings(gated, Sample(REQUEST, sampling), 3)]
    choice = gated.call(Choose(REQUEST, tuple("AB")))
    likelihood = gated.call(Weigh(REQUEST, "Waves."))
    await asyncio.gather(choice, likelihood)
    streamed = [item async for item in gated.stream(Sample(REQUEST, sampling))]
    watching.cancel()

    alone = ScriptedEngine(Script())
    assert texts == [completion.text for completion in await sample_siblings(alone, Sample(REQUEST, sampling), 3)]
    assert len(set(texts)) == 3
    assert streamed[-1] == [item async for item in alone.stream(Sample(REQUEST, sampling))][-1]
    assert most == 1


@pytest.mark.parametrize("left", ["in the engine", "at the gate"])
async def test_a_call_that_is_cancelled_leaves_the_gate_to_others(left: str) -> None:
    engine = ScriptedEngine(Script(seconds_per_call=60.0 if left == "in the engine" else 0.0))
    gate = Gate(Limit(1))
    async with gate.enter() if left == "at the gate" else asyncio.timeout(None):
        call = asyncio.create_task(GatedEngine(engine, gate).call(Sample(REQUEST, Sampling())))
        await settled()
        call.cancel()
        await asyncio.wait([call])
    async with asyncio.timeout(20), gate.enter():
        assert engine.in_flight == 0
