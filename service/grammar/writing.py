"""Writes the grammar of the JSON texts that fit a schema, as llguidance reads Lark's notation.

Members come in the schema's order, with at most one space after a comma or a colon. Strings do not use ``\\u``.

llguidance splits a text into tokens of the grammar first, each as long as possible, and never takes a split back. So
everything inside a value that is not an array or an object is one regular expression, and a constant array or object is
written member by member: otherwise it could hide one that begins in the same way.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from service.grammar import numbers, strings
from service.grammar.merging import Merger
from service.grammar.reading import SchemaReader, UnsupportedSchema
from service.grammar.shapes import Array, Member, NodeId, Nodes, Object, Shape, find_possible, prune_array, prune_object

MOST_CHARACTERS = 100_000
"""Characters of the grammar that the engine compiles."""
_NOTHING = '""'
_COMMA, _COLON = "COMMA", "COLON"
_PUNCTUATION = "COMMA: /, ?/\nCOLON: /: ?/\n"


def write_grammar(schema: Mapping[str, Any]) -> str:
    """Write a grammar of JSON texts that all fit the schema.

    schema: valid under its draft. Raises UnsupportedSchema, which names the keyword, if there is no such grammar.

    >>> print(write_grammar({"type": "boolean"}).splitlines()[0])
    start: node0
    """
    try:
        return _write_grammar(json.dumps(schema))
    except RecursionError:
        raise UnsupportedSchema((), "", "the schema is nested too deeply") from None


def write_choices(choices: Sequence[str]) -> str:
    """Write a grammar of a few texts.

    >>> print(write_choices(["yes", "no"]), end="")
    start: CHOICE
    CHOICE: "yes" | "no"
    """
    return f"start: CHOICE\nCHOICE: {' | '.join(map(_literal, choices))}\n"


@lru_cache(maxsize=256)
def _write_grammar(schema: str) -> str:
    reader = SchemaReader(json.loads(schema))
    merger = Merger(reader)
    root = merger.node([reader.root])
    writer = _Writer(merger.nodes)
    if root not in writer.possible:
        raise _make_impossible_error(merger, root, writer.possible)
    written = writer.write(root)
    if len(written) > MOST_CHARACTERS:
        raise UnsupportedSchema((), "", "the schema is too large for a grammar")
    return written


def _make_impossible_error(merger: Merger, root: NodeId, possible: frozenset[NodeId]) -> UnsupportedSchema:
    """The error for a schema that no value fits. It names the innermost required part that no value fits."""
    node, seen, path = root, set[NodeId](), tuple[str, ...]()
    while node not in seen:
        seen.add(node)
        path = merger.origins[node][0] or path
        for shape in merger.nodes[node]:
            needed = [(member.node, ("properties", member.name)) for member in _required_members(shape)]
            needed += [(item, ("prefixItems", str(index))) for index, item in enumerate(_needed_items(shape))]
            inner = next(((item, step) for item, step in needed if item not in possible), None)
            if inner is not None and inner[0] not in seen and len(merger.nodes[node]) == 1:
                node, path = inner[0], (*path, *inner[1])
    keywords = [name for name in merger.origins[node][1] if name != "$ref"]
    return UnsupportedSchema(path, "", f"nothing fits it: look at {', '.join(keywords) or 'false'}")


def _required_members(shape: Shape) -> list[Member]:
    return [] if shape.object is None else [member for member in shape.object.members if member.required]


def _needed_items(shape: Shape) -> list[NodeId]:
    if shape.array is None:
        return []
    first = list(shape.array.first[: shape.array.least])
    return [*first, shape.array.rest] if shape.array.rest is not None and shape.array.least > len(first) else first


class _Writer:
    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self.possible = find_possible(nodes)
        self._rules: dict[str, str] = {}
        self._characters = 0

    def write(self, root: NodeId) -> str:
        wanted, written = [root], set[NodeId]()
        while wanted:
            if (node := wanted.pop()) in written:
                continue
            written.add(node)
            options = [
                option for index, shape in enumerate(self._nodes[node]) for option in self._shape(node, index, shape)
            ]
            self._rules[f"node{node}"] = " | ".join(dict.fromkeys(options))
            self._characters += len(self._rules[f"node{node}"])
            if self._characters > MOST_CHARACTERS:
                raise UnsupportedSchema((), "", "the schema is too large for a grammar")
            wanted += [node for shape in self._nodes[node] for node in self._children(shape)]
        rules = "\n".join(f"{name}: {body}" for name, body in self._rules.items())
        return f"start: node{root}\n{rules}\n{_PUNCTUATION}"

    def _children(self, shape: Shape) -> Iterator[NodeId]:
        if shape.array is not None and (array := prune_array(shape.array, self.possible)):
            yield from (*array.first, *(() if array.rest is None else (array.rest,)))
        if shape.object is not None and (made := prune_object(shape.object, self.possible)):
            yield from (member.node for member in made.members)
            yield from () if made.values is None else (made.values,)

    def _shape(self, node: NodeId, index: int, shape: Shape) -> Iterator[str]:
        yield from map(_constant, shape.constants)
        if shape.numbers is not None and not shape.numbers.is_empty and (found := numbers.expressions(shape.numbers)):
            yield _regex("|".join(found))
        if shape.strings is not None and not shape.strings.is_empty:
            yield _regex(strings.expression(shape.strings))
        name = f"node{node}_{index}"
        if shape.array is not None and (array := prune_array(shape.array, self.possible)):
            yield self._array(f"{name}_item", array)
        if shape.object is not None and (made := prune_object(shape.object, self.possible)):
            yield self._members(f"{name}_member", made) if made.values is None else self._pairs(made)

    def _array(self, name: str, array: Array) -> str:
        """Write a rule for each of the first items: the item and all that follows, or the end."""
        following = self._rest(array)
        for index in reversed(range(len(array.first))):
            comma = f"{_COMMA} " if index else ""
            behind = f"{comma}node{array.first[index]} {following}"
            rule = f"{name}{index}"
            self._rules[rule] = behind if index < array.least else f"{behind} | {_NOTHING}"
            following = rule
        return f'"[" {following} "]"'

    def _rest(self, array: Array) -> str:
        if array.rest is None:
            return _NOTHING
        item, before = f"node{array.rest}", len(array.first)
        least = max(0, array.least - before)
        most = None if array.most is None else array.most - before
        if before:
            return _repeat(f"({_COMMA} {item})", least, most)
        if most == 0:
            return _NOTHING
        more = _repeat(f"({_COMMA} {item})", max(0, least - 1), None if most is None else most - 1)
        return f"{item} {more}" if least else f"({item} {more} | {_NOTHING})"

    def _pairs(self, made: Object) -> str:
        pair = f"{_regex(strings.expression(made.names))} {_COLON} node{made.values}"
        if made.most == 0:
            return '"{" "}"'
        more = _repeat(f"({_COMMA} {pair})", 0, None if made.most is None else made.most - 1)
        return f'"{{" {pair} {more} "}}"' if made.least else f'"{{" ({pair} {more} | {_NOTHING}) "}}"'

    def _members(self, name: str, made: Object) -> str:
        """Write a rule for each member and each number of members before it: with the member, or without it if it is
        optional."""
        count = len(made.members)
        cap = max(made.least, 1 if made.most is None else made.most + 1)  # all larger counts are equivalent

        def rule(index: int, before: int) -> str | None:
            if made.most is not None and before > made.most:
                return None
            if index == count:
                return _NOTHING if before >= made.least else None
            return rules.get((index, before))

        rules: dict[tuple[int, int], str] = {}
        for index in reversed(range(count)):
            member = made.members[index]
            pair = f"{name}{index}"
            self._rules[pair] = f"{_constant(member.name)} {_COLON} node{member.node}"
            for before in range(min(index, cap) + 1):
                options = list[str]()
                if (behind := rule(index + 1, min(before + 1, cap))) is not None:
                    options.append(f"{_COMMA + ' ' if before else ''}{pair} {behind}")
                if not member.required and (without := rule(index + 1, before)) is not None:
                    options.append(without)
                if options:
                    rules[index, before] = f"{name}{index}_{before}"
                    self._rules[rules[index, before]] = " | ".join(options)
        first = rule(0, 0)
        if first is None:
            raise UnsupportedSchema((), "maxProperties", "no object has that few properties")
        return f'"{{" {first} "}}"'


def _repeat(item: str, least: int, most: int | None) -> str:
    if most is None:
        return f"{item}*" if least == 0 else f"{item}{{{least},}}"
    return _NOTHING if most == 0 else f"{item}{{{least},{most}}}"


def _regex(expression: str) -> str:
    return "/" + expression.replace("/", r"\/") + "/"


def _constant(value: Any) -> str:
    """An expression that writes a value of JSON, and nothing else."""
    match value:
        case Mapping():
            members = f" {_COMMA} ".join(
                f"{_constant(name)} {_COLON} {_constant(item)}" for name, item in value.items()
            )
            return f'"{{" {members} "}}"'
        case list():
            return f'"[" {f" {_COMMA} ".join(map(_constant, value))} "]"'
        case _:
            return _literal(json.dumps(value, ensure_ascii=False))


def _literal(text: str) -> str:
    """An expression that writes exactly this text."""
    return json.dumps(text, ensure_ascii=False)
