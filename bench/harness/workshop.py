"""A folder of learning with the model that the settings name, for benchmarks of learning."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from service.engines.local.vllm import VllmEngine
from service.fleet import start_engine, weights_of
from service.learning.workshop import Workshop
from service.settings import Settings


def open_workshop(folder: Path) -> Workshop:
    """The workshop of a folder. TypeError if the model is not on this machine."""
    settings = Settings()
    base = weights_of(settings, settings.model_name)
    if isinstance(base, str):
        raise TypeError("the model's weights have to be on this machine")
    return Workshop(folder, base[0])


@asynccontextmanager
async def engine_for(folder: Path) -> AsyncIterator[VllmEngine]:
    """An engine with room for the adapters of a folder. TypeError if the engine takes no adapters."""
    engine = await start_engine(Settings().model_copy(update={"learning_dir": folder}))
    try:
        if not isinstance(engine, VllmEngine):
            raise TypeError("adapters need the engine vllm in this process")
        yield engine
    finally:
        await engine.close()
