"""Which waves run, and what is counted of them."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import psutil
import pytest

from bench.harness.servers import Server
from bench.performance.prompts import Prompts
from bench.performance.results import Cell, Key, Results
from bench.performance.waves import Bench, Plan, PromptsDiffer, Served
from tests.bench.performance.stand_ins import (
    CELL,
    ORIGIN,
    Characters,
    open_client,
)


@dataclass
class PlainServer:
    """A chat server with vLLM's counters. ``misread``: prompt tokens that it reports beyond those that it was sent."""

    misread: int = 0
    served: int = 0
    tokenizer: Characters = field(default_factory=Characters)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.served += 1
        text = self.tokenizer.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
        usage = {"prompt_tokens": len(text) + self.misread}
        return httpx.Response(200, json={"choices": [{"message": {"content": "ab"}}], "usage": usage})


@dataclass(frozen=True)
class CountingServer(Server):
    """Counts the calls of a PlainServer; 10 tokens of each are cached."""

    plain: PlainServer = field(default_factory=PlainServer)

    async def counters(self) -> dict[str, float]:
        calls = float(self.plain.served)
        return {"vllm:request_success_total": calls, "vllm:prefix_cache_hits_total": 10 * calls}


def bench(plain: PlainServer, file: Path) -> Bench:
    results = Results(file)
    results.begin(ORIGIN)
    server = CountingServer("http://server", psutil.Process(), plain)
    return Bench({"plain": Served(server, open_client(plain))}, Prompts(Characters()), Characters(), results)


def test_each_repetition_begins_with_another_arm() -> None:
    plan = Plan([CELL], 2, ["fixed", "natural"], ["textbook", "redraft", "beam"])
    assert [(key.lengths, key.arm) for key in plan.waves(CELL, 1)] == [
        ("fixed", "redraft"),
        ("fixed", "textbook"),
        ("natural", "redraft"),
        ("natural", "beam"),
        ("natural", "textbook"),
    ]
    assert plan.servers == {"plain", "redraft"}


async def test_what_is_there_already_is_not_run_again(tmp_path: Path) -> None:
    plain = PlainServer()
    running = bench(plain, tmp_path / "performance.jsonl")
    plan = Plan([Cell(200, 2)], 1, ["fixed"], ["textbook", "one_chat"])
    await running.complete(plan)
    waves, rates = running.results.waves(), running.results.rates()
    assert [wave.key.arm for wave in waves] == ["textbook", "one_chat"]
    assert len(rates) == 2
    served = 2 * 2 * 5 + 2 * 2 * (4096 // 400 + 2)
    assert plain.served == served
    await running.complete(plan)
    assert running.results.waves() == waves
    assert plain.served == served
    await running.complete(replace(plan, repetitions=2))
    assert [wave.key.repetition for wave in running.results.waves()] == [0, 0, 1, 1]


async def test_a_client_loops_account_is_made_of_its_messages_and_the_servers_count(tmp_path: Path) -> None:
    running = bench(PlainServer(), tmp_path / "performance.jsonl")
    found = await running.wave(Key(Cell(200, 2), 0, "fixed", "one_chat"), 0)
    assert (found.account.calls, found.account.cached) == (10, 100)
    assert found.counted.calls == 10
    assert len(found.seconds) == 2
    assert 0 < max(found.seconds) <= found.wall


async def test_a_prompt_that_the_server_read_otherwise_is_an_error(tmp_path: Path) -> None:
    running = bench(PlainServer(misread=1), tmp_path / "performance.jsonl")
    with pytest.raises(PromptsDiffer):
        await running.wave(Key(Cell(200, 1), 0, "fixed", "one_chat"), 0)
