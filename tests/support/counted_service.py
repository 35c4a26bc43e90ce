"""``python -m tests.support.counted_service``: the service with an engine that counts what it has done.

The key of each call that has ended is a line of the file CALLS. The scripted engine's calls take a little while, never
the same, so that those made side by side end in another order each time.
"""

import hashlib
import json
import os
import sys
from collections.abc import Sequence

from bench.harness.counted import CountedEngine, open_calls
from service.cli.main import serve
from service.engines.base import Choose, Sample
from service.engines.remote.connect import Tokenizers
from service.engines.scripted import Script, ScriptedEngine
from service.fleet import start_engine
from service.settings import Settings

SECONDS_PER_CALL = float(os.environ.get("SECONDS_PER_CALL", "0.03"))


def reply(call: Sample) -> str:
    """What depends on nothing but the call; a critic always finds something."""
    if call.schema is not None:
        return json.dumps({"issues": ["Say more."]})
    return Script().reply(call)


def weights(call: Choose) -> Sequence[float]:
    """Probabilities that depend on nothing but the call."""
    seen = hashlib.sha256(call.prompt.encode()).digest()
    drawn = [1 + byte for byte in seen[: len(call.options)]]
    return [each / sum(drawn) for each in drawn]


async def start(settings: Settings, tokenizers: Tokenizers) -> CountedEngine:
    calls = open_calls(os.environ["CALLS"])
    if settings.engine == "scripted":
        return CountedEngine(ScriptedEngine(Script(reply=reply, weights=weights)), calls, SECONDS_PER_CALL)
    return CountedEngine(await start_engine(settings, tokenizers), calls)


if __name__ == "__main__":
    sys.exit(serve(start))
