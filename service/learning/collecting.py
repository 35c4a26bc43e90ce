"""Collecting texts for prompts from a model, as the material of lessons.

For each prompt the model writes some texts freely. If none of them passes, code repairs what it can, and the model
writes some more under the rules' grammar. So there are texts to imitate also for rules that the model never follows by
itself.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence

from service.concurrency import SerialThread, gather
from service.engines.base import Completion, Engine, Sample, Sampling, engine_seed
from service.engines.siblings import sample_siblings
from service.errors import InvalidRequest
from service.learning.collected import Collected, Text
from service.learning.prompts import Prompt
from service.learning.recipe import Collecting
from service.refinement.branching import Expansion
from service.refinement.constraining import Constraining
from service.refinement.repairs import repair

AT_ONCE = 16
"""Prompts that are worked on at the same time."""


async def collect(
    engine: Engine,
    prompts: Sequence[Prompt],
    recipe: Collecting,
    seed: int,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Sequence[Collected]:
    """Collect texts for prompts, whose rules can all be checked by a text alone.

    When the recipe's time is over, the prompts that have not begun are left out.

    on_progress: given the number of prompts that are done. Raises what the engine raises.
    """
    collector = _Collector(engine, recipe, seed)
    done = 0
    deadline = math.inf if recipe.seconds is None else time.monotonic() + recipe.seconds
    free = asyncio.Semaphore(AT_ONCE)

    async def work(number: int, prompt: Prompt) -> Collected | None:
        nonlocal done
        async with free:
            if time.monotonic() >= deadline:
                return None
            found = await collector.collect(number, prompt)
        done += 1
        on_progress(done)
        return found

    found = await gather(work(number, prompt) for number, prompt in enumerate(prompts))
    return [each for each in found if each is not None]


class _Collector:
    def __init__(self, engine: Engine, recipe: Collecting, seed: int) -> None:
        self._engine = engine
        self._recipe = recipe
        self._seed = seed
        self._thread = SerialThread()

    async def collect(self, number: int, prompt: Prompt) -> Collected:
        sampling = Sampling(
            temperature=self._recipe.temperature,
            max_tokens=self._recipe.max_tokens,
            seed=engine_seed(self._seed * 1_000_003 + number * 100),
        )
        free = await sample_siblings(self._engine, Sample(prompt.conversation, sampling), self._recipe.samples)
        texts = [_text(completion) for completion in free]
        if prompt.verifiers and not any(prompt.verify(text.text).passed for text in texts):
            texts += await self._thread.run(_repairs, prompt, texts)
            texts += [text async for text in self._constrained(prompt, sampling)]
        return Collected(prompt=prompt, texts=tuple(texts))

    async def _constrained(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Text]:
        """Texts under the rules' grammar, if there is one and the engine can sample under it."""
        if not self._recipe.constrained or not self._engine.takes_grammars:
            return
        sampling = sampling.sibling(self._recipe.samples)
        constraining = Constraining(prompt.verifiers or (), "always", sampling, self._engine, self._thread)
        compiled = await constraining.of(Expansion("redraft"))
        if compiled is None or not compiled.grammar or not compiled.enforced:
            return
        sample = Sample(prompt.conversation, sampling, grammar=compiled.grammar, given=compiled.given_prefix)
        try:
            for completion in await sample_siblings(self._engine, sample, self._recipe.constrained):
                yield Text(text=completion.text, source="constrained", finish_reason=completion.finish_reason)
        except InvalidRequest:  # the decoder refuses the grammar
            return


def _repairs(prompt: Prompt, texts: Sequence[Text]) -> list[Text]:
    """The repaired texts, of those that ended by themselves or whose last sentence could go."""
    found = []
    for index, text in enumerate(texts):
        made = repair(text.text, prompt.verifiers or (), unfinished=text.finish_reason == "length")
        if made.text is not None and prompt.verify(made.text).passed:
            found.append(Text(text=made.text, source="repair", parent=index))
    return found


def _text(completion: Completion) -> Text:
    return Text(
        text=completion.text,
        source="free",
        finish_reason=completion.finish_reason,
        token_ids=completion.token_ids,
    )
