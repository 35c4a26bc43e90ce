"""Reading bodies: all of them together within a number of bytes, and each within a time.

Admission bounds the requests at work. A body is read before that, so what is held meanwhile has a bound of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.requests import Request

from service.errors import BodyTimeout, Overloaded

RETRY_SECONDS = 5


class Intake:
    """Holds at most ``max_bytes`` of bodies that are being read or decoded. Each must arrive within ``seconds``.

    ``on_shed`` is called with ``overloaded`` for each refusal.
    """

    def __init__(self, max_bytes: int, seconds: float, *, on_shed: Callable[[str], None]) -> None:
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._on_shed = on_shed
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes held now."""
        return self._held

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The request's body; its bytes count until the block ends.

        Raises BodyTimeout, and Overloaded as soon as there is no room for the next piece.
        """
        pieces = bytearray()  # one block, which goes back to the system; many small ones would stay with the allocator
        held = 0
        try:
            try:
                async with asyncio.timeout(self._seconds):
                    async for piece in request.stream():
                        self._hold(len(piece))
                        held += len(piece)
                        pieces += piece
            except TimeoutError:
                raise BodyTimeout(f"the body did not arrive within {self._seconds:g} seconds") from None
            body = bytes(pieces)
            pieces.clear()
            yield body
        finally:
            self._held -= held

    def _hold(self, size: int) -> None:
        if self._held + size > self._max_bytes:
            self._on_shed("overloaded")
            raise Overloaded(f"the bodies of other requests hold {self._held} bytes", retry_after=RETRY_SECONDS)
        self._held += size
