"""``python -m bench.performance``: programs by every arm, interleaved on one machine, then the tables and the plot.

What the file of results already has is not run again, so a long benchmark can be run cell by cell.
"""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import httpx

from bench.harness.origin import current_commit
from bench.harness.page import PERFORMANCE, publish
from bench.harness.results import RESULTS, OtherOrigin
from bench.harness.scenario import parse_options
from bench.harness.servers import Server, plain_vllm, redraft
from bench.performance import report
from bench.performance.arms import ARMS, ServerName
from bench.performance.lengths import LENGTHS
from bench.performance.prompts import Prompts
from bench.performance.results import Cell, Origin, Results, machine, versions
from bench.performance.waves import Bench, Plan, Served
from service.engines.local import bundled

CELLS = tuple(Cell(prompt_tokens, programs) for prompt_tokens in (128, 512, 2048) for programs in (1, 8, 32))
SPECULATION = '{"method": "ngram", "num_speculative_tokens": 5, "prompt_lookup_min": 2, "prompt_lookup_max": 4}'
RECORDING = "bench.performance.recording"


@dataclass(frozen=True)
class Options:
    cells: Annotated[Sequence[Cell], "as 512x8: tokens x programs", {"nargs": "+", "type": Cell.parse}] = CELLS
    repetitions: Annotated[int, "of each wave"] = 3
    lengths: Annotated[Sequence[str], "of texts", {"nargs": "+", "choices": LENGTHS}] = tuple(LENGTHS)
    arms: Annotated[Sequence[str], "that run", {"nargs": "+", "choices": ARMS}] = tuple(ARMS)
    speculation: Annotated[str, "vLLM's speculative_config, as JSON"] = SPECULATION
    cache_gib: Annotated[int, "each server's KV cache"] = 3
    results: Annotated[Path, "the file of results"] = RESULTS / "performance.jsonl"
    report_only: Annotated[bool, "run nothing"] = False
    write: Annotated[bool, f"put the tables and the plot into {PERFORMANCE.parent}"] = False


def main() -> None:
    options = parse_options("bench.performance", Options)
    results = Results(options.results)
    try:
        if not options.report_only:
            asyncio.run(_run(options, results))
    except OtherOrigin as error:
        sys.exit(str(error))
    made_on = datetime.fromtimestamp(options.results.stat().st_mtime, UTC).date()
    section = report.section(results, made_on)
    if options.write:
        report.plot(results.waves(), PERFORMANCE.with_suffix(".svg"))
    publish("performance", section, write=options.write)


async def _run(options: Options, results: Results) -> None:
    speculation = json.loads(options.speculation)
    results.begin(Origin(bundled.NAME, current_commit(), machine(), versions(), options.cache_gib, speculation))
    plan = Plan(options.cells, options.repetitions, options.lengths, options.arms)
    model = await asyncio.to_thread(bundled.prepare)
    environment = {"VLLM_CPU_KVCACHE_SPACE": str(options.cache_gib)}
    patient = {**environment, "REDRAFT_MAX_SECONDS": "3600"}  # a wave of many long programs may take so long
    speculating = {**patient, "REDRAFT_ENGINE_ARGS": json.dumps({"speculative_config": speculation})}
    makers: Mapping[ServerName, Callable[[], AbstractAsyncContextManager[Server]]] = {
        "plain": lambda: plain_vllm(model, environment),
        "plain_speculating": lambda: plain_vllm(model, environment, ["--speculative-config", json.dumps(speculation)]),
        "redraft": lambda: redraft(patient, RECORDING),
        "redraft_speculating": lambda: redraft(speculating, RECORDING),
    }
    from transformers import AutoTokenizer  # takes seconds

    tokenizer = AutoTokenizer.from_pretrained(model)
    async with AsyncExitStack() as stack:
        servers = {}
        for name in sorted(plan.servers):
            server = await stack.enter_async_context(makers[name]())
            servers[name] = await stack.enter_async_context(_client(server))
        bench = Bench(servers, Prompts(tokenizer), tokenizer, results)
        await bench.warm_up(plan)
        await bench.complete(plan)


@asynccontextmanager
async def _client(server: Server) -> AsyncGenerator[Served, None]:
    """One client for all programs, which keeps its connections."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=None, limits=limits) as client:  # noqa: S113 - a wave may take long
        yield Served(server, client)


if __name__ == "__main__":
    main()
