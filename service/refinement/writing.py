"""Writing a text: the one place where the stream of a candidate, or of a caller's text, is read.

A text that is cut in the middle is kept as far as it came, whatever cuts it: the deadline, or a failure of the engine.
"""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace

from service.engines.base import Completion, FinishReason, Sample, Thought
from service.errors import EngineUnavailable
from service.refinement.accounting import MeteredEngine

PIECE_TOKENS = 8
"""The tokens of a piece, where nobody reads along."""

Keep = Callable[[Completion], None]
Show = Callable[[str | Thought], None]


async def write_text(engine: MeteredEngine, sample: Sample, keep: Keep, show: Show | None = None) -> None:
    """Write a text.

    - ``keep``: given the text once, whole or as far as it came
    - ``show``: given each piece as it is written, for a caller who reads along

    TimeIsUp at the deadline, and whatever the engine raises. If a token was written by then, ``keep`` has been called.
    """
    unfinished: list[Completion] = []
    cut_by: FinishReason = "deadline"
    try:
        async with engine.ledger.in_time():
            keep(await _read(engine, sample, unfinished.append, show))
    except EngineUnavailable:
        cut_by = "engine_failed"
        raise
    finally:
        for completion in unfinished[-1:]:
            keep(replace(completion, finish_reason=cut_by))


async def _read(engine: MeteredEngine, sample: Sample, on_cut: Keep, show: Show | None) -> Completion:
    interval = PIECE_TOKENS if show is None else 1
    async with aclosing(engine.stream(sample, interval=interval, on_cut=on_cut)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Completion):
                return piece
            if show is not None:
                show(piece)
    raise RuntimeError("the engine ended a stream without its completion")
