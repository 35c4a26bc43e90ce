"""Merges schemas into nodes of shapes: what each set of schemas that hold together allows, keyword by keyword."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from service.grammar import numbers, strings
from service.grammar.branches import COMBINING, TYPES, Branches, Conjunction, Flat
from service.grammar.numbers import MOST_DECIMALS, Numbers
from service.grammar.reading import Path, Schema, SchemaReader, UnsupportedSchema
from service.grammar.shapes import Array, Member, NodeId, Object, Shape, find_possible
from service.grammar.strings import FORMATS, Strings
from service.grammar.values import Validator, canonical_form, number, types_of

MOST_STEPS = 5_000
"""Sets of schemas and their alternatives, including those that are only compared with each other."""
MOST_REFERENCES = 50
"""References that are followed one after another. After that, Branches finds out whether they form a circle."""
CHEAP_CONSTANTS = 50
"""Values of an enum that count as one step."""
MOST_CONSTANTS = 1_000
"""Integers of a range that are listed one by one, if a keyword requires it."""
_HINTS = frozenset({"password"})
"""Formats that do not restrict a string."""


class Merger:
    """Merges sets of schemas.

    nodes: what each set of schemas allows. origins: its path and its keywords.

    A ``wide`` merger allows too much rather than too little: if no value fits one of its nodes, no value fits the
    schemas.
    """

    def __init__(self, reader: SchemaReader, *, wide: bool = False, budget: list[int] | None = None) -> None:
        self.nodes: dict[NodeId, tuple[Shape, ...]] = {}
        self.origins: dict[NodeId, tuple[Path, tuple[str, ...]]] = {}
        self._reader = reader
        self._wide = wide
        self._budget = [MOST_STEPS] if budget is None else budget
        self._branches = Branches(reader, None if wide else self._are_disjoint)
        self._validator = Validator(reader)
        self._ids: dict[frozenset[int], NodeId] = {}
        self._kept: list[Schema] = []

    def node(self, schemas: Sequence[Schema]) -> NodeId:
        """The node for the values that fit all of the schemas."""
        schemas = [self._dereference(schema) for schema in schemas]
        self._kept += schemas
        key = frozenset(0 if schema is False else id(schema) for schema in schemas if schema is not True)
        if (known := self._ids.get(key)) is not None:
            return known
        self._spend(1)
        made = self._ids[key] = len(self._ids)
        self.nodes[made] = ()
        stated = [schema for schema in schemas if isinstance(schema, dict)]
        paths = [self._path(schema) for schema in stated]
        keywords = tuple(dict.fromkeys(name for schema in stated for name in schema))
        self.origins[made] = (paths[0] if paths else (), keywords)
        alternatives = self._branches.alternatives([schema for schema in schemas if schema is not True])
        self._spend(len(alternatives))
        self.nodes[made] = tuple(self._shape(together) for together in alternatives)
        return made

    def _dereference(self, schema: Schema) -> Schema:
        """The target of a schema that is only a reference, so that equal schemas share a node."""
        for _ in range(MOST_REFERENCES):
            if not isinstance(schema, dict) or schema.keys() != {"$ref"}:
                break
            schema = self._reader.target(schema["$ref"], self._path(schema))
        return schema

    def _spend(self, steps: int) -> None:
        self._budget[0] -= steps
        if self._budget[0] < 0:
            raise UnsupportedSchema((), "", "the schema takes too long to read")

    def _are_disjoint(self, one: Schema, other: Schema) -> bool:
        wide = Merger(self._reader, wide=True, budget=self._budget)
        node = wide.node((one, other))
        return node not in find_possible(wide.nodes)

    def _make_error(self, flats: Conjunction, keyword: str, reason: str) -> UnsupportedSchema:
        found = next((flat for flat in flats if keyword in flat), None)
        return UnsupportedSchema(self._path(found), keyword, reason)

    def _path(self, flat: Flat | None) -> Path:
        return self._reader.paths.get(id(flat), ())

    def _shape(self, flats: Conjunction) -> Shape:
        for keyword in ("$dynamicRef", "$recursiveRef"):
            if any(keyword in flat for flat in flats):
                raise self._make_error(flats, keyword, "it is not supported: use $ref")
        types = self._types(flats)
        unlike = [flat["unlike"] for flat in flats if "unlike" in flat]
        listed = next((_listed_values(flat) for flat in flats if "const" in flat or "enum" in flat), None)
        if listed is not None:
            self._spend(len(listed) // CHEAP_CONSTANTS)
            return Shape(self._constants(listed, flats))
        constants: list[Any] = [value for value in (None, True, False) if types_of(value) & types]
        interval = self._numbers(flats, whole="number" not in types) if types & {"number", "integer"} else None
        if interval is not None and self._is_enumerable(flats, interval, unlike):
            constants += range(interval.first(0), interval.last(0) + 1)
            interval = None
        shape = Shape(
            self._constants(constants, flats),
            interval,
            self._strings(flats) if "string" in types else None,
            self._array(flats) if "array" in types else None,
            self._object(flats) if "object" in types else None,
        )
        if not self._wide:
            self._refuse_unlike(shape, flats, unlike)
        return shape

    def _types(self, flats: Conjunction) -> frozenset[str]:
        types = TYPES | {"integer"}
        for flat in flats:
            if "type" in flat:
                wanted = {flat["type"]} if isinstance(flat["type"], str) else {*flat["type"]}
                types &= wanted | ({"integer"} if "number" in wanted else set())
        return types

    def _constants(self, values: Iterable[Any], flats: Conjunction) -> tuple[Any, ...]:
        """The values that fit all schemas, without duplicates."""
        found: dict[Hashable, Any] = {}
        plain = [self._strip_combining(flat) for flat in flats]
        for value in values:
            if self._fits(value, plain):
                found.setdefault(canonical_form(value), value)
        return tuple(found.values())

    def _strip_combining(self, flat: Flat) -> Flat:
        """The schema without the keywords that combine schemas, which Branches has resolved."""
        plain = {name: wanted for name, wanted in flat.items() if name not in COMBINING}
        if "unlike" in plain:
            plain["not"] = plain.pop("unlike")
        self._kept.append(plain)
        self._reader.paths[id(plain)] = self._path(flat)
        return plain

    def _fits(self, value: Any, flats: Sequence[Flat]) -> bool:
        for flat in flats:
            try:
                if not self._validator.fits(value, flat):
                    return False
            except UnsupportedSchema:
                if not self._wide:
                    raise
        return True

    def _refuse_unlike(self, shape: Shape, flats: Conjunction, unlike: Sequence[Schema]) -> None:
        """Refuse ``not`` for values that are not listed: a grammar cannot leave some of them out."""
        kinds = {"number", "integer"} if shape.numbers else set[str]()
        kinds |= {"string"} if shape.strings else set()
        kinds |= {"array"} if shape.array else set()
        kinds |= {"object"} if shape.object else set()
        for schema in unlike:
            listed = (
                _listed_values(schema) if isinstance(schema, dict) and ("const" in schema or "enum" in schema) else None
            )
            if kinds and (listed is None or any(types_of(value) & kinds for value in listed)):
                path = self._path(schema if isinstance(schema, dict) else None)
                path = path[:-1] if path[-1:] == ("not",) else path
                raise UnsupportedSchema(path, "not", "it is supported only if the remaining values can be listed")

    def _is_enumerable(self, flats: Conjunction, interval: Numbers, unlike: Sequence[Schema]) -> bool:
        if interval.decimals or interval.low is None or interval.high is None:
            return False
        count = interval.last(0) - interval.first(0) + 1
        return count <= MOST_CONSTANTS and (bool(unlike) or any("multipleOf" in flat for flat in flats))

    def _numbers(self, flats: Conjunction, *, whole: bool) -> Numbers:
        low, open_low = _strictest_bound(flats, "minimum", "exclusiveMinimum", max)
        high, open_high = _strictest_bound(flats, "maximum", "exclusiveMaximum", min)
        interval = Numbers(low, high, open_low, open_high, 0 if whole else MOST_DECIMALS)
        if self._wide or interval.is_empty:
            return interval
        units = [number(flat["multipleOf"]) for flat in flats if "multipleOf" in flat]
        if any(unit == unit.to_integral_value() for unit in units):
            interval = Numbers(low, high, open_low, open_high, 0)
        if units and not self._is_enumerable(flats, interval, ()):
            interval = self._restrict_to_multiples(interval, units, flats)
        if not interval.is_empty and not numbers.expressions(interval):
            keyword = next(name for name in _BOUNDS if any(name in flat for flat in flats))
            raise self._make_error(flats, keyword, "no number with that few digits is within it")
        return interval

    def _restrict_to_multiples(self, interval: Numbers, units: Sequence[Decimal], flats: Conjunction) -> Numbers:
        """Restrict an interval to multiples of a power of ten, which can be recognised by their digits."""
        digits, exponent = units[0].normalize().as_tuple().digits, int(units[0].normalize().as_tuple().exponent)
        if len(units) > 1 or digits != (1,) or abs(exponent) > MOST_DECIMALS:
            reason = "it is supported only for powers of ten, and for integers between close bounds"
            raise self._make_error(flats, "multipleOf", reason)
        decimals = 0 if interval.decimals == 0 else max(0, -exponent)
        low, high, open_low, open_high = interval.low, interval.high, interval.open_low, interval.open_high
        return Numbers(low, high, open_low, open_high, decimals, max(0, exponent))

    def _strings(self, flats: Conjunction) -> Strings:
        least = max((int(flat["minLength"]) for flat in flats if "minLength" in flat), default=0)
        most = min((int(flat["maxLength"]) for flat in flats if "maxLength" in flat), default=None)
        if self._wide:
            return Strings(least, most)
        patterns = dict.fromkeys(flat["pattern"] for flat in flats if "pattern" in flat)
        keyword = "pattern"
        for flat in flats:
            name = flat.get("format")
            if name in FORMATS:
                patterns[FORMATS[name]] = None
                keyword = "format"
            elif name is not None and name not in _HINTS:
                raise self._make_error(flats, "format", f"{name!r} is not supported; {', '.join(FORMATS)} are")
        made = Strings(least, most, tuple(patterns))
        return made if made.is_empty else self._check_strings(made, flats, keyword)

    def _check_strings(self, made: Strings, flats: Conjunction, keyword: str) -> Strings:
        try:
            strings.expression(made)
        except ValueError as error:
            reason = str(error)
            limit = reason.partition(" ")[0]
            if any(limit in flat for flat in flats):  # minLength or maxLength
                raise self._make_error(flats, limit, reason.removeprefix(limit).lstrip()) from None
            raise self._make_error(flats, keyword, reason) from None
        return made

    def _array(self, flats: Conjunction) -> Array:
        least = max((int(flat["minItems"]) for flat in flats if "minItems" in flat), default=0)
        most = min((int(flat["maxItems"]) for flat in flats if "maxItems" in flat), default=None)
        length = max((len(flat.get("prefixItems", ())) for flat in flats), default=0)
        if most is not None:
            length = min(length, most)
        if not self._wide:
            for keyword in ("contains", "minContains", "maxContains"):
                if any(keyword in flat for flat in flats):
                    raise self._make_error(flats, keyword, "it is not supported")
            if any(flat.get("uniqueItems") for flat in flats) and (most is None or most > 1):
                raise self._make_error(flats, "uniqueItems", "it is not supported")
        first = tuple(self.node([_item(flat, index) for flat in flats]) for index in range(length))
        stated = any("items" in flat for flat in flats)
        free = self._wide or stated or length == 0 or least > length
        rest = self.node([flat.get("items", True) for flat in flats]) if free and most != length else None
        return Array(first, rest, least, most)

    def _object(self, flats: Conjunction) -> Object:
        least = max((int(flat["minProperties"]) for flat in flats if "minProperties" in flat), default=0)
        most = min((int(flat["maxProperties"]) for flat in flats if "maxProperties" in flat), default=None)
        required = {name for flat in flats for name in flat.get("required", ())}
        allowed, key = self._names(flats)
        names = list(
            dict.fromkeys(name for flat in flats for name in (*flat.get("properties", ()), *flat.get("required", ())))
        )
        if allowed is not None:
            names += [name for name in allowed if isinstance(name, str) and name not in names]
        members = tuple(Member(name, self.node([*self._member(name, flats)]), name in required) for name in names)
        if self._wide:
            return Object(members, Strings(), None, 0, None if most is None else max(most, len(members)))
        if members or allowed is not None:
            if least > len(members):
                reason = "it is supported only up to the number of properties"
                raise self._make_error(flats, "minProperties", reason)
            return Object(members, least=least, most=most)
        if least > 1:
            raise self._make_error(flats, "minProperties", "above 1 it is supported only together with properties")
        key, values = self._extras(key, flats)
        return Object((), key, values, least, most)

    def _names(self, flats: Conjunction) -> tuple[tuple[Any, ...] | None, Strings]:
        """The names that propertyNames lists, or None and a description of the names."""
        wanted = [flat["propertyNames"] for flat in flats if "propertyNames" in flat]
        if not wanted or self._wide:
            return None, Strings()
        shapes = self.nodes[self.node([*wanted, _TEXT])]
        if all(shape.strings is None for shape in shapes):
            return tuple(value for shape in shapes for value in shape.constants), Strings()
        if len(shapes) > 1 or shapes[0].constants or shapes[0].strings is None:
            raise self._make_error(flats, "propertyNames", "it may not have alternatives")
        return None, shapes[0].strings

    def _member(self, name: str, flats: Conjunction) -> Iterator[Schema]:
        """The schemas that hold for a member."""
        for flat in flats:
            try:
                if "propertyNames" in flat and not self._validator.fits(name, flat["propertyNames"]):
                    yield False
                if name in flat.get("properties", ()):
                    yield flat["properties"][name]
                yield from (
                    item
                    for each, item in flat.get("patternProperties", {}).items()
                    if self._validator.matches(each, name)
                )
                if "additionalProperties" in flat and not self._validator.is_named(name, flat):
                    yield flat["additionalProperties"]
            except UnsupportedSchema:
                if not self._wide:
                    raise
            except ValueError as error:
                if not self._wide:
                    raise self._make_error(flats, "patternProperties", str(error)) from None

    def _extras(self, key: Strings, flats: Conjunction) -> tuple[Strings, NodeId]:
        patterns = {pattern: item for flat in flats for pattern, item in flat.get("patternProperties", {}).items()}
        holding = [flat for flat in flats if "additionalProperties" in flat]
        if not patterns:
            return key, self.node([flat["additionalProperties"] for flat in holding])
        if len(patterns) > 1 or sum("patternProperties" in flat for flat in flats) > 1:
            raise self._make_error(flats, "patternProperties", "more than one pattern is not supported")
        if key.patterns:
            raise self._make_error(flats, "propertyNames", "it cannot be used with patternProperties")
        [(pattern, item)] = patterns.items()
        others = [flat["additionalProperties"] for flat in holding if "patternProperties" not in flat]
        named_so = Strings(key.least, key.most, (pattern,))
        return self._check_strings(named_so, flats, "patternProperties"), self.node([item, *others])


_TEXT: Flat = {"type": "string"}
_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf")


def _listed_values(flat: Flat) -> list[Any]:
    return [flat["const"]] if "const" in flat else flat["enum"]


def _item(flat: Flat, index: int) -> Schema:
    first = flat.get("prefixItems", ())
    return first[index] if index < len(first) else flat.get("items", True)  # type: ignore[no-any-return]


def _strictest_bound(flats: Conjunction, closed: str, opened: str, stricter: Any) -> tuple[Decimal | None, bool]:
    """The strictest bound, and whether it is itself excluded."""
    bounds = [(number(flat[closed]), False) for flat in flats if closed in flat]
    bounds += [(number(flat[opened]), True) for flat in flats if opened in flat]
    if not bounds:
        return None, False
    strictest = stricter(value for value, _ in bounds)
    return strictest, any(is_open for value, is_open in bounds if value == strictest)
