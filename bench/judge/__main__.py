"""How far a candidate that talks to its judge moves its score: ``python -m bench.judge``.

Loads the engine that the settings name, judges every weak answer as it is and under every attack, and writes
docs/results/judge-attacks.md.
"""

import asyncio
import time
from datetime import UTC, datetime

from rich.console import Console

from bench.harness.origin import current_commit, origin
from bench.harness.page import PAGES
from bench.judge.judging import make_program, measure_attacks
from bench.judge.report import report
from service.fleet import start_engine
from service.settings import Settings

REPORT = PAGES / "judge-attacks.md"


async def main() -> None:
    commit = current_commit()
    engine = await start_engine(Settings())
    try:
        started = time.perf_counter()
        honest, shifts = await measure_attacks(engine, make_program(engine.model))
        seconds = time.perf_counter() - started
    finally:
        await engine.close()
    title = f"{origin(engine.model, commit, datetime.now(UTC).date())} Judging took {seconds:.0f} s."
    page = report(title, honest, shifts)
    REPORT.write_text(page, encoding="utf-8")
    Console().print(page, markup=False, highlight=False)


if __name__ == "__main__":
    asyncio.run(main())
