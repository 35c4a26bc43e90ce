"""A budget is a bound, and a deadline returns what there is: over random programs of every preset."""

import asyncio
import itertools
import random
from collections.abc import Iterator
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engines.base import Sample, Sampling, Usage
from service.engines.scripted import Script
from service.errors import DeadlineExceeded, InvalidRequest
from service.evaluators.base import Evaluator
from service.evaluators.model.perplexity import Perplexity
from service.refinement.events import Refined
from service.refinement.loop import LAST_SECONDS, refine
from service.refinement.program import PRESETS, Refine, Search
from service.refinement.roles import Roles
from service.wire.responses import total
from tests.support.scripts import FOAM, JUDGE, SALT, BilledEngine, Lines, program
from tests.support.virtual_time import run_in_virtual_time

WORDS = ("waves", "salt", "foam", "are", "tall.", "and", "The", "sea,")
VERIFIERS: tuple[Evaluator, ...] = (SALT, FOAM)

examples = settings(max_examples=600, deadline=None)
draws = st.integers(0, 2**32)


def chattering(draws: random.Random, **script: Any) -> BilledEngine:
    """An engine whose texts have between 1 and 60 words, and whose critics find something half of the time."""
    lines = Lines(
        draft=list(texts(draws, 8)), revise=list(texts(draws, 8)), critique=[["Longer."], [], '{"issues": ["A']
    )
    return BilledEngine(Script(reply=lines.reply, weights=lambda call: weights(draws, len(call.options)), **script))


def texts(draws: random.Random, count: int) -> Iterator[str]:
    for _ in range(count):
        yield " ".join(draws.choices(WORDS, k=draws.choice((1, 5, 20, 60))))


def weights(draws: random.Random, options: int) -> list[float]:
    shares = [draws.random() for _ in range(options)]
    return [share / sum(shares) for share in shares]


def random_program(draws: random.Random, **budget: float | int | None) -> Refine:
    search = replace(draws.choice(list(PRESETS.values())), rounds=draws.choice((0, 1, 3)))
    if draws.random() < 0.3:
        search = replace(search, drafts=draws.choice((1, 3, 16)), critic=draws.choice(("auto", "factored", "none")))
    evaluators: list[Evaluator] = [evaluator for evaluator in VERIFIERS if draws.random() < 0.5]
    if search.select == "score" and draws.random() < 0.7:
        evaluators.append(JUDGE)
    if search.select == "score" and draws.random() < 0.2:
        evaluators.append(Perplexity())
    return program(
        *evaluators,
        search=search,
        sampling=Sampling(max_tokens=draws.choice((1, 10, 50, 100))),
        principles=("Be brief.",) if draws.random() < 0.2 else (),
        **budget,
    )


async def run(refinement: Refine, engine: BilledEngine) -> Refined:
    async with aclosing(refine(refinement, Roles.single(engine))) as events:
        *_, last = [event async for event in events]
    assert isinstance(last, Refined)
    assert engine.in_flight == 0
    return last


@examples
@given(draws)
def test_no_program_spends_more_than_its_budget(seed: int) -> None:
    draws = random.Random(seed)
    tokens, calls = draws.randint(6, 600), draws.choice((None, draws.randint(1, 30)))
    engine = chattering(draws, seconds_per_call=draws.choice((0.0, 0.1)), seconds_per_token=draws.choice((0.0, 0.01)))

    async def spent() -> Refined:
        return await run(random_program(draws, tokens=tokens, calls=calls), engine)

    done = run_in_virtual_time(spent())

    usage = total(done.usage)
    assert usage.tokens <= tokens
    assert calls is None or usage.calls <= calls
    assert total(engine.bill) == usage
    assert len(engine.calls) == usage.calls
    assert done.selected.text


@examples
@given(draws)
def test_no_deadline_loses_what_was_written_and_none_is_missed(seed: int) -> None:
    draws = random.Random(seed)
    seconds = draws.choice((0.05, 0.5, 2.0, 5.0)) * draws.random()
    engine = chattering(draws, seconds_per_call=draws.choice((0.0, 0.1)), seconds_per_token=draws.choice((0.001, 0.05)))

    async def ended() -> tuple[Refined | None, float]:
        done = None
        with suppress(DeadlineExceeded):
            done = await run(random_program(draws, seconds=seconds), engine)
        return done, asyncio.get_running_loop().time()

    done, at = run_in_virtual_time(ended())

    written = total(engine.bill).completion_tokens
    assert (done is None) == (written == 0)
    assert at <= seconds + LAST_SECONDS
    if done is not None:
        assert done.selected.text
        assert total(done.usage).completion_tokens == written


@pytest.mark.parametrize("tokens", range(1, 6))
async def test_a_budget_too_small_for_one_token_names_the_tokens_that_are_needed(tokens: int) -> None:
    with pytest.raises(InvalidRequest, match="the prompt may take up to 5 tokens, so at least 6") as wrong:
        await run(program(SALT, tokens=tokens), chattering(random.Random(1)))

    assert [error.field for error in wrong.value.errors] == ["budget.tokens"]


async def test_drafts_keep_their_length_and_as_many_are_written_as_fit() -> None:
    engine = chattering(random.Random(1))
    numbers = itertools.count()
    engine.script = replace(engine.script, reply=lambda call: " ".join(["salt"] * 20) + f" {next(numbers)}")

    done = await run(
        program(FOAM, search=Search(drafts=16, rounds=0), sampling=Sampling(max_tokens=100), tokens=400), engine
    )

    # 5 + 21 tokens each: 15 fit, and the tokens that are left do not begin one that would be cut.
    assert done.stop_reason == "budget"
    assert len(done.rounds[0].candidates) == 15
    assert {candidate.completion.finish_reason for candidate in done.rounds[0].candidates} == {"stop"}
    assert [call.sampling.max_tokens for call in engine.calls_of(Sample)] == [100] * 12 + [83, 57, 31]
    assert total(done.usage) == Usage(15, 75, 0, 315)
