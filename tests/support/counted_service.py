"""``python -m tests.support.counted_service``: the service with an engine that counts what it has done.

The key of each call that has ended is a line of the file CALLS. The scripted engine's calls take a little while, never
the same, so that those made side by side end in another order each time.
"""

import asyncio
import hashlib
import json
import os
import random
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from service.cli.main import serve
from service.engines.base import PLAINLY, Call, Choose, Completion, EngineDecorator, Piece, R, Reading, Sample
from service.engines.remote.connect import Tokenizers
from service.engines.scripted import Script, ScriptedEngine
from service.engines.served import ServedEngine
from service.fleet import start_engine
from service.jobs.journal import call_key
from service.settings import Settings

SECONDS_PER_CALL = float(os.environ.get("SECONDS_PER_CALL", "0.03"))


def reply(call: Sample) -> str:
    """What depends on nothing but the call; a critic always finds something."""
    if call.schema is not None:
        return json.dumps({"issues": ["Say more."]})
    return Script().reply(call)


def weights(call: Choose) -> Sequence[float]:
    """A digit that depends on nothing but the call."""
    seen = hashlib.sha256(call.prompt.encode()).digest()
    drawn = [1 + byte for byte in seen[: len(call.options)]]
    return [each / sum(drawn) for each in drawn]


@dataclass(frozen=True)
class CountedEngine(EngineDecorator):
    engine: ServedEngine
    calls: int
    seconds_per_call: float = 0.0

    async def call(self, call: Call[R], *, priority: int = 0) -> R:
        await asyncio.sleep(random.uniform(0, 2 * self.seconds_per_call))
        result = await self.engine.call(call, priority=priority)
        os.write(self.calls, f"{call_key(self.model, call)}\n".encode())
        return result

    async def stream(
        self, sample: Sample, *, priority: int = 0, reading: Reading = PLAINLY
    ) -> AsyncGenerator[Piece, None]:
        await asyncio.sleep(random.uniform(0, 2 * self.seconds_per_call))
        stream = self.engine.stream(sample, priority=priority, reading=reading)
        async with aclosing(stream) as pieces:
            async for piece in pieces:
                if isinstance(piece, Completion):
                    os.write(self.calls, f"{call_key(self.model, sample)}\n".encode())
                yield piece

    async def close(self) -> None:
        await self.engine.close()


async def start(settings: Settings, tokenizers: Tokenizers) -> CountedEngine:
    calls = os.open(os.environ["CALLS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if settings.engine == "scripted":
        return CountedEngine(ScriptedEngine(Script(reply=reply, weights=weights)), calls, SECONDS_PER_CALL)
    return CountedEngine(await start_engine(settings, tokenizers), calls)


if __name__ == "__main__":
    sys.exit(serve(start))
