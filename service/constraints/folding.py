"""Words that take the gap behind them into their lexeme.

Where a word ends before its gap, llguidance tries what may follow it at every token that cannot go on with the word: of
a letter that may not appear, these are all tokens with it. A mask then takes milliseconds, and the matcher meets its
limit of items. A lexeme that ends after the gap ends nowhere else. All words end at their first gap, so none is longer
than another, and keywords are still seen.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from service.constraints.automaton import Automaton, Change, Step, sum_changes
from service.constraints.conditions import NEVER, Condition, every, shift, some

_GAP = re.compile(r'["/](?: |\\n)')
"""How the definition of a terminal begins that begins with white space."""


def fold_gaps(machine: Automaton) -> Automaton:
    """The machine of the same texts in which a word and the gap behind it are one lexeme."""
    return _Folder(machine).fold()


@dataclass(frozen=True, slots=True)
class _Way:
    """A way to go on behind a word.

    gap: the terminal that ends the word's lexeme, if any. to, steps: the next place, and what leads on from there.
    condition: when it can be taken. changes: what it changes.
    """

    gap: str | None
    to: str | None
    steps: Sequence[Step]
    condition: Condition
    changes: tuple[Change, ...] = ()


class _Folder:
    def __init__(self, machine: Automaton) -> None:
        self._steps = machine.places
        self._gaps = {name for name, definition in machine.terminals.items() if _GAP.match(definition)}
        self._folded = Automaton(machine.start, machine.initial, dict(machine.terminals))
        self._ways = cache(self._find_ways)
        self._conditions = cache(self._shift_conditions)

    def fold(self) -> Automaton:
        """Fold what can be reached, from the start on."""
        waiting: dict[str, Sequence[Step]] = {self._folded.start: self._steps[self._folded.start]}
        while waiting:
            place, steps = waiting.popitem()
            folded = [each for step in steps for each in self._fold_step(step) if each[0].condition != NEVER]
            self._folded.places[place] = [step for step, _ in folded]
            for step, onward in folded:
                if step.to is not None and step.to not in self._folded.places:
                    waiting[step.to] = onward
        return self._folded

    def _fold_step(self, step: Step) -> Iterator[tuple[Step, Sequence[Step]]]:
        """The steps that do together what ``step`` does, each with the steps of the place where it leads."""
        lexemes = self._fuse_all(step.lexemes)
        ways = self._ways(step.to) if step.lexemes and step.lexemes[-1] not in self._gaps else ()
        if not any(way.gap for way in ways):
            yield replace(step, lexemes=lexemes), self._onward(step)
            return
        for way, onward in zip(ways, self._conditions(step.to, step.changes), strict=True):
            read = lexemes if way.gap is None else (*lexemes[:-1], self._fuse(lexemes[-1], way.gap))
            yield Step(read, way.to, every(step.condition, onward), (*step.changes, *way.changes)), way.steps

    def _find_ways(self, place: str | None) -> Sequence[_Way]:
        if place is None:
            return ()
        by_gap: dict[str | None, list[Step]] = {}
        for step in self._steps[place]:
            gap = step.lexemes[0] if step.lexemes and step.lexemes[0] in self._gaps else None
            behind = step if gap is None else replace(step, lexemes=step.lexemes[1:])
            by_gap.setdefault(gap, []).append(behind)
        found = []
        for gap, steps in by_gap.items():
            straight = [step for step in steps if gap is not None and not step.lexemes]
            reading = [step for step in steps if step not in straight]
            if reading:
                condition = some(*(step.condition for step in reading))
                found.append(_Way(gap, f"{place}_{gap or 'REST'}", reading, condition))
            found += [_Way(gap, step.to, self._onward(step), step.condition, step.changes) for step in straight]
        return found

    def _onward(self, step: Step) -> Sequence[Step]:
        return self._steps[step.to] if step.to is not None else ()

    def _shift_conditions(self, place: str | None, changes: Sequence[Change]) -> Sequence[Condition]:
        """When each way behind a word can be taken, by the counters before the changes that the word makes."""
        total = sum_changes(changes)
        return [shift(way.condition, total) for way in self._ways(place)]

    def _fuse_all(self, lexemes: Sequence[str]) -> tuple[str, ...]:
        """The lexemes, each with the gap behind it."""
        fused: list[str] = []
        for lexeme in lexemes:
            if fused and lexeme in self._gaps and fused[-1] not in self._gaps:
                fused[-1] = self._fuse(fused[-1], lexeme)
            else:
                fused.append(lexeme)
        return tuple(fused)

    def _fuse(self, lexeme: str, gap: str) -> str:
        name = f"{lexeme}_{gap}"
        self._folded.terminals.setdefault(name, f"{lexeme} {gap}")
        return name
