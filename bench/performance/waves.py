"""Runs waves of programs against the servers, all arms of a repetition one after the other, and the rates around them.

**The floor** of a wave is the time that its tokens take this engine on this machine, if nothing is computed twice and
nobody waits for anybody: the prompt tokens that were never seen before, at the measured prefill rate, and the decode
steps, at the measured decode rate. Both rates are measured on the plain server, in the same run, with as many requests
at once and prompts as long as the cell has, before each repetition and after the last:

- prefill: fresh prompts, one token of reply each, all at once; their prompt tokens over the time of all. Where
  these are few tokens, the same again with further prompts.
- decode: the same prompts again, which the cache now has, with 121 tokens of reply less the same with 1 token, so 120
  decode steps of every request over the difference. Sampled as the programs' texts are.

It is not a lower bound in the strict sense: contexts grow while a program runs, which makes its decode steps a little
slower than those measured; a short prefill beside others' decode steps may be faster or slower than a long one alone;
and speculation, which the rates are measured without, may well end before it.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import httpx
import psutil
from pydantic import TypeAdapter

from bench.harness.scenario import say
from bench.harness.servers import Server
from bench.performance.account import Account, Call, account
from bench.performance.arms import ARMS, ServerName
from bench.performance.lengths import FIXED, LENGTHS
from bench.performance.programs import Exchange, Job, complete, text_sampling
from bench.performance.prompts import Prompts, Tokenizer
from bench.performance.results import Cell, Counted, Key, Rates, Results, Wave

DECODE_STEPS = 120
PREFILL_TOKENS = 4096
"""A prefill rate is that of at least about so many tokens: one short prompt is over too soon to be timed."""
SETTLING_SECONDS = 0.5
"""After a wave, until the server's counters hold its last call."""
_ACCOUNT = TypeAdapter(Account)


class PromptsDiffer(Exception):
    """The server read another prompt than the one that the account was made of."""


@dataclass(frozen=True)
class Served:
    """A server, and the one client that talks to it."""

    server: Server
    client: httpx.AsyncClient


@dataclass(frozen=True)
class Plan:
    cells: Sequence[Cell]
    repetitions: int
    lengths: Sequence[str]
    arms: Sequence[str]

    def waves(self, cell: Cell, repetition: int) -> list[Key]:
        """The waves of a repetition. Each begins with another arm, so that none always follows the same one."""
        keys = []
        for lengths in self.lengths:
            arms = [arm for arm in self.arms if lengths in ARMS[arm].lengths]
            first = repetition % len(arms) if arms else 0
            keys += [Key(cell, repetition, lengths, arm) for arm in (*arms[first:], *arms[:first])]
        return keys

    @property
    def servers(self) -> set[ServerName]:
        """Those that are needed; the plain one always, for its rates."""
        return {"plain", *(ARMS[key.arm].server for key in self.waves(self.cells[0], 0))}


