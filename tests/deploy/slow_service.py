"""``python -m tests.deploy.slow_service``: the service with the scripted engine, whose calls take SECONDS_PER_CALL."""

import os
import sys

from service.cli.main import serve
from service.engines.remote.connect import Tokenizers
from service.engines.scripted import Script, ScriptedEngine
from service.settings import Settings

SECONDS_PER_CALL = float(os.environ.get("SECONDS_PER_CALL", "0.4"))


async def start(settings: Settings, tokenizers: Tokenizers) -> ScriptedEngine:
    return ScriptedEngine(Script(seconds_per_call=SECONDS_PER_CALL))


if __name__ == "__main__":
    sys.exit(serve(start))
