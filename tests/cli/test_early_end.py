"""A step of learning ends early by a signal, or with the service that has started it."""

import asyncio
import os
import signal

import pytest

from service.cli.early_end import work
from service.learning.registry import Refused


class Step:
    """A step that never ends by itself, and may fail while it is ended."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun = asyncio.Event()
        self.closed = False
        self._error = error

    async def run(self) -> int:
        try:
            self.begun.set()
            await asyncio.Event().wait()
        finally:
            self.closed = True
            if self._error:
                raise self._error
        return 0


@pytest.mark.parametrize("error", [None, ValueError("the engine is gone")])
async def test_a_signal_cancels_it_whatever_it_makes_of_that(error: Exception | None) -> None:
    step = Step(error)
    working = asyncio.create_task(work(step.run(), for_service=False))
    await step.begun.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(asyncio.CancelledError):
        await working

    assert step.closed
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


async def test_it_ends_with_its_service(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, service = os.pipe()
    with os.fdopen(heard) as standard_input:
        monkeypatch.setattr("sys.stdin", standard_input)
        step = Step()
        working = asyncio.create_task(work(step.run(), for_service=True))
        await step.begun.wait()
        os.close(service)
        with pytest.raises(Refused, match="the service that started it has ended"):
            await working

    assert step.closed


async def test_what_it_returns_and_raises_is_its_own() -> None:
    async def give() -> int:
        return 3

    async def fail() -> int:
        raise ValueError("too few")

    assert await work(give(), for_service=False) == 3
    with pytest.raises(ValueError, match="too few"):
        await work(fail(), for_service=False)
