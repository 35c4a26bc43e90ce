"""What a home for each program is worth, and what becomes of programs whose replica dies.

Two real vLLM servers, and before them one service for each arm: Redraft as it is, and one that sends each call to the
next server in turn. The arms take waves of the same size in turn, each program with a prompt that no cache has seen.

At the end one server is killed while 50 programs run at the first service. None may be lost: each has to end
with a text, and none because its engine failed.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

import aiohttp

from bench.harness.open_loop import Answer, post, unlimited_client
from bench.harness.page import markdown_table
from bench.harness.scenario import Report, run_scenario, say, take_turns
from bench.harness.servers import Server, plain_vllm, redraft
from bench.harness.spread import Spread
from bench.performance.prompts import Prompts
from service.engines.local import bundled
from service.engines.remote.connect import Tokenizers
from service.engines.remote.replica import Replica
from service.engines.remote.replicas import ReplicatedEngine
from service.engines.served import ServedEngine
from service.fleet import start_remote
from service.settings import Settings

KILLED_AMONG = 50
KILLED_AFTER = 10  # programs that were answered


@dataclass(frozen=True)
class Options:
    tokens: Annotated[int, "of a prompt"] = 512
    programs: Annotated[int, "at once"] = 16
    repetitions: Annotated[int, "waves of each arm"] = 5


class InTurn(ReplicatedEngine):
    """Sends calls to the replicas in turn, whatever they are about."""

    calls = 0

    def pick(self, key: str, failed: Sequence[Replica]) -> Replica:
        self.calls += 1
        return self.replicas[self.calls % len(self.replicas)]


async def _start_in_turn(settings: Settings, tokenizers: Tokenizers) -> ServedEngine:
    return await start_remote(settings.model_name, settings.servers, tokenizers, InTurn)


@dataclass(frozen=True)
class Wave:
    """``hit_rate``: the part of the prompt tokens that a cache had."""

    programs_per_minute: float
    hit_rate: float


@dataclass(frozen=True)
class Rescue:
    """What became of the programs that ran when a server was killed."""

    statuses: Mapping[int | None, int]
    stop_reasons: Mapping[str, int]

    @property
    def lost(self) -> int:
        failed = sum(count for status, count in self.statuses.items() if status != HTTPStatus.OK)
        return failed + self.stop_reasons.get("engine_failed", 0)


def make_program(prompt: str) -> Mapping[str, Any]:
    """A draft and one revision, both judged."""
    return {
        "prompt": prompt,
        "search": {"preset": "self_refine", "rounds": 1, "critic": "model"},
        "evaluators": [{"type": "keywords", "include": ["a word that no text has"]}],
        "sampling": {"max_tokens": 60},
    }


async def run_wave(client: aiohttp.ClientSession, prompts: Sequence[str]) -> Wave:
    began = time.perf_counter()
    answers = await asyncio.gather(*(post(client, "/v1/refine", make_program(prompt), 0.0) for prompt in prompts))
    minutes = (time.perf_counter() - began) / 60
    usages = [json.loads(answer.body)["usage"]["total"] for answer in answers]
    cached, read = (sum(usage[name] for usage in usages) for name in ("cached_tokens", "prompt_tokens"))
    return Wave(len(prompts) / minutes, cached / read)


async def kill_server(client: aiohttp.ClientSession, prompts: Sequence[str], server: Server) -> Rescue:
    """Kill the server, and all of its processes, while the programs run."""
    programs = [asyncio.ensure_future(post(client, "/v1/refine", make_program(prompt), 0.0)) for prompt in prompts]
    while sum(answer.done() for answer in programs) < KILLED_AFTER:
        await asyncio.sleep(0.05)
    os.killpg(server.process.pid, signal.SIGKILL)
    answers: Sequence[Answer] = await asyncio.gather(*programs)
    reasons = [json.loads(answer.body)["stop_reason"] for answer in answers if answer.status == HTTPStatus.OK]
    return Rescue(Counter(answer.status for answer in answers), Counter(reasons))


async def measure(options: Options) -> Report:
    waves, rescue = await measure_arms(options)
    setup = (
        f"Two servers, {options.programs} programs at once, prompts of {options.tokens} tokens; medians of "
        f"{options.repetitions} waves, with minimum and maximum."
    )
    columns = ("arm", "cached of the prompt tokens", "programs/min", "times slower than with a home")
    ended = ", ".join(f"{count} by {reason}" for reason, count in rescue.stop_reasons.items())
    killed = (
        f"Of {KILLED_AMONG} programs running when one of the two servers was killed, {rescue.lost} were lost; "
        f"they ended {ended}."
    )
    return Report(bundled.NAME, setup, [markdown_table(columns, _rows(waves)), killed], failed=rescue.lost > 0)


async def measure_arms(options: Options) -> tuple[Mapping[str, Sequence[Wave]], Rescue]:
    prompts = _make_prompts()
    checkpoint = await asyncio.to_thread(bundled.prepare)
    arguments = ["--enable-prompt-tokens-details"]
    async with plain_vllm(checkpoint, arguments=arguments) as one, plain_vllm(checkpoint, arguments=arguments) as two:
        remote = {
            "REDRAFT_ENGINE": "openai",
            "REDRAFT_ENGINE_URLS": f"{one.url},{two.url}",
            "REDRAFT_MODEL": "model",
        }
        async with (
            redraft(remote) as home,
            redraft(remote, "bench.scenarios.replicas") as in_turn,
            unlimited_client(home.url) as home_client,
            unlimited_client(in_turn.url) as in_turn_client,
        ):
            arms = {"a home for each program": home_client, "calls in turn": in_turn_client}
            waves: dict[str, list[Wave]] = {name: [] for name in arms}
            for repetition, name in take_turns(list(arms), options.repetitions):
                texts = prompts.fresh(options.tokens, options.programs, repetition)
                waves[name].append(await run_wave(arms[name], texts))
                say(f"{name}: {waves[name][-1].programs_per_minute:.1f} programs/min")
            return waves, await kill_server(home_client, prompts.fresh(options.tokens, KILLED_AMONG), one)


def _make_prompts() -> Prompts:
    from transformers import AutoTokenizer

    return Prompts(AutoTokenizer.from_pretrained(bundled.prepare()))


def _rows(waves: Mapping[str, Sequence[Wave]]) -> Iterator[Sequence[str]]:
    [first, *_] = waves.values()
    for name, found in waves.items():
        ratios = [own.programs_per_minute / base.programs_per_minute for own, base in zip(first, found, strict=True)]
        values = ([one.hit_rate for one in found], [one.programs_per_minute for one in found], ratios)
        yield [name, *(f"{Spread.of(each):.3g}" for each in values)]


if __name__ == "__main__":
    sys.exit(run_scenario("replicas", Options, measure, _start_in_turn))
