"""What a schema allows, as alternatives of simple shapes into which all keywords are merged.

A value that fits a shape of a node fits its schema. The reverse need not be true: if a grammar cannot write everything
that fits, the shapes allow less. For example, an object with ``properties`` has no others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.grammar.numbers import Numbers
from service.grammar.strings import Strings

NodeId = int


@dataclass(frozen=True, slots=True)
class Array:
    """An array. ``first``: the nodes of its first items. ``rest``: the node of all others; None if none are allowed."""

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
    """An object: either ``members``, in this order, or any number of ``values`` with names from ``names``."""

    members: tuple[Member, ...] = ()
    names: Strings = field(default_factory=Strings)
    values: NodeId | None = None
    least: int = 0
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """A set of values: ``constants``, and numbers, strings, an array and an object of these kinds."""

    constants: tuple[Any, ...] = ()
    numbers: Numbers | None = None
    strings: Strings | None = None
    array: Array | None = None
    object: Object | None = None


Nodes = Mapping[NodeId, tuple[Shape, ...]]


def find_possible(nodes: Nodes) -> frozenset[NodeId]:
    """The nodes that some finite value fits. It is the least fixed point."""
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
    """The array without items that no value fits; None if it requires one."""
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
    """The object without members that no value fits; None if it requires one."""
    if any(member.required and member.node not in possible for member in made.members):
        return None
    members = tuple(member for member in made.members if member.node in possible)
    values = None if made.names.is_empty or made.values not in possible else made.values
    required = sum(member.required for member in members)
    if (values is None and made.least > len(members)) or (made.most is not None and made.most < required):
        return None
    return Object(members, made.names, values, made.least, made.most)
