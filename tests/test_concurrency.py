import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.concurrency import SerialThread


async def test_a_function_runs_in_another_thread() -> None:
    assert await SerialThread().run(threading.get_ident) != threading.get_ident()


async def test_what_a_function_raises_is_its_caller_s() -> None:
    thread = SerialThread()

    results = await asyncio.gather(
        thread.run(int, "7"), thread.run(int, "seven"), thread.run(int, "8"), return_exceptions=True
    )

    assert results[0] == 7
    assert isinstance(results[1], ValueError)
    assert results[2] == 8


@pytest.mark.parametrize("kind", [StopIteration, SystemExit, asyncio.CancelledError])
async def test_what_no_future_can_hold_is_a_failure_and_the_thread_goes_on(kind: type[BaseException]) -> None:
    thread = SerialThread()

    def end() -> None:
        raise kind

    with pytest.raises(RuntimeError, match=kind.__name__):
        await asyncio.wait_for(thread.run(end), 5)
    assert await asyncio.wait_for(thread.run(int, "7"), 5) == 7


async def test_no_two_functions_run_at_a_time() -> None:
    thread = SerialThread()
    busy = threading.Lock()

    def take() -> bool:
        free = busy.acquire(blocking=False)
        if free:
            threading.Event().wait(0.001)
            busy.release()
        return free

    assert all(await asyncio.gather(*(thread.run(take) for _ in range(100))))


async def test_functions_that_come_together_share_a_thread() -> None:
    with ThreadPoolExecutor(8) as pool:
        thread = SerialThread(pool)
        idents = await asyncio.gather(*(thread.run(threading.get_ident) for _ in range(50)))

    assert len(set(idents)) == 1


async def test_what_comes_while_another_runs_is_run_too() -> None:
    thread = SerialThread()
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go_on.wait(10)

    first = asyncio.ensure_future(thread.run(wait))
    await asyncio.to_thread(begun.wait, 10)
    second = asyncio.ensure_future(thread.run(int, "2"))
    await asyncio.sleep(0)
    go_on.set()

    await first
    assert await second == 2


async def test_a_function_whose_caller_has_left_does_not_run() -> None:
    thread = SerialThread()
    begun, go_on, ran = threading.Event(), threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go_on.wait(10)

    first = asyncio.ensure_future(thread.run(wait))
    await asyncio.to_thread(begun.wait, 10)
    left = asyncio.ensure_future(thread.run(ran.set))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await first
    await thread.run(int)

    assert not ran.is_set()


async def test_long_functions_of_one_let_others_in_between() -> None:
    order = list[str]()

    def note(name: str) -> None:
        threading.Event().wait(0.06)
        order.append(name)

    with ThreadPoolExecutor(1) as pool:
        one, other = SerialThread(pool), SerialThread(pool)
        calls = [one.run(note, "one") for _ in range(5)]
        await asyncio.gather(*calls, other.run(note, "other"))

    assert order.index("other") == 1


async def test_after_the_executor_is_shut_down_nothing_waits_for_ever() -> None:
    pool = ThreadPoolExecutor(1)
    thread = SerialThread(pool)
    pool.shutdown()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(thread.run(int), 5)
