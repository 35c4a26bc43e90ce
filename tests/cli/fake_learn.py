"""``learn run`` with an engine that never starts: ``fake_learn.py ARGUMENT …``."""

import asyncio
import sys

from service.cli import learn, main
from service.settings import Settings


async def start(settings: Settings) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        print("The engine has ended", flush=True)


if __name__ == "__main__":
    vars(learn)["start_engine"] = start
    sys.argv = ["redraft", "learn", "run", *sys.argv[1:]]
    sys.exit(main.main())
