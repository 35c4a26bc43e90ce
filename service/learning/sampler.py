"""The service's own engine as the sampler of reinforcement learning, in the training process.

The engine holds the base's weights. Before each step it loads the adapter as the trainer has left it, under a name of
its own, because vLLM keeps what it knows of a name. So the samples always come from the weights that learn from them.
"""

import asyncio
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from service.concurrency import gather
from service.engines.base import Completion, Sample, Sampling, engine_seed
from service.engines.local.vllm import VllmEngine
from service.learning.exercises import Exercise
from service.learning.recipe import Trying

Save = Callable[[Path], None]
"""Writes the adapter into a folder, which does not exist yet."""


class Sampler(AbstractContextManager["Sampler"]):
    """An engine that writes with the newest weights, for a caller without an event loop.

    base: the folder of the model. folder: for the adapters, which come and go. save: writes the one of now.
    arguments: of the engine, as vLLM's AsyncEngineArgs has them.

    Entering starts the engine, leaving stops it. Both, and sampling, raise what the engine raises.
    """

    def __init__(self, base: Path, folder: Path, save: Save, seed: int, arguments: Mapping[str, Any]) -> None:
        self._base = base
        self._folder = folder
        self._save = save
        self._seed = seed
        self._arguments = arguments
        self._runner = asyncio.Runner()
        self._step = 0

    def __enter__(self) -> "Sampler":
        try:
            self._engine = self._runner.run(self._start())
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._runner.run(self._engine.close())
        finally:
            self._runner.close()

    def sample(self, exercises: Sequence[Exercise], trying: Trying) -> Sequence[Completion]:
        """A text for each exercise, in their order. One that comes several times gets several texts."""
        return self._runner.run(self._sample(exercises, trying))

    async def _start(self) -> VllmEngine:
        newest = self._write()
        return await VllmEngine.start(str(self._base), "base", self._arguments, [newest])

    async def _sample(self, exercises: Sequence[Exercise], trying: Trying) -> Sequence[Completion]:
        newest = self._write()
        adapter = await self._engine.load_adapter(newest.name, newest)
        try:
            return await gather(
                adapter.call(Sample(exercise.prompt.conversation, self._sampling(trying, number)))
                for number, exercise in enumerate(exercises)
            )
        finally:
            await self._engine.drop_adapter(adapter)

    def _sampling(self, trying: Trying, number: int) -> Sampling:
        seed = engine_seed((self._seed * 1_000_003 + self._step) * 1_000_003 + number)
        return Sampling(trying.temperature, max_tokens=trying.max_tokens, seed=seed, thinking=False)

    def _write(self) -> Path:
        """Write the adapter in the place of the last one."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._step += 1
        folder = self._folder / f"step-{self._step}"
        self._save(folder)
        return folder
