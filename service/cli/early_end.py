"""How a step of learning ends before it is done: by a signal, or with the service that has started it."""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from typing import TypeVar

from service.learning.registry import Refused

T = TypeVar("T")


async def work(step: Coroutine[object, object, T], *, for_service: bool) -> T:
    """Do a step, which is cancelled by SIGTERM and can close its engine and its trainer then.

    for_service: a service has started this process, and holds the other end of standard input until it ends.
    Raises CancelledError after the signal, and Refused if the service has ended.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(step)
    reasons: list[BaseException] = []

    def end(reason: BaseException) -> None:
        if not reasons:  # a second signal must not cut short what closes the engine
            task.cancel()
        reasons.append(reason)

    def listen() -> None:
        if not os.read(sys.stdin.fileno(), 1):
            loop.remove_reader(sys.stdin.fileno())
            end(Refused("the service that started it has ended"))

    loop.add_signal_handler(signal.SIGTERM, end, asyncio.CancelledError())
    if for_service:
        loop.add_reader(sys.stdin.fileno(), listen)
    try:
        return await task
    except BaseException as error:
        if reasons:  # whatever the step made of it
            raise reasons[0] from error
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        if for_service:
            loop.remove_reader(sys.stdin.fileno())
