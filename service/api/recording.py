"""An answer while it is made: an ASGI app sends it once, and any number of clients read it from its beginning on."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import Message

from service.programs.kept_answers import KeptAnswer

PIECE_BYTES = 65_536
"""How much is read at once: as much as the server holds before it waits for the client."""

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Start:
    """How a response begins."""

    status: int
    headers: Headers


async def _keep_nothing(answer: KeptAnswer) -> None:
    pass


class Recording:
    """Everything that an ASGI app sends as a response.

    max_bytes: what is held of a body. One that outgrows it loses what all readers have taken, and from then on the app
        is held back until they have taken the rest. It cannot be read from its beginning any more.
    keep: called with the whole answer, if all of it is held, before its readers get the last piece. What it raises, the
        app's last ``send`` raises.
    """

    def __init__(self, max_bytes: int, keep: Callable[[KeptAnswer], Awaitable[None]] = _keep_nothing) -> None:
        self.has_outgrown = False
        self._max_bytes = max_bytes
        self._keep = keep
        self._start: Start | None = None
        self._body = bytearray()
        self._dropped = 0
        self._ended = False
        self._error: BaseException | None = None
        self._readers: set[Reader] = set()
        self._news = asyncio.Event()

    @property
    def has_readers(self) -> bool:
        return bool(self._readers)

    def play(self, answer: KeptAnswer) -> None:
        """Take an answer that was recorded before."""
        self._start = Start(answer.status, answer.headers)
        self._body += answer.body
        self._end()

    async def send(self, message: Message) -> None:
        """Take an ASGI message, as the app's ``send``. What comes after the end has no effect."""
        if self._ended:
            return
        if message["type"] == "http.response.start":
            self._start = Start(message["status"], tuple(message["headers"]))
            return
        piece = message.get("body", b"")
        if not message.get("more_body", False):
            if self._start is not None and not self.has_outgrown:
                await self._keep(KeptAnswer(self._start.status, self._start.headers, bytes(self._body + piece)))
            self._body += piece
            self._end()
            return
        self._body += piece
        self._tell()
        self.has_outgrown = self.has_outgrown or len(self._body) > self._max_bytes
        if self.has_outgrown:
            await self._until_read()

    def fail(self, error: BaseException) -> None:
        """End it with what its readers shall raise. It has no effect on one that has ended."""
        if not self._ended:
            self._error = error
            self._end()

    @contextmanager
    def reader(self) -> Iterator["Reader"]:
        """Read it, from the beginning on."""
        reader = Reader(self)
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)
            self._tell()

    @property
    def _has_begun(self) -> bool:
        """Whether there is something to read. An app may send its status early, and still fail."""
        return bool(self._body) or self._dropped > 0 or (self._ended and self._error is None)

    async def _until_read(self) -> None:
        length = self._dropped + len(self._body)
        while any(reader.taken < length for reader in self._readers):
            await self._news.wait()
        self._dropped = length
        self._body.clear()

    def _end(self) -> None:
        self._ended = True
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Reader:
    """Reads a Recording. ``taken``: how many bytes of the body it has read and is done with."""

    def __init__(self, recording: Recording) -> None:
        self.taken = 0
        self._read = 0
        self._recording = recording

    async def start(self) -> Start:
        """How the response begins, once it has some of its body. Raises what ended it before."""
        recording = self._recording
        while not recording._has_begun:
            if recording._error is not None:
                raise recording._error
            await recording._news.wait()
        if recording._start is None:
            raise RuntimeError("a response begins with its status")
        return recording._start

    async def pieces(self) -> AsyncGenerator[tuple[bytes, bool], None]:
        """The pieces of the body that were not read yet, as they come, each with whether it is the last.

        Raises what ended the response before its end.
        """
        recording = self._recording
        while True:
            begin = self._read - recording._dropped
            piece = bytes(recording._body[begin : begin + PIECE_BYTES])
            has_all = recording._ended and begin + len(piece) == len(recording._body)
            is_last = has_all and recording._error is None
            if piece or is_last:
                self._read += len(piece)
                yield piece, is_last
                self.taken = self._read
                recording._tell()
            elif has_all and recording._error is not None:
                raise recording._error
            else:
                await recording._news.wait()
            if is_last:
                return
