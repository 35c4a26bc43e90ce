"""``python -m bench.performance``: programs by every arm, interleaved on one machine, then the tables and the plot.

What the file of results has already is not run again, so a long benchmark can be run cell by cell.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx

from bench.origin import current_commit
from bench.page import PERFORMANCE, publish
from bench.performance import report
from bench.performance.arms import ARMS, ServerName
from bench.performance.lengths import LENGTHS
from bench.performance.prompts import Prompts
from bench.performance.results import Cell, Origin, OtherOrigin, Results, machine, versions
from bench.performance.waves import Bench, Plan, Served
from bench.servers import Server, plain_vllm, redraft
from service.engines.local import bundled

CELLS = [Cell(prompt_tokens, programs) for prompt_tokens in (128, 512, 2048) for programs in (1, 8, 32)]
SPECULATION = '{"method": "ngram", "num_speculative_tokens": 5, "prompt_lookup_min": 2, "prompt_lookup_max": 4}'
RECORDING = "bench.performance.recording"


def main() -> None:
    options = _options()
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


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.performance")
    parser.add_argument("--cells", nargs="+", type=Cell.parse, default=CELLS, help="as 512x8: tokens x programs")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--lengths", nargs="+", choices=LENGTHS, default=list(LENGTHS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--speculation", type=json.loads, default=SPECULATION, help="vLLM's speculative_config")
    parser.add_argument("--cache-gib", type=int, default=3, help="each server's KV cache")
    parser.add_argument("--results", type=Path, default=Path(__file__).parents[1] / "results" / "performance.jsonl")
    parser.add_argument("--report-only", action="store_true", help="run nothing")
    parser.add_argument("--write", action="store_true", help=f"put the tables and the plot into {PERFORMANCE.parent}")
    return parser.parse_args()


async def _run(options: argparse.Namespace, results: Results) -> None:
    results.begin(Origin(bundled.NAME, current_commit(), machine(), versions(), options.cache_gib, options.speculation))
    plan = Plan(options.cells, options.repetitions, options.lengths, options.arms)
    model = await asyncio.to_thread(bundled.prepare)
    environment = {"VLLM_CPU_KVCACHE_SPACE": str(options.cache_gib)}
    patient = {**environment, "REDRAFT_MAX_SECONDS": "3600"}  # a wave of many long programs may take so long
    speculation = json.dumps(options.speculation)
    speculating = {**patient, "REDRAFT_ENGINE_ARGS": json.dumps({"speculative_config": options.speculation})}
    makers: Mapping[ServerName, Callable[[], AbstractAsyncContextManager[Server]]] = {
        "plain": lambda: plain_vllm(model, environment),
        "plain_speculating": lambda: plain_vllm(model, environment, ["--speculative-config", speculation]),
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
