"""Tells those who watch a job in this process that something has happened in it."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class News:
    def __init__(self) -> None:
        self._watching: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def tell(self, job_id: str) -> None:
        """Wake those who watch the job."""
        for watch in self._watching.get(job_id, ()):
            watch.set()

    def tell_all(self) -> None:
        """Wake all who watch a job."""
        for job_id in self._watching:
            self.tell(job_id)

    @contextmanager
    def watch(self, job_id: str) -> Iterator["Watch"]:
        """Watch a job. What happens from now on is not missed."""
        event = asyncio.Event()
        self._watching[job_id].add(event)
        try:
            yield Watch(event)
        finally:
            self._watching[job_id].discard(event)
            if not self._watching[job_id]:
                del self._watching[job_id]


class Watch:
    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    async def wait(self, seconds: float) -> None:
        """Return after news, those since the last call included, or after some seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        self._event.clear()
