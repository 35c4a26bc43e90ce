"""An adapter changes its own texts and no others, even in the same steps of the engine."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import pytest
import pytest_asyncio

from service.concurrency import gather
from service.engines.base import Completion, Likelihood, Sample, Sampling, Weigh
from service.engines.conversation import Conversation, Turn
from service.engines.local import bundled
from service.engines.local.vllm import VllmEngine
from service.engines.served import AdapterRoom, AdapterUnusable
from service.refinement.events import Refined, Tried
from service.refinement.loop import refine
from service.refinement.program import Search
from service.refinement.roles import Roles
from tests.real.conftest import UNCOUNTED
from tests.real.test_models import write_adapter
from tests.refinement.test_roles import told
from tests.support.scripts import SALT, of_type, program

TEXT = Weigh(Conversation(Turn("user", "What falls from clouds?")), "Rain falls from the clouds, and so does snow.")

LONG_REQUEST = Conversation(Turn("user", "Tell of the sea and of its salt, as a sailor would. " * 12))

ROUNDING = 0.2
"""By how many nats the shape of a batch may change a probability."""

Models = tuple[VllmEngine, VllmEngine]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def models(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Models, None]:
    """The model alone and with an adapter, in an engine that was started for that adapter and for two more to come."""
    checkpoint = await asyncio.to_thread(bundled.prepare)
    folder = write_adapter(tmp_path_factory.mktemp("adapters") / "tilted", checkpoint)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        room = AdapterRoom(places=2, rank=8, layers=frozenset({"q_proj", "v_proj"}))
        base = await VllmEngine.start(str(checkpoint), "base", UNCOUNTED, [folder], room=room)
    try:
        yield base, await base.load_adapter("tilted", folder)
    finally:
        await base.close()


async def test_a_text_weighs_the_same_while_an_adapter_writes(models: Models) -> None:
    """Weights are compared instead of greedy texts: those also change with the number of requests in a step."""
    plain, adapted = [await model.call(TEXT) for model in models]
    assert difference(plain, adapted) > 1.0

    async with writing(models):
        meanwhile = [await model.call(TEXT) for model in models]

    assert difference(plain, meanwhile[0]) < ROUNDING
    assert difference(adapted, meanwhile[1]) < ROUNDING


async def test_64_requests_of_both_in_one_batch_write_what_each_model_writes_apart(models: Models) -> None:
    """Other shapes may be computed in another order, so a token that is nearly tied may tip. Every other one is the
    same."""
    prompts = [Conversation(Turn("user", f"Say one thing about {number}.")) for number in range(64)]

    async def write(numbers: Iterable[int]) -> list[Completion]:
        sampling = Sampling(temperature=0.0, max_tokens=6)
        return await gather(models[number % 2].call(Sample(prompts[number], sampling)) for number in numbers)

    mixed = await write(range(64))
    apart = [await write(range(0, 64, 2)), await write(range(1, 64, 2))]

    for number, text in enumerate(mixed):
        other = apart[number % 2][number // 2]
        if text.token_ids != other.token_ids:
            assert await lead_of_tipped(models[number % 2], prompts[number], text, other) < ROUNDING


async def lead_of_tipped(model: VllmEngine, prompt: Conversation, text: Completion, other: Completion) -> float:
    """By how many nats the model, alone, has a favourite over the token from which on a text differs from another."""
    weighed, known = [await model.call(Weigh(prompt, each.text)) for each in (text, other)]
    same = takewhile(lambda both: both[0].text == both[1].text, zip(weighed.tokens, known.tokens, strict=False))
    tipped = weighed.tokens[len(list(same))]
    return tipped.rival_logprob - tipped.logprob


async def test_adapters_come_and_go_while_others_write(models: Models, tmp_path: Path) -> None:
    base, _ = models
    checkpoint = await asyncio.to_thread(bundled.prepare)
    before = [await model.call(TEXT) for model in models]
    async with writing(models):
        for seed in range(2, 7):  # more than there are slots
            late = await base.load_adapter(f"late {seed}", write_adapter(tmp_path / str(seed), checkpoint, seed))
            weighed = await late.call(TEXT)
            assert all(difference(weighed, known) > 1.0 for known in before)
            await base.drop_adapter(late)
        after = [await model.call(TEXT) for model in models]

    assert difference(before[0], after[0]) < ROUNDING
    assert difference(before[1], after[1]) < ROUNDING


async def test_an_adapter_that_does_not_fit_is_refused_and_takes_no_place(models: Models, tmp_path: Path) -> None:
    base, _ = models
    checkpoint = await asyncio.to_thread(bundled.prepare)
    before = await base.call(TEXT)
    (tmp_path / "empty").mkdir()
    for number in range(3):
        wrong = write_adapter(tmp_path / str(number), checkpoint, width=1024)
        with pytest.raises(AdapterUnusable, match="vLLM cannot load the adapter"):
            await base.load_adapter("wrong", wrong)
    with pytest.raises(AdapterUnusable, match="vLLM cannot load the adapter"):
        await base.load_adapter("empty", tmp_path / "empty")
    right = await base.load_adapter("right", write_adapter(tmp_path / "right", checkpoint, seed=3))

    assert difference(await right.call(TEXT), before) > 1.0
    assert difference(await base.call(TEXT), before) < ROUNDING
    await base.drop_adapter(right)


@asynccontextmanager
async def writing(models: Models) -> AsyncIterator[None]:
    """Have both write one story after the other meanwhile."""
    story = Sample(Conversation(Turn("user", "Tell a long story.")), Sampling(temperature=1.0, max_tokens=400, seed=1))

    async def write(model: VllmEngine) -> None:
        while True:
            await model.call(story)

    tasks = [asyncio.create_task(write(model)) for model in models]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def difference(one: Likelihood, other: Likelihood) -> float:
    """The largest difference of a token's log-probability."""
    return max(abs(left - right) for left, right in zip(one.logprobs, other.logprobs, strict=True))


async def test_drafts_of_two_voices_in_one_refine(models: Models) -> None:
    """Both write at once, the account names them, and each has its own prefix cache."""
    base, tilted = models
    stated = program(SALT, search=Search(drafts=4, rounds=0, constraints="off", aborts=False), id="ref_canary")
    asked = replace(stated, request=LONG_REQUEST, sampling=Sampling(temperature=1.0, max_tokens=24, seed=5))
    found = [await told(refine(asked, Roles(base, base, base, tilted))) for _ in range(2)]

    for events in found:
        [done] = of_type(events, Refined)
        drafts = [draft for draft in done.rounds[0].candidates if draft.form == "draft"]
        assert sorted(str(draft.model) for draft in drafts) == ["base", "base", "tilted", "tilted"]
        texts = {model: {draft.text for draft in drafts if draft.model == model} for model in ("base", "tilted")}
        assert not texts["base"] & texts["tilted"]
        assert [(tried.candidate, tried.writer) for tried in of_type(events, Tried)] == [("tilted", "base")]
        prompts = {draft.completion.usage.prompt_tokens for draft in drafts}
        assert len(prompts) == 1
        assert done.usage["draft"].prompt_tokens == 4 * prompts.pop()
    again = [draft for draft in of_type(found[1], Refined)[0].rounds[0].candidates if draft.form == "draft"]
    assert all(draft.completion.usage.cached_tokens > 0 for draft in again)
