"""Writing a text that is watched: it is landed, stopped if it cannot get better, and replaced if it is lost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from service.engines.base import Completion, FinishReason, Sample, Usage
from service.errors import EngineUnavailable, PromptTooLong
from service.evaluators.base import Evaluator
from service.refinement.accounting import Emit, LimitReached, MeteredEngine, TimeIsUp
from service.refinement.candidate import Lost
from service.refinement.events import TextAborted
from service.refinement.landing import Landing, Rules
from service.refinement.monitors import Monitor
from service.refinement.writing import Begin, Keep, Watcher, write_text

MOST_LOST = 3
"""Texts that may be lost before the one in their place is written to its end, whatever it breaks."""
SEEDS_APART = 1_000_000
"""Between the seeds of texts that take each other's place: more than a program has siblings."""


@dataclass(frozen=True, slots=True)
class Watch:
    """How the texts of a program are stopped.

    - evaluators: the program's
    - repairs: whether code repairs the texts afterwards
    - lost: called with each text that was given up
    """

    evaluators: Sequence[Evaluator]
    repairs: bool
    lost: Callable[[Lost], None]
    emit: Emit


async def write_landing(
    engine: MeteredEngine, sample: Sample, keep: Keep, rules: Rules, *more: Watcher, begin: Begin | None = None
) -> None:
    """Write a text as ``write_text`` does. It lands if its sampling says so.

    - ``more``: others that watch it
    - ``begin``: if the text is to be shown while it is written
    """
    show = None if begin is None else begin()
    if not sample.sampling.landing:
        await write_text(engine, sample, keep, show, more)
        return
    landing = Landing(rules)
    await write_text(engine, sample, lambda text: keep(landing.trim(text)), show, [*more, landing])


async def write_watched(
    engine: MeteredEngine, sample: Sample, keep: Keep, rules: Rules, watch: Watch, begin: Begin | None = None
) -> None:
    """Write a text as ``write_landing`` does. One that is lost gives way to another, up to MOST_LOST times.

    If no other can be written, the longest is kept, as cut by what was in the way.
    """
    lost: list[Completion] = []
    bound = Usage() if engine.ledger.budget.tokens is None else await engine.upper_bound(sample)

    def may_lose(share: float) -> bool:
        unwritten = int(bound.completion_tokens * (1 - share))
        varied = len(lost) < MOST_LOST and sample.sampling.temperature > 0
        return varied and engine.ledger.has_room_for(bound, unwritten)

    while True:
        monitor = Monitor(watch.evaluators, repairs=watch.repairs, may_lose=may_lose)
        written: list[Completion] = []
        try:
            sibling = sample.sibling(len(lost) * SEEDS_APART)
            await write_landing(engine, sibling, written.append, rules, monitor, begin=begin)
        except (LimitReached, PromptTooLong, EngineUnavailable) as error:
            reason = _cut_by(error)
            if found := [*written, *(replace(completion, finish_reason=reason) for completion in lost)]:
                keep(max(found, key=lambda completion: len(completion.text)))
            raise
        [completion] = written
        if (stopped := monitor.stopped) is not None:
            watch.emit(TextAborted(stopped.rule, stopped.lost, completion.usage))
        if stopped is None or not stopped.lost:
            keep(completion)
            return
        lost.append(completion)
        watch.lost(Lost(stopped.rule, completion))


def _cut_by(error: Exception) -> FinishReason:
    if isinstance(error, TimeIsUp):
        return "deadline"
    return "engine_failed" if isinstance(error, EngineUnavailable) else "budget"
