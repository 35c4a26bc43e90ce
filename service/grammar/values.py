"""Validates the values in a schema itself, such as those of ``enum``, against the rest of the schema."""

from collections.abc import Callable, Hashable, Mapping
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

import re2

from service.expressions import parse, to_re2
from service.grammar.reading import Schema, SchemaReader, UnsupportedSchema

MOST_STEPS = 100_000
CHEAP_SEARCH = 500
"""Instructions of a pattern times characters of a text that count as one step."""


def number(value: float) -> Decimal:
    """The shortest decimal that is read as this float, which is how it was written."""
    return Decimal(repr(value))


def types_of(value: object) -> frozenset[str]:
    match value:
        case None:
            return frozenset({"null"})
        case bool():
            return frozenset({"boolean"})
        case str():
            return frozenset({"string"})
        case list():
            return frozenset({"array"})
        case Mapping():
            return frozenset({"object"})
        case int() | float():
            whole = number(value) == number(value).to_integral_value()
            return frozenset({"integer", "number"}) if whole else frozenset({"number"})
    raise TypeError(f"{value!r} is not a value of JSON")


def canonical_form(value: Any) -> Hashable:
    """A value that equals another exactly if they are equal in JSON: 1 equals 1.0 but not true."""
    match value:
        case Mapping():
            return frozenset((name, canonical_form(item)) for name, item in value.items())
        case list():
            return tuple(map(canonical_form, value))
        case bool():
            return bool, value
        case _:
            return value  # type: ignore[no-any-return]


@lru_cache(maxsize=256)
def _compile(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 19
    try:
        return re2.compile(to_re2(parse(pattern)), options)
    except re2.error as error:
        raise ValueError("a pattern is not supported") from error


class Validator:
    """Validates values against schemas, in a bounded number of steps for all calls together."""

    def __init__(self, reader: SchemaReader) -> None:
        self._reader = reader
        self._steps = MOST_STEPS
        self._lists: dict[int, frozenset[Hashable]] = {}

    def fits(self, value: Any, schema: Schema) -> bool:
        """Whether the value is valid. Raises UnsupportedSchema if that depends on a keyword that is not supported."""
        if isinstance(schema, bool):
            return schema
        for keyword, wanted in schema.items():
            self._steps -= 1
            path = self._reader.paths.get(id(schema), ())
            if self._steps < 0:
                raise UnsupportedSchema(path, keyword, "the schema takes too long to read")
            try:
                if not self._fits_keyword(value, keyword, wanted, schema):
                    return False
            except UnsupportedSchema:
                raise
            except (ValueError, RecursionError) as error:
                raise UnsupportedSchema(path, keyword, str(error)) from None
        return True

    def _fits_keyword(self, value: Any, keyword: str, wanted: Any, schema: dict[str, Any]) -> bool:
        if (test := _TESTS.get(keyword)) is not None:
            kind, holds = test
            return kind not in types_of(value) or holds(value, wanted)
        match keyword:
            case "type":
                return bool(types_of(value) & {wanted} if isinstance(wanted, str) else types_of(value) & {*wanted})
            case "const":
                return canonical_form(value) == canonical_form(wanted)
            case "enum":
                return canonical_form(value) in self._enum_values(wanted)
            case "allOf":
                return all(self.fits(value, item) for item in wanted)
            case "anyOf":
                return any(self.fits(value, item) for item in wanted)
            case "oneOf":
                return sum(self.fits(value, item) for item in wanted) == 1
            case "not":
                return not self.fits(value, wanted)
            case "if":
                branch = "then" if self.fits(value, wanted) else "else"
                return self.fits(value, schema.get(branch, True))
            case "pattern":
                return not isinstance(value, str) or self.matches(wanted, value)
            case "then" | "else" | "format":
                return True
            case "$ref":
                return self.fits(value, self._reader.target(wanted, self._reader.paths.get(id(schema), ())))
        if isinstance(value, list):
            return self._fits_item_keyword(value, keyword, wanted, schema)
        return self._fits_member_keyword(value, keyword, wanted, schema) if isinstance(value, Mapping) else True

    def matches(self, pattern: str, text: str) -> bool:
        """Whether a pattern matches anywhere in a text. Raises ValueError if that takes too long."""
        compiled = _compile(pattern)
        self._steps -= compiled.programsize * len(text) // CHEAP_SEARCH
        if self._steps < 0:
            raise ValueError("the schema takes too long to read")
        return compiled.search(text) is not None

    def is_named(self, name: str, schema: Mapping[str, Any]) -> bool:
        """Whether ``properties`` or ``patternProperties`` covers a name."""
        patterns = schema.get("patternProperties", ())
        return name in schema.get("properties", ()) or any(self.matches(pattern, name) for pattern in patterns)

    def _enum_values(self, values: list[Any]) -> frozenset[Hashable]:
        if id(values) not in self._lists:
            self._lists[id(values)] = frozenset(map(canonical_form, values))
        return self._lists[id(values)]

    def _fits_item_keyword(self, value: list[Any], keyword: str, wanted: Any, schema: dict[str, Any]) -> bool:
        match keyword:
            case "prefixItems":
                return all(map(self.fits, value, wanted))
            case "items":
                return all(self.fits(item, wanted) for item in value[len(schema.get("prefixItems", ())) :])
            case "contains" | "minContains" | "maxContains" | "unevaluatedItems":
                raise ValueError("it is not supported")
        return True

    def _fits_member_keyword(self, value: Mapping[str, Any], keyword: str, wanted: Any, schema: dict[str, Any]) -> bool:
        match keyword:
            case "properties":
                return all(self.fits(value[name], item) for name, item in wanted.items() if name in value)
            case "patternProperties":
                return all(
                    self.fits(member, item)
                    for pattern, item in wanted.items()
                    for name, member in value.items()
                    if self.matches(pattern, name)
                )
            case "additionalProperties":
                return all(self.fits(item, wanted) for name, item in value.items() if not self.is_named(name, schema))
            case "propertyNames":
                return all(self.fits(name, wanted) for name in value)
            case "dependentRequired":
                return all(set(names) <= value.keys() for name, names in wanted.items() if name in value)
            case "dependentSchemas":
                return all(self.fits(value, item) for name, item in wanted.items() if name in value)
            case "unevaluatedProperties":
                raise ValueError("it is not supported")
        return True


def is_multiple(value: float, unit: float) -> bool:
    quotient = Fraction(number(value)) / Fraction(number(unit))
    return quotient.denominator == 1


def _are_distinct(items: list[Any]) -> bool:
    return len({*map(canonical_form, items)}) == len(items)


_TESTS: Mapping[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "minimum": ("number", lambda value, bound: number(value) >= number(bound)),
    "maximum": ("number", lambda value, bound: number(value) <= number(bound)),
    "exclusiveMinimum": ("number", lambda value, bound: number(value) > number(bound)),
    "exclusiveMaximum": ("number", lambda value, bound: number(value) < number(bound)),
    "multipleOf": ("number", is_multiple),
    "minLength": ("string", lambda value, bound: len(value) >= bound),
    "maxLength": ("string", lambda value, bound: len(value) <= bound),
    "minItems": ("array", lambda value, bound: len(value) >= bound),
    "maxItems": ("array", lambda value, bound: len(value) <= bound),
    "uniqueItems": ("array", lambda value, wanted: not wanted or _are_distinct(value)),
    "minProperties": ("object", lambda value, bound: len(value) >= bound),
    "maxProperties": ("object", lambda value, bound: len(value) <= bound),
    "required": ("object", lambda value, names: set(names) <= value.keys()),
}
