"""A grammar as a machine: places, steps between them, and counters. It is written as parametric rules of llguidance.

A step reads one lexeme, or nothing, and changes counters. Its condition is on the counters before it, because a lexeme
whose reading leads nowhere must not be offered: llguidance would end the text there.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from service.constraints.conditions import (
    ALWAYS,
    NEVER,
    PARAMETER_BITS,
    Condition,
    Field,
    every,
    holds,
    shift,
    write_condition,
)

Change = tuple[Field, int]
"""A counter, and what is added to it. It stays between 0 and its largest value."""

_NOTHING = "nothing"
_NAME = re.compile("[A-Z][A-Z0-9_]*")
_HOLDS = f"ge([0:{PARAMETER_BITS}], 0)"
"""A condition that always holds."""


def sum_changes(changes: Iterable[Change]) -> Mapping[Field, int]:
    """What changes add to each counter together."""
    total = Counter[Field]()
    for changed, by in changes:
        total[changed] += by
    return total


@dataclass(frozen=True, slots=True)
class Step:
    """A way to go on.

    lexemes: the terminals that are read, in order. to: the next place, None for the end. changes: of the counters.
    """

    lexemes: tuple[str, ...]
    to: str | None
    condition: Condition = ALWAYS
    changes: tuple[Change, ...] = ()


@dataclass
class Automaton:
    """``terminals``: their definitions by name. ``initial``: what the counters begin with, by name."""

    start: str = "start_of_text"
    initial: dict[str, int] = field(default_factory=dict)
    terminals: dict[str, str] = field(default_factory=dict)
    places: dict[str, list[Step]] = field(default_factory=dict)

    def add(
        self,
        place: str,
        lexemes: str | Sequence[str],
        to: str | None,
        condition: Condition = ALWAYS,
        *changes: Change | None,
    ) -> None:
        """Add a step, unless it can never be taken."""
        if condition == NEVER:
            return
        read = (lexemes,) if isinstance(lexemes, str) else tuple(lexemes)
        kept = tuple(change for change in changes if change is not None)
        self.places.setdefault(place, []).append(Step(read, to, condition, kept))

    def write(self, fields: Sequence[Field]) -> str:
        """The grammar in llguidance's dialect of Lark."""
        writer = _Writer(self, parametric=bool(fields))
        return writer.write(sum(self.initial.get(each.name, 0) << each.first for each in fields))


