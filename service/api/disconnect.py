"""Work that ends when its client leaves."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

T = TypeVar("T")


class ClientLeft(ClientDisconnect):
    """There is nobody left to answer."""


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do ``work``, but cancel it as soon as the client has left, wait for its end and raise ClientLeft.

    The request's body has to be read before: what still comes of it is dropped here.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_wait_for_disconnect(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        leaving.result()  # raises what receiving raised
        raise ClientLeft
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait((working, leaving))


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
