"""The record of an engine's calls."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from bench.performance.account import BLOCK_TOKENS, Account
from bench.performance.lengths import NEVER
from bench.performance.recording import Recorder
from tests.bench.performance.stand_ins import (
    make_tokens,
)


@dataclass
class Parameters:
    max_tokens: int
    structured_outputs: object = None
    logit_bias: dict[int, float] | None = None


@dataclass
class Reply:
    token_ids: list[int]


@dataclass
class Output:
    prompt_token_ids: list[int]
    outputs: list[Reply]
    num_cached_tokens: int | None = None
    finished: bool = True


async def generate(prompt: Sequence[int], params: Parameters, request_id: str) -> AsyncGenerator[Output, None]:
    yield Output(list(prompt), [Reply([500, 501])], num_cached_tokens=BLOCK_TOKENS)


async def replied(recorder: Recorder, prompt: Sequence[int], params: Parameters) -> None:
    """As the service's engine reads a call that has one output: it closes the stream after it."""
    async with aclosing(recorder.recording(generate)(prompt, params, "id")) as outputs:
        await anext(outputs)


async def test_it_accounts_for_the_calls_since_it_began() -> None:
    recorder = Recorder()
    await replied(recorder, make_tokens(70), Parameters(120))
    await recorder.begin(fixed=False)
    await replied(recorder, make_tokens(40), Parameters(120))
    await replied(recorder, [*make_tokens(40), 500, 8], Parameters(1))
    assert await recorder.account() == Account(2, 82, 2 * BLOCK_TOKENS, never_seen=41, rounding=9)


async def test_natural_lengths_leave_a_call_as_it_is() -> None:
    recorder = Recorder(bias={2: NEVER})
    await replied(recorder, make_tokens(3), wanted := Parameters(160, structured_outputs="a schema"))
    assert wanted == Parameters(160, structured_outputs="a schema")


async def test_fixed_lengths_change_texts_and_critiques_but_no_judge_call() -> None:
    recorder = Recorder(bias={2: NEVER})
    await recorder.begin(fixed=True)
    text, critique, judge = Parameters(120), Parameters(160, structured_outputs="a schema"), Parameters(1)
    for params in (text, critique, judge):
        await replied(recorder, make_tokens(3), params)
    assert text == Parameters(120, logit_bias={2: NEVER})
    assert critique == Parameters(60, structured_outputs=None, logit_bias={2: NEVER})
    assert judge == Parameters(1)
