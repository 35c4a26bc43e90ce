"""Resolves the keywords that combine schemas. The result is a list of alternatives, each a set of schemas that hold.

``$ref`` and ``allOf`` add to the set. ``anyOf``, ``oneOf``, ``if`` and the dependent keywords split it. ``not`` splits
it if it is about members or types, and is kept otherwise.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from service.grammar.reading import Schema, SchemaReader, UnsupportedSchema
from service.grammar.values import canonical_form

Flat = dict[str, Any]
"""A schema of which only the keywords about a single value count."""
Conjunction = tuple[Flat, ...]

MOST_ALTERNATIVES = 256
COMBINING = frozenset(
    {"$ref", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas"}
)
TYPES = frozenset({"null", "boolean", "number", "string", "array", "object"})
_LEADS_TO_ITSELF = "it leads to itself, so no value would ever be complete"


class Branches:
    """Turns schemas into alternatives.

    disjoint: says whether no value fits two schemas at once, as far as it can tell. If it is None, ``oneOf`` is treated
        as ``anyOf``, which allows more.
    """

    def __init__(self, reader: SchemaReader, disjoint: Callable[[Schema, Schema], bool] | None) -> None:
        self._reader = reader
        self._disjoint = disjoint
        self._made: dict[tuple[object, ...], Schema] = {}
        self._kept: list[Schema] = []
        self._begun: set[int] = set()
        self._found: dict[int, list[Conjunction]] = {}
        self._outlines: dict[tuple[str, int], dict[str, Any]] = {}

    def alternatives(self, schemas: Sequence[Schema]) -> list[Conjunction]:
        """The alternatives in which all of the schemas hold."""
        found: list[Conjunction] = [()]
        for schema in schemas:
            found = _combine(found, self._expand(schema))
            self._refuse_many(found, schema)
        return found

    def _expand(self, schema: Schema) -> list[Conjunction]:
        if isinstance(schema, bool):
            return [()] if schema else []
        key = id(schema)
        if key in self._begun and key not in self._found:
            path = self._reader.paths.get(key, ())
            raise UnsupportedSchema(path, "$ref", _LEADS_TO_ITSELF)
        if key not in self._found:
            self._begun.add(key)
            self._kept.append(schema)
            self._found[key] = self._expand_schema(schema)
        return self._found[key]

    def _expand_schema(self, schema: Flat) -> list[Conjunction]:
        found = self.alternatives(self._conjuncts(schema))
        for options in self._splits(schema):
            branches = [branch for option in options for branch in self._expand(option)]
            found = _combine(found, branches)
            self._refuse_many(found, schema)
        return [self._close(schema, (schema, *together)) for together in found]

    def _refuse_many(self, found: Sequence[Conjunction], schema: Schema) -> None:
        if len(found) > MOST_ALTERNATIVES:
            path = self._reader.paths.get(id(schema), ())
            raise UnsupportedSchema(path, "", f"it has more than {MOST_ALTERNATIVES} alternatives")

    def _conjuncts(self, schema: Flat) -> list[Schema]:
        joined = list(schema.get("allOf", ()))
        if "$ref" in schema:
            joined.append(self._reader.target(schema["$ref"], self._reader.paths.get(id(schema), ())))
        if "not" in schema:
            joined.append(self._negate(schema["not"]))
        return joined

    def _splits(self, schema: Flat) -> list[list[Schema]]:
        splits = list[list[Schema]]()
        if "anyOf" in schema:
            splits.append(schema["anyOf"])
        if "oneOf" in schema:
            splits.append(self._disjoint_options(schema))
        if "if" in schema and ("then" in schema or "else" in schema):
            condition = schema["if"]
            met = self._make("all", {"allOf": [condition, schema.get("then", True)]}, condition, schema)
            missed = {"allOf": [self._negate(condition), schema.get("else", True)]}
            splits.append([met, self._make("else", missed, condition, schema)])
        for name, names in schema.get("dependentRequired", {}).items():
            splits.append([self._forbid_member(name), self._make("with", {"required": [name, *names]}, names, name)])
        for name, wanted in schema.get("dependentSchemas", {}).items():
            present = {"allOf": [{"required": [name]}, wanted]}
            splits.append([self._forbid_member(name), self._make("with", present, wanted, name)])
        return splits

    def _make(self, kind: str, schema: Flat, about: object, more: object = None) -> Schema:
        """Return ``schema``, or the object that an earlier call made for the same purpose, so that recursion ends."""
        key = (kind, about if isinstance(about, str) else id(about), more if isinstance(more, str) else id(more))
        if key not in self._made:
            self._made[key] = schema
            if isinstance(about, dict):
                self._reader.paths.setdefault(id(schema), self._reader.paths.get(id(about), ()))
        return self._made[key]

    def _forbid_member(self, name: str) -> Schema:
        return self._make("without", {"properties": {name: False}}, name)

    def _negate(self, schema: Schema) -> Schema:
        """A schema that fits exactly the values that this one does not fit."""
        if isinstance(schema, bool):
            return not schema
        keywords = schema.keys()
        types = {schema["type"]} if isinstance(schema.get("type"), str) else {*schema.get("type", ())}
        if keywords == {"type"} and "integer" not in types - ({"integer"} if "number" in types else set()):
            return self._make("types", {"type": sorted(TYPES - types)}, schema)
        if keywords == {"not"}:
            return schema["not"]  # type: ignore[no-any-return]
        if keywords == {"anyOf"}:
            return self._make("none", {"allOf": [self._negate(option) for option in schema["anyOf"]]}, schema)
        if keywords <= {"type", "properties", "required"} and types <= {"object"} and keywords != {"type"}:
            return self._make("object", {"anyOf": self._negate_object(schema)}, schema)
        return self._make("not", {"unlike": schema}, schema)

    def _negate_object(self, schema: Flat) -> list[Schema]:
        options = list[Schema]()
        if "type" in schema:
            options.append({"type": sorted(TYPES - {"object"})})
        for name in schema.get("required", ()):
            options.append({"type": "object", "properties": {name: False}})
        for name, wanted in schema.get("properties", {}).items():
            options.append({"type": "object", "required": [name], "properties": {name: self._negate(wanted)}})
        return options

    def _disjoint_options(self, schema: Flat) -> list[Schema]:
        """The options, if no two of them share a value. Otherwise the options with a member that distinguishes them,
        which every object must then have. Raises UnsupportedSchema if there is no such member."""
        options: list[Schema] = schema["oneOf"]
        if self._disjoint is None or self._are_disjoint(options, options):
            return options
        for name in self._tags(options):
            tagged = [self._make(f"tag {name}", _require_member(option, name), option) for option in options]
            if self._are_disjoint(tagged, options):
                return tagged
        path = self._reader.paths.get(id(schema), ())
        raise UnsupportedSchema(
            path, "oneOf", "two of its schemas may fit the same value: use anyOf if that does not matter"
        )

    def _are_disjoint(self, narrow: Sequence[Schema], wide: Sequence[Schema]) -> bool:
        """Whether no value that fits one of the narrow options fits another of the wide ones."""
        for i, one in enumerate(narrow):
            for j, other in enumerate(wide):
                if i == j or (narrow is wide and i > j):
                    continue
                if not (
                    self._has_distinct_member(one, other) or (self._disjoint is not None and self._disjoint(one, other))
                ):
                    return False
        return True

    def _has_distinct_member(self, one: Schema, other: Schema) -> bool:
        """Whether a member that the first requires has other values in the second. This is the usual case, and fast."""
        first, second = self._outline(one), self._outline(other)
        for name in first["required"] if first["object"] or second["object"] else ():
            values, others = first["values"].get(name), second["values"].get(name)
            if values is not None and others is not None and not values & others:
                return True
        return False

    def _outline(self, schema: Schema) -> dict[str, Any]:
        """What a schema, its references and its ``allOf`` say about objects: required members and listed values."""
        key = ("outline", id(schema))
        if (known := self._outlines.get(key)) is not None:
            return known
        found: dict[str, Any] = {"object": False, "required": set(), "values": {}}
        pending, seen = [schema], set[int]()
        while pending:
            part = pending.pop()
            if not isinstance(part, dict) or id(part) in seen:
                continue
            seen.add(id(part))
            found["object"] |= part.get("type") == "object"
            found["required"] |= {*part.get("required", ())}
            for name, member in part.get("properties", {}).items():
                if isinstance(member, dict) and ("const" in member or "enum" in member):
                    listed = [member["const"]] if "const" in member else member["enum"]
                    found["values"].setdefault(name, {*map(canonical_form, listed)})
            pending += part.get("allOf", ())
            if "$ref" in part:
                pending.append(self._reader.target(part["$ref"], self._reader.paths.get(id(part), ())))
        self._kept.append(schema)
        self._outlines[key] = found
        return found

    def _tags(self, options: Sequence[Schema]) -> list[str]:
        """The members whose values all options list."""
        return sorted(set.intersection(*(set(self._outline(option)["values"]) for option in options)))

    def _close(self, schema: Flat, together: Conjunction) -> Conjunction:
        """Replace ``unevaluatedProperties`` and ``unevaluatedItems`` by keywords that look at one schema only."""
        if "unevaluatedProperties" in schema and not any("additionalProperties" in flat for flat in together):
            names = dict.fromkeys(name for flat in together for name in flat.get("properties", ()))
            if any("patternProperties" in flat for flat in together):
                path = self._reader.paths.get(id(schema), ())
                raise UnsupportedSchema(path, "unevaluatedProperties", "it cannot be used with patternProperties")
            rest = schema["unevaluatedProperties"]
            together = (*together, self._keep({"properties": dict.fromkeys(names, True), "additionalProperties": rest}))
        if "unevaluatedItems" in schema and not any("items" in flat for flat in together):
            first = max((len(flat.get("prefixItems", ())) for flat in together), default=0)
            together = (*together, self._keep({"prefixItems": [True] * first, "items": schema["unevaluatedItems"]}))
        return together

    def _keep(self, schema: Flat) -> Flat:
        self._kept.append(schema)  # an object that is known by its id must not be freed
        return schema


def _combine(found: Sequence[Conjunction], options: Sequence[Conjunction]) -> list[Conjunction]:
    """Each alternative with each option. A schema is taken once."""
    pairs = (itertools.chain(before, option) for before, option in itertools.product(found, options))
    return [tuple({id(flat): flat for flat in pair}.values()) for pair in pairs]


def _require_member(option: Schema, name: str) -> Flat:
    return {"allOf": [option, {"type": "object", "required": [name]}]}
