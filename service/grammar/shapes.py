"""What a schema allows, as alternatives of plain shapes, in which every keyword has been merged with its neighbours.

A value fits a schema where it fits one of its node's shapes. The other way round need not hold: where a grammar could
not write all that fits, the shapes allow less. An object with ``properties``, for one, has no others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.grammar.numbers import Numbers
from service.grammar.strings import Strings

NodeId = int


@dataclass(frozen=True, slots=True)
class Array:
    """``first``: the nodes of the items that stand first; ``rest``: that of those behind them, if there may be any."""

    first: tuple[NodeId, ...] = ()
    rest: NodeId | None = None
    least: int = 0
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    node: NodeId
    required: bool


@dataclass(frozen=True, slots=True)
class Object:
    """Either ``members``, in their order, or any number of ``values`` under names that are ``names``."""

    members: tuple[Member, ...] = ()
    names: Strings = field(default_factory=Strings)
    values: NodeId | None = None
    least: int = 0
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """A value is one of ``constants``, or a number, string, array or object of that kind."""

    constants: tuple[Any, ...] = ()
    numbers: Numbers | None = None
    strings: Strings | None = None
    array: Array | None = None
    object: Object | None = None


Nodes = Mapping[NodeId, tuple[Shape, ...]]


def find_possible(nodes: Nodes) -> frozenset[NodeId]:
    """The nodes that a finite value fits: the least fixed point."""
    found = frozenset[NodeId]()
    while True:
        more = frozenset(node for node, shapes in nodes.items() if any(_is_fillable(shape, found) for shape in shapes))
        if more == found:
            return found
        found = more


def _is_fillable(shape: Shape, possible: frozenset[NodeId]) -> bool:
    return (
        bool(shape.constants)
        or (shape.numbers is not None and not shape.numbers.is_empty)
        or (shape.strings is not None and not shape.strings.is_empty)
        or (shape.array is not None and prune_array(shape.array, possible) is not None)
        or (shape.object is not None and prune_object(shape.object, possible) is not None)
    )


def prune_array(array: Array, possible: frozenset[NodeId]) -> Array | None:
    """The array without items that nothing fits; None if it needs one."""
    first = array.first
    rest = array.rest if array.rest in possible else None
    most = array.most
    for index, node in enumerate(first):
        if node not in possible:
            first, rest = first[:index], None
            break
    if rest is None:
        most = len(first) if most is None else min(most, len(first))
    return None if most is not None and array.least > most else Array(first, rest, array.least, most)


def prune_object(made: Object, possible: frozenset[NodeId]) -> Object | None:
    """The object without members that nothing fits; None if it needs one."""
    if any(member.required and member.node not in possible for member in made.members):
        return None
    members = tuple(member for member in made.members if member.node in possible)
    values = None if made.names.is_empty or made.values not in possible else made.values
    required = sum(member.required for member in members)
    if (values is None and made.least > len(members)) or (made.most is not None and made.most < required):
        return None
    return Object(members, made.names, values, made.least, made.most)
