"""Replicas, each a scripted engine: where calls go, and what becomes of them when a replica fails."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest

from service.concurrency import gather
from service.engines.base import Call, Choose, Completion, Engine, R, Sample, Weigh
from service.engines.conversation import Conversation, Image, Turn
from service.engines.remote import replica as one_replica
from service.engines.remote import replicas
from service.engines.remote.replica import Connect, Replica
from service.engines.remote.replicas import ReplicatedEngine
from service.engines.scripted import EngineCall, Script, ScriptedEngine
from service.engines.served import ServedEngine
from service.errors import EngineBusy, EngineUnavailable
from tests.support.engine_contract import GREEDY, QUESTION, EngineContract, LikelihoodContract


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_replica, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(replicas, "LONGEST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(replicas, "RETURN_SECONDS", 0.01)
    monkeypatch.setattr(one_replica, "FAILING_SECONDS", 0.0)


class TestReplicatedEngine(EngineContract, LikelihoodContract):
    @pytest.fixture
    async def engine(self) -> AsyncIterator[Engine]:
        async with replicated({"one": ScriptedEngine(), "two": ScriptedEngine()}) as engine:
            yield engine


@asynccontextmanager
async def replicated(engines: Mapping[str, ServedEngine]) -> AsyncIterator[ReplicatedEngine]:
    async with started({name: connecting(engine) for name, engine in engines.items()}) as engine:
        yield engine


@asynccontextmanager
async def started(servers: Mapping[str, Connect]) -> AsyncIterator[ReplicatedEngine]:
    engine = await ReplicatedEngine.start("scripted", servers)
    try:
        yield engine
    finally:
        await engine.close()


def connecting(engine: ServedEngine) -> Connect:
    async def connect() -> ServedEngine:
        return engine

    return connect


def prompts(count: int) -> list[Conversation]:
    return [Conversation(Turn("user", f"Write about number {number}.")) for number in range(count)]


def every(number: int) -> Callable[[EngineCall], None]:
    """Fails one call in so many."""
    counted = iter(range(1_000_000))

    def fault(_: EngineCall) -> None:
        if next(counted) % number == 0:
            raise EngineUnavailable("500")

    return fault


async def test_images_are_taken_where_all_that_are_up_take_them() -> None:
    seeing, blind = ScriptedEngine(Script(takes_images=True)), ScriptedEngine()
    async with replicated({"one": seeing, "two": blind}) as engine:
        async with asyncio.timeout(5):
            while not all(replica.up for replica in engine.replicas):
                await asyncio.sleep(0.01)
            assert not engine.takes_images
            blind.kill()
            while engine.replicas[1].up:
                await asyncio.sleep(0.01)
        assert engine.takes_images


def test_the_same_question_about_another_image_begins_otherwise() -> None:
    about = [
        Conversation(Turn("user", "What is it?", images=images)).with_user("Well?")
        for images in ((), (Image("image/png", b"1"),), (Image("image/png", b"2"),))
    ]

    assert len({replicas.first_turns(conversation) for conversation in about}) == 3


async def test_a_program_stays_on_one_replica_and_programs_are_spread() -> None:
    engines = {str(number): ScriptedEngine() for number in range(4)}
    async with replicated(engines) as engine:
        for prompt in prompts(100):
            reply = await engine.call(Sample(prompt, GREEDY))
            await engine.call(Choose(prompt.with_reply(reply).with_user("Good?"), tuple("12")))

    homes = Counter[str]()
    for name, one in engines.items():
        asked = [next(call.conversation.turns()).text for call in one.calls]
        assert all(count == 2 for count in Counter(asked).values())
        homes[name] = len(set(asked))
    assert sum(homes.values()) == 100
    assert min(homes.values()) > 10


async def test_a_system_turn_alone_does_not_decide_where_a_program_goes() -> None:
    engines = {"one": ScriptedEngine(), "two": ScriptedEngine()}
    shared = Conversation(Turn("system", "Be brief."))
    async with replicated(engines) as engine:
        for number in range(40):
            await engine.call(Sample(shared.with_user(f"Number {number}?"), GREEDY))

    assert all(len(one.calls) > 5 for one in engines.values())


async def test_replies_to_the_same_request_are_weighed_on_all_replicas() -> None:
    engines = {"one": ScriptedEngine(), "two": ScriptedEngine()}
    async with replicated(engines) as engine:
        await until(lambda: all(replica.up for replica in engine.replicas))
        for _ in range(2):
            for number in range(40):
                await engine.call(Weigh(QUESTION, f"It is number {number}."))

    weighed = [Counter(weigh.reply for weigh in one.calls_of(Weigh)) for one in engines.values()]
    assert all(len(replies) > 5 and set(replies.values()) == {2} for replies in weighed)


async def test_a_replica_with_too_many_calls_is_passed_over() -> None:
    engines = {
        "one": ScriptedEngine(Script(seconds_per_call=0.05)),
        "two": ScriptedEngine(Script(seconds_per_call=0.05)),
    }
    async with replicated(engines) as engine:
        await gather(engine.call(Choose(QUESTION.with_user(str(number)), tuple("12"))) for number in range(40))

    most = max(len(one.calls) for one in engines.values())
    assert 20 <= most <= 26


async def test_the_calls_of_a_replica_that_dies_are_made_elsewhere() -> None:
    engines = {"one": ScriptedEngine(Script(seconds_per_call=0.1)), "two": ScriptedEngine(Script(seconds_per_call=0.1))}
    async with replicated(engines) as engine:
        calls = asyncio.ensure_future(gather(engine.call(Sample(prompt, GREEDY)) for prompt in prompts(50)))
        await asyncio.sleep(0.05)
        assert engines["one"].in_flight > 10
        engines["one"].kill()
        replies = await calls
        await engine.call(Sample(QUESTION, GREEDY))

    assert len(replies) == 50
    assert all(reply.text for reply in replies)


async def test_a_replica_that_hangs_gives_up_its_calls_once_it_is_found_down() -> None:
    class Hanging(ScriptedEngine):
        hangs = False

        async def check(self) -> None:
            if self.hangs:
                raise EngineUnavailable("no answer")

    hanging, other = Hanging(Script(seconds_per_call=1000)), ScriptedEngine()
    async with replicated({"hanging": hanging, "other": other}) as engine:
        calls = asyncio.ensure_future(gather(engine.call(Sample(prompt, GREEDY)) for prompt in prompts(12)))
        streams = asyncio.ensure_future(gather(last_of(engine, prompt) for prompt in prompts(12)))
        await asyncio.sleep(0.05)
        assert hanging.in_flight > 4
        hanging.hangs = True
        async with asyncio.timeout(5):
            assert len(await calls) == len(await streams) == 12

    assert len(other.calls) == 24


async def last_of(engine: Engine, conversation: Conversation) -> Completion:
    items = [item async for item in engine.stream(Sample(conversation, GREEDY))]
    assert isinstance(items[-1], Completion)
    return items[-1]


async def test_a_call_that_fails_is_made_again_while_such_calls_are_few() -> None:
    flaky = ScriptedEngine(Script(fault=every(5)))
    failed = 0
    async with replicated({"flaky": flaky}) as engine:
        for prompt in prompts(1000):
            try:
                await engine.call(Sample(prompt, GREEDY))
            except EngineUnavailable:
                failed += 1

    assert 1090 <= len(flaky.calls) <= 1000 * 1.1 + replicas.MOST_SAVED_RETRIES
    assert failed < 150


def busy(times: int, seconds: int = 1) -> Callable[[EngineCall], None]:
    """Refuses the first calls for now."""
    counted = iter(range(1_000_000))

    def fault(_: EngineCall) -> None:
        if next(counted) < times:
            raise EngineBusy("429", retry_after=seconds)

    return fault


async def test_the_calls_that_a_busy_replica_refuses_are_made_elsewhere() -> None:
    class Refusing(ScriptedEngine):
        refused = 0

        async def call(self, call: Call[R], *, priority: int = 0) -> R:
            self.refused += 1
            await asyncio.sleep(0.01)
            raise EngineBusy("429", retry_after=60)

    refusing, other = Refusing(), ScriptedEngine()
    async with replicated({"refusing": refusing, "other": other}) as engine:
        await until(lambda: all(replica.up for replica in engine.replicas))
        await gather(engine.call(Sample(prompt, GREEDY)) for prompt in prompts(100))
        at_once = refusing.refused
        await gather(engine.call(Sample(prompt, GREEDY)) for prompt in prompts(100))

        assert at_once > replicas.MOST_SAVED_RETRIES + 100 * replicas.RETRIES_PER_CALL
        assert (refusing.refused, len(other.calls)) == (at_once, 200)
        assert engine.replicas[0].up


async def test_calls_wait_for_a_replica_that_is_busy_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_replica, "LONGEST_COOLDOWN_SECONDS", 0.02)
    alone = ScriptedEngine(Script(fault=busy(100)))
    async with replicated({"alone": alone}) as engine:
        replies = await gather(engine.call(Sample(prompt, GREEDY)) for prompt in prompts(30))
        streamed = await gather(last_of(engine, prompt) for prompt in prompts(30))
        assert engine.replicas[0].up

    assert len(replies) == len(streamed) == 30
    assert len(alone.calls) == 160


async def test_a_call_waits_as_often_as_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_replica, "LONGEST_COOLDOWN_SECONDS", 0.01)
    alone = ScriptedEngine(Script(fault=busy(20)))
    async with replicated({"alone": alone}) as engine:
        await engine.call(Sample(QUESTION, GREEDY))

    assert len(alone.calls) == 21


async def test_nothing_is_waited_for_that_comes_too_late() -> None:
    alone = ScriptedEngine(Script(fault=busy(1000, seconds=int(replicas.LONGEST_WAIT_SECONDS) + 20)))
    async with asyncio.timeout(5), replicated({"alone": alone}) as engine:
        for _ in range(3):
            with pytest.raises(EngineBusy) as refused:
                await engine.call(Sample(QUESTION, GREEDY))
            assert refused.value.retry_after == pytest.approx(replicas.LONGEST_WAIT_SECONDS + 20, abs=5)

    assert len(alone.calls) == 1


async def test_a_replica_that_is_too_busy_to_be_looked_at_is_up() -> None:
    class Refusing(ScriptedEngine):
        checks = 0

        async def check(self) -> None:
            self.checks += 1
            raise EngineBusy("429", retry_after=60)

    refusing = Refusing()
    async with replicated({"refusing": refusing}) as engine:
        await until(lambda: refusing.checks > 4)
        await engine.check()


async def test_a_replica_that_is_too_busy_to_come_up_is_left_alone_for_as_long_as_it_says() -> None:
    asked = 0

    async def connect() -> ServedEngine:
        nonlocal asked
        asked += 1
        raise EngineBusy("429", retry_after=1 if asked == 1 else 60)

    async with started({"refusing": connect, "other": connecting(ScriptedEngine())}) as engine:
        await until(lambda: asked == 2)
        await asyncio.sleep(10 * one_replica.LOOK_SECONDS)
        assert not engine.replicas[0].up

    assert asked == 2


async def test_a_stream_that_has_begun_is_not_begun_again() -> None:
    one, two = ScriptedEngine(Script(seconds_per_token=0.02)), ScriptedEngine(Script(seconds_per_token=0.02))
    async with replicated({"one": one, "two": two}) as engine:
        items = engine.stream(Sample(QUESTION, GREEDY))
        await anext(items)
        (one if one.in_flight else two).kill()
        with pytest.raises(EngineUnavailable):
            async for _ in items:
                pass

    assert len(one.calls) + len(two.calls) == 1


async def test_a_replica_comes_back_and_has_its_programs_again() -> None:
    class Resting(ScriptedEngine):
        rests = False

        async def check(self) -> None:
            if self.rests:
                raise EngineUnavailable("no answer")

    resting, other = Resting(), ScriptedEngine()
    async with replicated({"resting": resting, "other": other}) as engine:
        resting.rests = True
        await until(lambda: not engine.replicas[0].up)
        for prompt in prompts(20):
            await engine.call(Sample(prompt, GREEDY))
        assert (len(resting.calls), len(other.calls)) == (0, 20)

        resting.rests = False
        await until(lambda: engine.replicas[0].up)
        for prompt in prompts(20):
            await engine.call(Sample(prompt, GREEDY))
        assert len(resting.calls) > 3


async def test_the_engine_serves_once_one_replica_does_and_fails_its_check_once_none_does() -> None:
    late, engine_of_late = asyncio.Event(), ScriptedEngine()

    async def connect_late() -> ServedEngine:
        if not late.is_set():
            raise EngineUnavailable("refused")
        return engine_of_late

    early = ScriptedEngine()
    async with started({"late": connect_late, "early": connecting(early)}) as engine:
        await engine.check()
        for prompt in prompts(10):
            await engine.call(Sample(prompt, GREEDY))
        early.kill()
        await until(lambda: not engine.replicas[1].up)
        with pytest.raises(EngineUnavailable, match="none of its servers"):
            await engine.check()
        with pytest.raises(EngineUnavailable):
            await engine.call(Sample(QUESTION, GREEDY))

        late.set()
        await until(lambda: engine.replicas[0].up)
        await engine.call(Sample(QUESTION, GREEDY))


async def test_a_replica_whose_calls_fail_is_left_out_until_it_has_shown_that_it_can_serve() -> None:
    broken = asyncio.Event()

    def fault(_: EngineCall) -> None:
        if broken.is_set():
            raise EngineUnavailable("404")

    failing, other = ScriptedEngine(Script(fault=fault)), ScriptedEngine()

    async def connect() -> ServedEngine:
        if broken.is_set():
            raise EngineUnavailable("404")
        return failing

    async with started({"failing": connect, "other": connecting(other)}) as engine:
        await until(lambda: all(replica.up for replica in engine.replicas))
        broken.set()
        for prompt in prompts(100):
            await engine.call(Sample(prompt, GREEDY))
        assert not engine.replicas[0].up
        assert len(failing.calls) == one_replica.MOST_FAILED

        broken.clear()
        await until(lambda: engine.replicas[0].up)


async def test_calls_that_fail_by_what_they_ask_for_take_the_replica_from_nobody() -> None:
    shown = 0

    def fault(call: EngineCall) -> None:
        if "poison" in next(call.conversation.turns()).text:
            raise EngineUnavailable("500")

    alone = ScriptedEngine(Script(fault=fault))

    async def connect() -> ServedEngine:
        nonlocal shown
        shown += 1
        return alone

    poison = Conversation(Turn("user", "poison"))
    async with started({"alone": connect}) as engine:
        for _ in range(10 * one_replica.MOST_FAILED):
            with pytest.raises(EngineUnavailable):
                await engine.call(Sample(poison, GREEDY))
            await engine.check()
            assert engine.replicas[0].up
        await until(lambda: shown > 1)
        await engine.call(Sample(QUESTION, GREEDY))


async def test_one_that_cannot_show_that_it_serves_says_why_it_is_down() -> None:
    broken = asyncio.Event()

    def fault(_: EngineCall) -> None:
        if broken.is_set():
            raise EngineUnavailable("500")

    async def connect() -> ServedEngine:
        if broken.is_set():
            raise EngineUnavailable("it answers no chat")
        return ScriptedEngine(Script(fault=fault))

    async with started({"alone": connect}) as engine:
        broken.set()
        for _ in range(one_replica.MOST_FAILED):
            await engine.fit(QUESTION)  # which succeeds, and says nothing of the model
            with pytest.raises(EngineUnavailable):
                await engine.call(Sample(QUESTION, GREEDY))
        await until(lambda: not engine.replicas[0].up)
        with pytest.raises(EngineUnavailable, match=r"none of its servers answers: .*it answers no chat"):
            await engine.check()


async def test_why_no_server_serves_is_told_for_each_without_its_address() -> None:
    async def refused() -> ServedEngine:
        raise EngineUnavailable("it refuses the key")

    async def silent() -> ServedEngine:
        raise EngineUnavailable("it cannot be reached")

    engine = ReplicatedEngine.open("scripted", {"http://one": refused, "http://two": silent})
    try:
        await until(lambda: all(replica.reason for replica in engine.replicas))
        assert engine.missing == "server 1: it refuses the key; server 2: it cannot be reached"
    finally:
        await engine.close()


async def test_a_replica_that_is_set_wrong_stops_no_other() -> None:
    late = asyncio.Event()

    async def connect() -> ServedEngine:
        if late.is_set():
            raise LookupError("no such model")
        raise EngineUnavailable("refused")

    async with started({"wrong": connect, "right": connecting(ScriptedEngine())}) as engine:
        late.set()
        await until(lambda: engine.replicas[0].wrong is not None)
        await engine.call(Sample(QUESTION, GREEDY))
        await engine.check()


async def test_a_silent_server_holds_up_neither_the_start_nor_looks_at_others() -> None:
    async def never() -> ServedEngine:
        await asyncio.Event().wait()
        raise AssertionError

    other = ScriptedEngine()
    async with asyncio.timeout(5), started({"silent": never, "other": connecting(other)}) as engine:
        other.kill()
        await until(lambda: not engine.replicas[1].up)


async def test_those_who_ask_at_once_share_one_look() -> None:
    connected = 0

    async def connect() -> ServedEngine:
        nonlocal connected
        connected += 1
        await asyncio.sleep(0.01)
        return ScriptedEngine()

    replica = Replica("one", connect)
    await gather(replica.look() for _ in range(10))
    await replica.close()

    assert (connected, replica.up) == (1, True)


class DyingEngine(ScriptedEngine):
    """Dies while it is checked the second time, and that check's answer is late."""

    def __init__(self) -> None:
        super().__init__()
        self.checked = 0
        self.answer = asyncio.Event()

    async def check(self) -> None:
        self.checked += 1
        await super().check()
        if self.checked == 2:
            self.kill()
            await self.answer.wait()


async def test_a_look_that_began_before_the_server_went_down_is_not_the_last_word() -> None:
    engine = DyingEngine()
    replica = Replica("one", connecting(engine))
    await replica.look()
    under_way = asyncio.ensure_future(replica.look())
    await until(lambda: engine.checked == 2)
    asked = asyncio.ensure_future(replica.look())
    await asyncio.sleep(0)
    engine.answer.set()
    await asyncio.gather(under_way, asked)
    await replica.close()

    assert not replica.up


async def test_what_is_set_wrong_keeps_the_engine_from_starting() -> None:
    async def connect() -> ServedEngine:
        raise LookupError("no such model")

    with pytest.raises(LookupError, match="no such model"):
        await ReplicatedEngine.start("scripted", {"one": connecting(ScriptedEngine()), "two": connect})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)
