"""An adapter changes its own texts and no others, even in the same steps of the engine."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from service.engines.base import Likelihood, Sample, Sampling, Weigh
from service.engines.conversation import Conversation, Turn
from service.engines.local import bundled
from service.engines.local.vllm import VllmEngine
from tests.real.test_models import write_adapter

TEXT = Weigh(Conversation(Turn("user", "What falls from clouds?")), "Rain falls from the clouds, and so does snow.")

Models = tuple[VllmEngine, VllmEngine]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def models(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Models, None]:
    """The model alone and with an adapter, in an engine that was started for that one adapter."""
    checkpoint = await asyncio.to_thread(bundled.prepare)
    folder = write_adapter(tmp_path_factory.mktemp("adapters") / "tilted", checkpoint)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        base = await VllmEngine.start(str(checkpoint), "base", {}, [folder])
    try:
        yield base, await base.load_adapter("tilted", folder)
    finally:
        await base.close()


async def test_a_text_weighs_the_same_while_an_adapter_writes(models: Models) -> None:
    """Weights are compared instead of greedy texts: those also change with the number of requests in a step."""
    plain, adapted = [await model.call(TEXT) for model in models]
    assert difference(plain, adapted) > 1.0

    story = Sample(Conversation(Turn("user", "Tell a long story.")), Sampling(temperature=1.0, max_tokens=400, seed=1))
    writing = [asyncio.create_task(model.call(story)) for model in models]
    try:
        beside = [await model.call(TEXT) for model in models]
        assert not any(story.done() for story in writing)
    finally:
        for task in writing:
            task.cancel()
        await asyncio.wait(writing)

    assert difference(plain, beside[0]) < 0.2
    assert difference(adapted, beside[1]) < 0.2


def difference(one: Likelihood, other: Likelihood) -> float:
    """The largest difference of a token's log-probability."""
    return max(abs(left - right) for left, right in zip(one.logprobs, other.logprobs, strict=True))
