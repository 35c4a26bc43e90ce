"""A caller keeps no more than it may, whatever it does at once, and costs little while it is refused."""

import asyncio
from collections import Counter

import pytest

from service.errors import StorageFull
from service.programs.storage import FRESH_SECONDS, REFUSING_SECONDS, Held, Storage


class Room:
    """What callers keep, and how often somebody has summed it up."""

    def __init__(self, **kept: int) -> None:
        self.kept = Counter(kept)
        self.sums = 0

    async def held(self, caller: str | None) -> int:
        self.sums += 1
        await asyncio.sleep(0)
        return self.kept.total() if caller is None else self.kept[caller]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def write(storage: Storage, room: Room, caller: str, size: int) -> None:
    async with storage.room(caller, size):
        await asyncio.sleep(0)
        room.kept[caller] += size


async def test_a_caller_is_refused_at_its_limit_and_others_are_not() -> None:
    refusals: list[None] = []
    jobs, files = Room(ann=60), Room(ann=40, bob=99)
    storage = Storage({"jobs": jobs.held, "files": files.held}, 100, on_refusal=lambda: refusals.append(None))

    with pytest.raises(StorageFull, match="keeps 100 bytes of at most 100"):
        await storage.check("ann")
    await storage.check("bob")
    with pytest.raises(StorageFull):
        await storage.check("bob", 2)
    assert len(refusals) == 2


async def test_what_is_written_at_once_is_counted_before_it_is_there() -> None:
    room = Room()
    storage = Storage({"files": room.held}, 100)
    writes = [write(storage, room, "ann", 30) for _ in range(9)]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes].count(StorageFull) == 6
    assert room.kept["ann"] == 90


async def test_a_write_that_fails_takes_no_room() -> None:
    room = Room()
    storage = Storage({"files": room.held}, 100)
    with pytest.raises(OSError, match="disk"):
        async with storage.room("ann", 100):
            raise OSError("disk")
    await write(storage, room, "ann", 100)

    assert room.kept["ann"] == 100


async def test_a_caller_who_asks_again_and_again_is_summed_up_seldom() -> None:
    room, clock = Room(ann=100), Clock()
    storage = Storage({"files": room.held}, 100, clock=clock)
    for _ in range(50):
        with pytest.raises(StorageFull):
            await storage.check("ann")
    assert room.sums == 1
    room.kept["ann"] = 0  # it has expired
    clock.now += REFUSING_SECONDS
    await storage.check("ann")


async def test_what_another_replica_has_let_in_is_seen_soon() -> None:
    room, clock = Room(), Clock()
    storage = Storage({"files": room.held}, 100, clock=clock)
    await storage.check("ann")
    room.kept["ann"] = 100
    clock.now += FRESH_SECONDS

    with pytest.raises(StorageFull):
        await storage.check("ann")


async def test_who_deletes_something_may_write_at_once() -> None:
    room = Room(ann=100)
    storage = Storage({"files": room.held}, 100)
    with pytest.raises(StorageFull):
        await storage.check("ann")
    room.kept["ann"] = 0
    storage.forget("ann")

    await storage.check("ann", 100)


async def test_what_is_added_while_it_is_summed_up_is_not_lost() -> None:
    room, clock = Room(), Clock()
    go_on = asyncio.Event()
    slow: Held = room.held

    async def held(caller: str | None) -> int:
        found = await slow(caller)
        await go_on.wait()
        return found

    storage = Storage({"files": held}, 100, clock=clock)
    go_on.set()
    await storage.check("ann")
    go_on.clear()
    clock.now += REFUSING_SECONDS
    refusing = asyncio.create_task(storage.check("ann", 101))  # sums up again
    await asyncio.sleep(0.01)
    await write(storage, room, "ann", 60)
    go_on.set()
    with pytest.raises(StorageFull):
        await refusing

    with pytest.raises(StorageFull):
        await storage.check("ann", 50)


async def test_the_bytes_of_all_callers_are_shown_by_room() -> None:
    shown: dict[str, int] = {}
    storage = Storage({"jobs": Room(ann=1, bob=2).held, "files": Room().held}, 100, on_show=shown.__setitem__)
    storage.start()
    async with asyncio.timeout(20):
        while len(shown) < 2:
            await asyncio.sleep(0)
    await storage.close()

    assert shown == {"jobs": 3, "files": 0}
