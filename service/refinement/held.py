"""Finished texts are held against the form that they were asked for."""

import asyncio
from concurrent.futures import Executor

from service.errors import FormNotKept
from service.refinement.program import TextForm


async def hold(text: str, form: TextForm | None, threads: Executor | None) -> None:
    """Raises FormNotKept where a finished text is not what its form asks for."""
    if form is not None:
        fault = await asyncio.get_running_loop().run_in_executor(threads, form.misfit, text)
        if fault is not None:
            raise FormNotKept(f"the engine wrote a text that does not fit the schema: {fault}")