@dataclass(frozen=True)
class Bench:
    servers: Mapping[ServerName, Served]
    prompts: Prompts
    tokenizer: Tokenizer
    results: Results

    async def warm_up(self, plan: Plan) -> None:
        """Run a wave on each server at each lengths, so that what is done only once is done before anything is timed,
        such as compiling a grammar."""
        firsts = {(ARMS[key.arm].server, key.lengths): key for key in reversed(plan.waves(Cell(128, 2), 0))}
        for key in firsts.values():
            await self.wave(key, 0)

    async def complete(self, plan: Plan) -> None:
        """Run the waves that the results do not have yet."""
        done = {wave.key for wave in self.results.waves()}
        for cell in plan.cells:
            left = [
                (order, key)
                for repetition in range(plan.repetitions)
                for order, key in enumerate(plan.waves(cell, repetition))
                if key not in done
            ]
            repetition = None
            for order, key in left:
                if key.repetition != repetition:
                    repetition = key.repetition
                    self._keep(await self.rates(cell))
                self._keep(await self.wave(key, order))
            if left:
                self._keep(await self.rates(cell))

    def _keep(self, record: Wave | Rates) -> None:
        self.results.append(record)
        match record:
            case Wave(key, wall=wall):
                say(f"{key.cell} {key.repetition} {key.lengths} {key.arm} {wall:.2f} s")
            case Rates(cell, prefill, decode):
                say(f"{cell} prefill {prefill:.0f}/s, decode {decode:.0f}/s")

    async def wave(self, key: Key, order: int) -> Wave:
        arm, lengths, programs = ARMS[key.arm], LENGTHS[key.lengths], key.cell.programs
        served = self.servers[arm.server]
        prompts = self.prompts.fresh(key.cell.prompt_tokens, programs, key.repetition)
        banned = self.tokenizer.all_special_ids
        jobs = [Job(prompt, lengths, 1_000 * number, banned) for number, prompt in enumerate(prompts)]
        if arm.recorded:
            await served.client.post("/bench/begin", params={"fixed": lengths.fixed})
        before = await served.server.counters()

        async def run(job: Job) -> tuple[float, Sequence[Exchange]]:
            exchanges = await arm.program(served.client, job)
            return time.perf_counter() - started, exchanges

        busy = self._strangers_seconds()
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(job)) for job in jobs]
        wall = time.perf_counter() - started
        strangers = max(0.0, self._strangers_seconds() - busy) / wall
        await asyncio.sleep(SETTLING_SECONDS)
        counted = _difference(before, await served.server.counters())
        seconds, exchanges = zip(*(task.result() for task in tasks), strict=True)
        if arm.recorded:
            tokens = _ACCOUNT.validate_json((await served.client.get("/bench/account")).content)
        else:
            tokens = replace(account(self._calls(exchanges)), cached=counted.cached)
        return Wave(key, order, wall, seconds, counted, tokens, strangers)

    def _strangers_seconds(self) -> float:
        """Processor time that the machine has spent on anything but this process and the servers, since whenever."""
        machine = psutil.cpu_times()
        roots = [psutil.Process(), *(served.server.process for served in self.servers.values())]
        ours = {process for root in roots for process in (root, *root.children(recursive=True))}
        spent = [process.cpu_times() for process in ours]
        return sum(machine) - machine.idle - machine.iowait - sum(each.user + each.system for each in spent)

    def _calls(self, programs: Iterable[Sequence[Exchange]]) -> Iterable[Call]:
        """A client loop's calls as its server saw them. PromptsDiffer if their lengths are not those it reported."""
        for exchanges in programs:
            for exchange in exchanges:
                text = self.tokenizer.apply_chat_template(
                    [dict(message) for message in exchange.messages], tokenize=False, add_generation_prompt=True
                )
                prompt = self.tokenizer.encode(text, add_special_tokens=False)
                if len(prompt) != exchange.prompt_tokens:
                    raise PromptsDiffer(f"{len(prompt)} tokens here, {exchange.prompt_tokens} on the server")
                yield Call(prompt, self.tokenizer.encode(exchange.reply, add_special_tokens=False))

    async def rates(self, cell: Cell) -> Rates:
        """See this module's docstring."""
        client, banned = self.servers["plain"].client, self.tokenizer.all_special_ids

        def fresh() -> Sequence[Job]:
            prompts = self.prompts.fresh(cell.prompt_tokens, cell.programs)
            return [Job(prompt, FIXED, 1_000 * number, banned) for number, prompt in enumerate(prompts)]

        async def reply(job: Job, max_tokens: int) -> int:
            messages = [{"role": "user", "content": job.prompt}]
            return (await complete(client, messages, {**text_sampling(job, 0), "max_tokens": max_tokens})).prompt_tokens

        async def all_at_once(jobs: Sequence[Job], max_tokens: int) -> tuple[float, int]:
            started = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(reply(job, max_tokens)) for job in jobs]
            return time.perf_counter() - started, sum(task.result() for task in tasks)

        batches = [fresh() for _ in range(max(1, PREFILL_TOKENS // (cell.prompt_tokens * cell.programs)))]
        prefilling, prompt_tokens = zip(*[await all_at_once(jobs, 1) for jobs in batches], strict=True)
        cached, _ = await all_at_once(batches[-1], 1)
        decoding, _ = await all_at_once(batches[-1], 1 + DECODE_STEPS)
        prefill, decode = sum(prompt_tokens) / sum(prefilling), cell.programs * DECODE_STEPS / (decoding - cached)
        return Rates(cell, prefill, decode)


def floor(wave: Wave, rates: Iterable[Rates]) -> float:
    """The wave's floor in seconds, by the medians of its cell's rates."""
    of_cell = [each for each in rates if each.cell == wave.key.cell]
    prefill = median(each.prefill for each in of_cell)
    decode = median(each.decode for each in of_cell)
    return wave.account.never_seen / prefill + wave.counted.decoded / decode


def _difference(before: Mapping[str, float], after: Mapping[str, float]) -> Counted:
    def grown(name: str) -> int:
        return round(after.get(name, 0.0) - before.get(name, 0.0))

    return Counted(
        calls=grown("vllm:request_success_total"),
        prompt_tokens=grown("vllm:prompt_tokens_total"),
        cached=grown("vllm:prefix_cache_hits_total"),
        generated=grown("vllm:generation_tokens_total"),
        preemptions=grown("vllm:num_preemptions_total"),
    )
