"""What an attempt repeats from the record. The metrics have counted it before."""

from collections import Counter, defaultdict
from collections.abc import Container, Sequence
from dataclasses import replace

from service.engines.base import Usage
from service.jobs.job import JobEvent
from service.metrics import Metrics
from service.refinement.events import (
    CallEnded,
    ConstraintFailed,
    EvaluatorEnded,
    Event,
    RepairEnded,
    RoundEnded,
    TextAborted,
)
from service.wire.responses import sse_event


class Replays:
    """The work of earlier attempts that has been met again and not yet been told."""

    def __init__(self) -> None:
        self.calls = 0
        self._usage: defaultdict[str, Usage] = defaultdict(Usage)
        self._evaluations: Counter[str] = Counter()
        self._held: list[Event] = []

    def note_call(self, model: str, usage: Usage) -> None:
        """A recorded call of a model was met again."""
        self.calls += 1
        self._usage[model] += usage

    def note_evaluation(self, evaluator: str) -> None:
        """A recorded evaluation was met again."""
        self._evaluations[evaluator] += 1

    def take_new(self, event: Event, known: Container[str]) -> Sequence[Event]:
        """What is new, now that an event has come: of calls that ended, those that were made.

        known: the keys of the events that earlier attempts have told.

        - The event of a call says nothing of where its result is from, so what was met again is taken from the first
          events of the model. The sums are right.
        - What code did in a round is no step, and it does the same again. It is new if the end of the round is, so it
          is held until then.
        """
        match event:
            case CallEnded(usage=usage, model=model):
                old = _common(usage, self._usage[model])
                self._usage[model] = _less(self._usage[model], old)
                new = _less(usage, old)
                return [replace(event, usage=new)] if new.calls else []
            case EvaluatorEnded(evaluator=evaluator) if self._evaluations[evaluator]:
                self._evaluations[evaluator] -= 1
                return []
            case RepairEnded() | TextAborted() | ConstraintFailed():
                self._held.append(event)
                return []
            case RoundEnded():
                held, self._held = self._held, []
                shown = sse_event(event)
                return [] if shown and JobEvent(0, *shown).key in known else [*held, event]
            case _:
                return [event]


def observe_new(metrics: Metrics, task: str, event: Event, replays: Replays, known: Container[str]) -> None:
    """Count what is new in an event."""
    for new in replays.take_new(event, known):
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
