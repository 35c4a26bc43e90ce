"""Counters of a grammar, and the conditions on them: the 64-bit parameter of llguidance's parametric rules.

Each condition can be written for llguidance and evaluated here, so that tests can walk a grammar without an engine.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

PARAMETER_BITS = 64


@dataclass(frozen=True, slots=True)
class Field:
    """A counter in some bits of the parameter, from ``first`` to before ``last``. It stays at its largest value."""

    name: str
    first: int
    last: int

    @property
    def largest(self) -> int:
        return (1 << (self.last - self.first)) - 1

    def __str__(self) -> str:
        return f"[{self.first}:{self.last}]"


@dataclass(frozen=True, slots=True)
class Less:
    """The counter is less than ``bound``, or with ``negated`` at least that."""

    field: Field
    bound: int
    negated: bool = False


@dataclass(frozen=True, slots=True)
class All:
    parts: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Some:
    parts: tuple["Condition", ...]


Condition = Less | All | Some
ALWAYS = All(())
NEVER = Some(())


def less(field: Field | None, bound: int) -> Condition:
    """Whether a counter is less than ``bound``. Without a counter it always is."""
    return ALWAYS if field is None or bound > field.largest else Less(field, bound) if bound > 0 else NEVER


def at_least(field: Field | None, bound: int) -> Condition:
    if field is None or bound <= 0:
        return ALWAYS
    return Less(field, bound, negated=True) if bound <= field.largest else NEVER


def every(*parts: Condition) -> Condition:
    """Whether all hold, without what follows from the rest."""
    known: dict[Field, tuple[int, int]] = {}
    rest = _flatten(parts)
    while limits := [part for part in rest if isinstance(part, Less)]:
        for limit in limits:
            _narrow(known, limit)
        if any(low >= high for low, high in known.values()):
            return NEVER
        rest = _flatten([_assume(part, known) for part in rest if not isinstance(part, Less)])
    if NEVER in rest:
        return NEVER
    options = [part for part in rest if isinstance(part, Some)]
    if not known and (shared := _share(options)):
        return some(*shared, every(*(_without(each, shared) for each in options)))
    bounds = [each for field, (low, high) in known.items() for each in (at_least(field, low), less(field, high))]
    kept = [*(each for each in bounds if each != ALWAYS), *options]
    return kept[0] if len(kept) == 1 else All(tuple(kept))


def some(*parts: Condition) -> Condition:
    """Whether one holds, without those that hold only where another does."""
    return negate(every(*map(negate, parts)))


def negate(condition: Condition) -> Condition:
    match condition:
        case Less(field, bound, negated):
            return Less(field, bound, not negated)
        case All(parts):
            return Some(tuple(map(negate, parts)))
        case Some(parts):
            return All(tuple(map(negate, parts)))


def shift(condition: Condition, changes: Mapping[Field, int]) -> Condition:
    """The condition on the counters before changes that holds exactly if ``condition`` holds after them."""
    match condition:
        case Less(field, bound, negated):
            moved = bound - changes.get(field, 0)
            return at_least(field, moved) if negated else less(field, moved)
        case All(parts):
            return every(*(shift(part, changes) for part in parts))
        case Some(parts):
            return some(*(shift(part, changes) for part in parts))


def _flatten(parts: Iterable[Condition]) -> Sequence[Condition]:
    """The parts of a conjunction, without conjunctions and each once."""
    found: dict[Condition, None] = {}
    for part in parts:
        found.update(dict.fromkeys(_flatten(part.parts) if isinstance(part, All) else (part,)))
    return list(found)


def _share(options: Sequence[Some]) -> Sequence[Condition]:
    """What several disjunctions have in common."""
    if len(options) < 2:
        return ()
    first, *others = options
    return [part for part in first.parts if all(part in other.parts for other in others)]


def _without(options: Some, shared: Sequence[Condition]) -> Condition:
    return some(*(part for part in options.parts if part not in shared))


def _narrow(known: dict[Field, tuple[int, int]], limit: Less) -> None:
    """Add a limit to what is known: each counter is at least the first number, and less than the second."""
    low, high = known.get(limit.field, (0, limit.field.largest + 1))
    known[limit.field] = (max(low, limit.bound), high) if limit.negated else (low, min(high, limit.bound))


def _assume(condition: Condition, known: Mapping[Field, tuple[int, int]]) -> Condition:
    """What is left of a condition where the counters are within what is known."""
    match condition:
        case Less(field, bound, negated):
            low, high = known.get(field, (0, field.largest + 1))
            if high <= bound:
                return NEVER if negated else ALWAYS
            if low >= bound:
                return ALWAYS if negated else NEVER
            return condition
        case All(parts) | Some(parts):
            left = tuple(_assume(part, known) for part in parts)
            if left == parts:
                return condition
            return every(*left) if isinstance(condition, All) else some(*left)


def holds(condition: Condition, values: Mapping[str, int]) -> bool:
    """Whether a condition holds for the counters' values, by name."""
    match condition:
        case Less(field, bound, negated):
            return (values[field.name] < bound) != negated
        case All(parts):
            return all(holds(part, values) for part in parts)
        case Some(parts):
            return any(holds(part, values) for part in parts)


def write_condition(condition: Condition) -> str:
    """The condition in llguidance's syntax, whose ``and`` and ``or`` take two operands. Not for ALWAYS and NEVER."""
    match condition:
        case Less(field, bound, negated):
            return f"{'ge' if negated else 'lt'}({field}, {bound})"
        case All(parts):
            return _nest("and", [write_condition(part) for part in parts])
        case Some(parts):
            return _nest("or", [write_condition(part) for part in parts])


def _nest(operator: str, operands: Sequence[str]) -> str:
    if len(operands) <= 2:
        return f"{operator}({', '.join(operands)})"
    middle = len(operands) // 2
    halves = [_nest(operator, half) if len(half) > 1 else half[0] for half in (operands[:middle], operands[middle:])]
    return f"{operator}({', '.join(halves)})"


class Layout:
    """Gives out the parameter's bits. Raises OverflowError if there are not enough."""

    def __init__(self) -> None:
        self.fields: list[Field] = []

    def add(self, name: str, largest: int) -> Field:
        first = self.fields[-1].last if self.fields else 0
        field = Field(name, first, first + max(1, largest.bit_length()))
        if field.last > PARAMETER_BITS:
            raise OverflowError
        self.fields.append(field)
        return field
