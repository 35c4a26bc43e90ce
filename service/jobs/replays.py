"""What an attempt repeats from the record. The metrics have counted it before."""

from collections import Counter, defaultdict
from collections.abc import Container
from dataclasses import replace

from service.engines.base import Usage
from service.jobs.job import JobEvent
from service.metrics import Metrics
from service.refinement.events import CallEnded, EvaluatorEnded, Event, RoundEnded
from service.wire.responses import sse_event


class Replays:
    """The work of earlier attempts that has been met again and not yet been told."""

    def __init__(self) -> None:
        self.calls = 0
        self._usage: defaultdict[str, Usage] = defaultdict(Usage)
        self._evaluations: Counter[str] = Counter()

    def note_call(self, model: str, usage: Usage) -> None:
        """A recorded call of a model was met again."""
        self.calls += 1
        self._usage[model] += usage

    def note_evaluation(self, evaluator: str) -> None:
        """A recorded evaluation was met again."""
        self._evaluations[evaluator] += 1

    def take_new(self, event: Event, known: Container[str]) -> Event | None:
        """What is new in an event: of calls that ended, those that were made; None if there is nothing.

        known: the keys of the events that earlier attempts have told.

        The event of a call says nothing of where its result is from, so what was met again is taken from the first
        events of the model. The sums are right.
        """
        match event:
            case CallEnded(usage=usage, model=model):
                old = _common(usage, self._usage[model])
                self._usage[model] = _less(self._usage[model], old)
                new = _less(usage, old)
                return replace(event, usage=new) if new.calls else None
            case EvaluatorEnded(evaluator=evaluator) if self._evaluations[evaluator]:
                self._evaluations[evaluator] -= 1
                return None
            case RoundEnded():
                shown = sse_event(event)
                return None if shown and JobEvent(0, *shown).key in known else event
            case _:
                return event


def observe_new(metrics: Metrics, task: str, event: Event, replays: Replays, known: Container[str]) -> None:
    """Count what is new in an event."""
    new = replays.take_new(event, known)
    if new is not None:
        metrics.observe(task, new)


def _common(one: Usage, other: Usage) -> Usage:
    """What both have."""
    return Usage(
        min(one.calls, other.calls),
        min(one.prompt_tokens, other.prompt_tokens),
        min(one.cached_tokens, other.cached_tokens),
        min(one.completion_tokens, other.completion_tokens),
        min(one.reasoning_tokens, other.reasoning_tokens),
    )


def _less(usage: Usage, part: Usage) -> Usage:
    return Usage(
        usage.calls - part.calls,
        usage.prompt_tokens - part.prompt_tokens,
        usage.cached_tokens - part.cached_tokens,
        usage.completion_tokens - part.completion_tokens,
        usage.reasoning_tokens - part.reasoning_tokens,
    )
