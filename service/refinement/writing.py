"""Writing a text: the one place where the stream of a candidate, or of a caller's text, is read.

A text that is cut in the middle is kept as far as it came, whatever cuts it: the deadline, a failure of the engine, or
a watcher that has seen enough.
"""

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from service.engines.base import Completion, FinishReason, Reading, Sample, Thought
from service.errors import Cancelled, EngineUnavailable
from service.refinement.accounting import MeteredEngine

PIECE_TOKENS = 8
"""The tokens of a piece, unless somebody wants them one by one."""

Keep = Callable[[Completion], None]
Show = Callable[[str | Thought], None]
Begin = Callable[[], Show]
"""Called before each text that is shown: gives what its pieces are shown to."""


class Watcher(Protocol):
    """Watches a text while it is written, and may end it."""

    def feed(self, piece: str, share: float) -> int | None:
        """Take a piece of the text, by which the text has used that share of its tokens. Where to end the text, as the
        number of its characters, or None to go on."""

    @property
    def finish_reason(self) -> FinishReason:
        """That of a text that it ended."""


async def write_text(
    engine: MeteredEngine,
    sample: Sample,
    keep: Keep,
    show: Show | None = None,
    watchers: Sequence[Watcher] = (),
    *,
    piece_tokens: int = PIECE_TOKENS,
) -> None:
    """Write a text.

    - ``keep``: given the text once, whole or as far as it came
    - ``show``: given each piece as it is written, for a caller who reads along
    - ``watchers``: read along too; the first one that ends the text decides
    - ``piece_tokens``: the tokens of a piece. Watchers that see other pieces may end a text elsewhere.

    TimeIsUp at the deadline, and whatever the engine raises. If a token was written by then, ``keep`` has been called.
    """
    unfinished: list[Completion] = []
    cut_by: FinishReason = "deadline"
    end: int | None = None
    try:
        async with engine.ledger.in_time():
            found = await _read(engine, sample, unfinished.append, show, watchers, piece_tokens)
        if isinstance(found, Completion):
            keep(found)
        else:
            end, cut_by = found
    except EngineUnavailable as error:
        cut_by = "cancelled" if isinstance(error, Cancelled) else "engine_failed"
        raise
    finally:
        for completion in unfinished[-1:]:
            keep(end_at(end, completion, cut_by))


def end_at(end: int | None, completion: Completion, reason: FinishReason) -> Completion:
    """The completion, of which only so many characters are kept. Its token ids are then unknown."""
    if end is None or end >= len(completion.text):
        return replace(completion, finish_reason=reason)
    return replace(completion, text=completion.text[:end], token_ids=None, finish_reason=reason)


async def _read(
    engine: MeteredEngine,
    sample: Sample,
    on_cut: Keep,
    show: Show | None,
    watchers: Sequence[Watcher],
    piece_tokens: int,
) -> Completion | tuple[int, FinishReason]:
    """The whole text, or the place where a watcher ended it, with its reason."""
    share = 0.0

    def progress(used: float) -> None:
        nonlocal share
        share = used

    written, whole = 0, None
    reading = Reading(piece_tokens, progress, on_cut)
    async with aclosing(engine.stream(sample, reading=reading)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Completion):
                whole = piece
                continue  # to the end of the stream: one that is left early counts as cancelled
            ended = _ask(watchers, piece, share) if isinstance(piece, str) else None
            if ended is not None and isinstance(piece, str):
                piece = piece[: max(0, ended[0] - written)]
            if show is not None and piece:
                show(piece)
            if ended is not None:
                return ended
            written += len(piece) if isinstance(piece, str) else 0
    if whole is None:
        raise RuntimeError("the engine ended a stream without its completion")
    return whole


def _ask(watchers: Sequence[Watcher], piece: str, share: float) -> tuple[int, FinishReason] | None:
    """Where the first watcher that ends the text does so, and its reason."""
    for watcher in watchers:
        if (end := watcher.feed(piece, share)) is not None:
            return end, watcher.finish_reason
    return None
