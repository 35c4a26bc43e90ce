"""Budgets and deadlines on the real engine: nothing is overspent, nothing that was written is lost or uncounted."""

import asyncio
import math
import random
from dataclasses import dataclass, replace

from service.concurrency import gather
from service.engines.base import Choose, FinishReason, Sample, Sampling, Usage
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

SEA = "Tell a long story about the sea."
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

    spent = sum((total(account.usage) for account in done if account), Usage())
    assert (spent.prompt_tokens, spent.completion_tokens) == await counted_since(before, service)
    assert all(account.selected.completion.usage.completion_tokens for account in done if account)


async def counted_since(before: dict[str, float], service: Service) -> tuple[float, float]:
    """The tokens of prompts and of texts that the engine has counted, once it has nothing to do."""
    while service.unfinished() or await service.in_flight():
        await asyncio.sleep(0.02)
    after = await service.engine_series()
    prompts, texts = (
        after[name] - before.get(name, 0.0) for name in ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
    )
    return prompts, texts


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
    asked = Conversation(Turn("user", SEA))
    before = await service.engine_series()
    ledger = Ledger(Budget(deadline=asyncio.get_running_loop().time() + 300), lambda event: None)
    writer = MeteredEngine(engine, "draft", ledger)

    sample = Sample(asked, Sampling(temperature=1.0, max_tokens=100))
    await gather(write_text(writer, sample, lambda text: None, watchers=[Leaving(at % 5 + 1)]) for at in range(20))

    spent = ledger.usage.get("draft", Usage())
    assert spent.calls == 20
    assert (spent.prompt_tokens, spent.completion_tokens) == await counted_since(before, service)


async def test_texts_that_end_before_the_engine_has_read_their_prompts_cost_nothing(service: Service) -> None:
    engine = service.engine.engine
    before = await service.engine_series()
    ledger = Ledger(Budget(deadline=math.inf), lambda event: None)
    writer = MeteredEngine(engine, "draft", ledger)
    samples = [Sample(Conversation(Turn("user", f"{topic} {SEA}")), LONG) for topic in range(200)]

    writing = [asyncio.ensure_future(write_text(writer, sample, lambda text: None)) for sample in samples]
    while service.unfinished() < len(samples) and not any(text.done() for text in writing):
        await asyncio.sleep(0)
    for text in writing:
        text.cancel()
    await asyncio.wait(writing)

    spent = ledger.usage.get("draft", Usage())
    assert spent.calls < len(samples)
    assert (spent.prompt_tokens, spent.completion_tokens) == await counted_since(before, service)


async def test_a_choice_whose_caller_leaves_when_it_is_there_is_in_the_account(service: Service) -> None:
    engine = service.engine.engine
    before = await service.engine_series()
    ledger = Ledger(Budget(deadline=math.inf), lambda event: None)
    asked = Choose(Conversation(Turn("user", f"{SEA} Yes or no?")), ("Yes", "No"))

    choosing = asyncio.ensure_future(MeteredEngine(engine, "judge", ledger).call(asked))
    while not service.unfinished():
        await asyncio.sleep(0)
    while service.unfinished():
        await asyncio.sleep(0)
    choosing.cancel()
    await asyncio.wait([choosing])

    assert choosing.cancelled()
    spent = ledger.usage["judge"]
    assert (spent.calls, spent.prompt_tokens, spent.completion_tokens) == (1, *await counted_since(before, service))