class _Writer:
    def __init__(self, automaton: Automaton, *, parametric: bool) -> None:
        self._automaton = automaton
        self._parametric = parametric
        self._rules: dict[str, str] = {}
        self._used: dict[str, None] = {}

    def write(self, initial: int) -> str:
        for place, steps in self._automaton.places.items():
            options = [*map(self._option, steps), *self._ends_behind(steps)]
            self._rules[self._head(place)] = "\n    | ".join(options)
        start = f"start: {self._automaton.start.lower()}{f'::{initial}' if self._parametric else ''}"
        rules = [f"{head}: {body}" for head, body in self._rules.items()]
        terminals = [f"{name}: {self._automaton.terminals[name]}" for name in self._close_over_terminals()]
        return "\n".join((start, *rules, *terminals, ""))

    def _close_over_terminals(self) -> Sequence[str]:
        """The terminals that are used, with those that their definitions name."""
        waiting, found = list(self._used), dict[str, None]()
        while waiting:
            name = waiting.pop()
            if name in self._automaton.terminals and name not in found:
                found[name] = None
                waiting += _NAME.findall(self._automaton.terminals[name])
        return sorted(found)

    def _head(self, place: str) -> str:
        """What llguidance calls the place: rules are small, terminals are large."""
        return f"{place.lower()}::_ " if self._parametric else place.lower()

    def _ends_behind(self, steps: Sequence[Step]) -> Sequence[str]:
        """The ends of places to which a step without a lexeme leads."""
        found = list[str]()
        for step in steps:
            if not step.lexemes and step.to is not None and self._parametric:
                conditions = [every(step.condition, each) for each in self._ends(step.to, step.changes)]
                found += [f'""{self._condition(each)}' for each in conditions if each != NEVER]
        return found

    def _ends(self, place: str, changes: Sequence[Change]) -> Sequence[Condition]:
        """When the text may end at a place, by the counters before the changes that lead there."""
        total = sum_changes(changes)
        steps = self._automaton.places.get(place, ())
        return [shift(step.condition, total) for step in steps if step.to is None and not step.lexemes]

    def _option(self, step: Step) -> str:
        self._used.update(dict.fromkeys(step.lexemes))
        parts = [*step.lexemes]
        if step.to is not None:
            parts.append(self._follow(self._target(step.to, step.changes), alone=not parts))
        body = " ".join(parts) or '""'
        return f"{body}{self._condition(step.condition)}"

    def _follow(self, target: str, *, alone: bool) -> str:
        """A reference as a part of an option. llguidance panics if a changed reference to an outer rule is alone."""
        if not alone or not self._parametric:
            return target
        self._rules[f"{_NOTHING}::_ "] = f'""{self._condition(ALWAYS)}'
        return f"{_NOTHING}::_ {target}"

    def _condition(self, condition: Condition) -> str:
        """llguidance merges a rule whose only option is unconditional with what it leads to, and forgets the changes on
        the way. So every option of a parametric rule has a condition."""
        if not self._parametric:
            return ""
        return f" %if {_HOLDS if condition == ALWAYS else write_condition(condition)}"

    def _target(self, place: str, changes: Sequence[Change]) -> str:
        """A reference to the place after the changes. It can make one change, so others get their own rules."""
        singles = [(field, 1 if by > 0 else -1) for field, by in changes for _ in range(abs(by))]
        if not self._parametric:
            return place.lower()
        if not singles:
            return f"{place.lower()}::_"
        (changed, by), *others = singles
        name = place
        for other, other_by in others:
            name += f"_{other.name}{'up' if other_by > 0 else 'down'}"
        if others:
            head = self._head(name)
            if head not in self._rules:
                # llguidance does not see that a rule can be empty through a changed counter, so that is said here.
                ends = [f'""{self._condition(each)}' for each in self._ends(place, others) if each != NEVER]
                onward = f"{self._follow(self._target(place, others), alone=True)}{self._condition(ALWAYS)}"
                self._rules[head] = "\n    | ".join((onward, *ends))
        return f"{name.lower()}::{'incr' if by > 0 else 'decr'}({changed})"


def find_dead_ends(automaton: Automaton, fields: Sequence[Field], most: int = 200_000) -> Sequence[str]:
    """The states from which no end can be reached, as far as ``most`` states show. There must not be any."""
    bounds = {each.name: each.largest for each in fields}
    names = [each.name for each in fields]

    def values(state: tuple[str, tuple[int, ...]]) -> Mapping[str, int]:
        return dict(zip(names, state[1], strict=True))

    first = (automaton.start, tuple(automaton.initial.get(name, 0) for name in names))
    before: dict[tuple[str, tuple[int, ...]], list[tuple[str, tuple[int, ...]]]] = {first: []}
    waiting, ends = [first], []
    while waiting and len(before) < most:
        state = waiting.pop()
        now = values(state)
        for step in automaton.places.get(state[0], ()):
            if not holds(step.condition, now):
                continue
            if step.to is None:
                ends.append(state)
                continue
            then = dict(now)
            for changed, by in step.changes:
                then[changed.name] = min(bounds[changed.name], max(0, then[changed.name] + by))
            after = (step.to, tuple(then[name] for name in names))
            if after not in before:
                before[after] = []
                waiting.append(after)
            before[after].append(state)
    alive, open_ends = set(ends), [*ends, *waiting]
    alive.update(waiting)
    while open_ends:
        for state in before[open_ends.pop()]:
            if state not in alive:
                alive.add(state)
                open_ends.append(state)
    return [
        f"{place} {dict(zip(names, counters, strict=True))}"
        for place, counters in before
        if (place, counters) not in alive
    ]
