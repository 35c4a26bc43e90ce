"""Budgets and deadlines on the real engine: nothing is overspent, nothing that was written is lost or uncounted."""

import asyncio
import random
from dataclasses import dataclass, replace

from service.concurrency import gather
from service.engines.base import FinishReason, Sample, Sampling, Usage
from service.engines.conversation import Conversation, Turn
from service.engines.local.vllm import VllmEngine
from service.errors import DeadlineExceeded
from service.refinement.accounting import Ledger, MeteredEngine
from service.refinement.events import Refined
from service.refinement.loop import refine
from service.refinement.program import PRESETS, Budget, Refine
from service.refinement.roles import Roles
from service.refinement.writing import write_text
from service.wire.responses import total
from tests.real.conftest import Service
from tests.support.scripts import FOAM, JUDGE, SALT, program

LONG = Sampling(temperature=1.0, max_tokens=30, landing=True)


def random_program(draws: random.Random, preset: str, **budget: float | int) -> Refine:
    search = replace(PRESETS[preset], rounds=min(1, PRESETS[preset].rounds))
    evaluators = [SALT, FOAM] if search.select != "score" else [SALT, FOAM, JUDGE]
    return program(*evaluators, search=search, sampling=LONG, **budget)


async def run(asked: Refine, engine: VllmEngine) -> Refined | None:
    try:
        *_, done = [event async for event in refine(asked, Roles.single(engine))]
    except DeadlineExceeded:
        return None
    assert isinstance(done, Refined)
    return done


async def test_no_refine_spends_more_than_its_budget(engine: VllmEngine) -> None:
    draws = random.Random(3)
    budgets = {preset: draws.randint(50, 500) for preset in PRESETS}

    done = await gather(
        run(random_program(draws, preset, tokens=tokens, seconds=280.0), engine) for preset, tokens in budgets.items()
    )

    for (preset, tokens), account in zip(budgets.items(), done, strict=True):
        assert account is not None, preset
        assert 0 < total(account.usage).tokens <= tokens, preset
    assert any(account.stop_reason == "budget" for account in done if account)


async def test_what_deadlines_cut_is_returned_and_the_account_is_the_engines(service: Service) -> None:
    engine = service.engine.engine
    draws = random.Random(4)
    before = await service.engine_series()

    done = await gather(
        run(random_program(draws, preset, seconds=draws.uniform(0.5, 5.0)), engine)
        for preset in ("best_of_n", "vote", "self_refine", "reflexion")
    )

    after = await service.engine_series()
    written = sum(total(account.usage).completion_tokens for account in done if account)
    assert written == after["vllm:generation_tokens_total"] - before.get("vllm:generation_tokens_total", 0.0)
    assert all(account.selected.completion.usage.completion_tokens for account in done if account)


@dataclass
class Leaving:
    """Ends a text after some pieces."""

    pieces: int
    finish_reason: FinishReason = "landed"

    def feed(self, piece: str, share: float) -> int | None:
        self.pieces -= 1
        return None if self.pieces else 0


async def test_texts_that_are_cut_cost_what_the_engine_sampled(service: Service) -> None:
    engine = service.engine.engine
    asked = Conversation(Turn("user", "Tell a long story about the sea."))
    before = await service.engine_series()
    ledger = Ledger(Budget(deadline=asyncio.get_running_loop().time() + 300), lambda event: None)
    writer = MeteredEngine(engine, "draft", ledger)

    sample = Sample(asked, Sampling(temperature=1.0, max_tokens=100))
    await gather(write_text(writer, sample, lambda text: None, watchers=[Leaving(at % 5 + 1)]) for at in range(20))

    after = await service.engine_series()
    spent = ledger.usage.get("draft", Usage())
    assert spent.calls == 20
    assert spent.completion_tokens == after["vllm:generation_tokens_total"] - before["vllm:generation_tokens_total"]
    assert spent.prompt_tokens == after["vllm:prompt_tokens_total"] - before["vllm:prompt_tokens_total"]
    assert service.unfinished() == 0
