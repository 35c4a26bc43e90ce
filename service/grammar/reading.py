"""Reads JSON Schemas of all drafts into the form of draft 2020-12, without annotations."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

Schema = dict[str, Any] | bool
Path = tuple[str, ...]

OLD_DRAFTS = ("draft-06", "draft-07")
_REFUSED = ("$dynamicRef", "$recursiveRef", "contains", "minContains", "maxContains")
_ONE = ("additionalProperties", "propertyNames", "items", "not", "if", "then", "else", "unevaluatedItems")
_SCHEMAS = (*_ONE, "unevaluatedProperties", "contains", "additionalItems")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "dependentSchemas")
_PLAIN = (
    *("type", "enum", "const", "required", "dependentRequired", "minProperties", "maxProperties", "minItems"),
    *("maxItems", "uniqueItems", "minLength", "maxLength", "pattern", "format", "minimum", "maximum"),
    *("exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
)


class UnsupportedSchema(ValueError):
    """A schema for which there is no grammar.

    path: the members that lead to the keyword. keyword: "" for none in particular. reason: a sentence for the caller.
    """

    def __init__(self, path: Sequence[str], keyword: str, reason: str) -> None:
        self.path = (*path, keyword) if keyword else tuple(path)
        self.keyword = keyword
        self.reason = reason
        super().__init__(f"{keyword}: {reason}" if keyword else reason)


class SchemaReader:
    """Reads each subschema once, so that the same subschema is always the same object. ``paths``: where, by id."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = dict(root)
        self._old = any(draft in str(root.get("$schema")) for draft in OLD_DRAFTS)
        self._read: dict[int, Schema] = {}
        self.paths: dict[int, Path] = {}
        self.root = self.read(self._root, ())

    def read(self, schema: Any, path: Path) -> Schema:
        if isinstance(schema, bool):
            return schema
        if (known := self._read.get(id(schema))) is not None:
            return known
        made: dict[str, Any] = {}
        self._read[id(schema)] = made
        self.paths[id(made)] = path
        for name, value in self._members(schema):
            made[name] = self._read_member(name, value, (*path, name))
        return made or True

    def target(self, reference: str, path: Path) -> Schema:
        """The subschema that a reference points to."""
        found: Any = self._root
        steps = [unquote(step).replace("~1", "/").replace("~0", "~") for step in reference.split("/")[1:]]
        try:
            for step in steps:
                found = found[int(step)] if isinstance(found, list) else found[step]
        except (KeyError, ValueError, IndexError, TypeError):
            raise UnsupportedSchema(path, "$ref", "it leads nowhere") from None
        if not reference.startswith("#") or not isinstance(found, dict | bool):
            raise UnsupportedSchema(path, "$ref", "it leads nowhere")
        return self.read(found, tuple(steps))

    def _members(self, schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        if self._old and "$ref" in schema:
            yield "$ref", schema["$ref"]  # nothing next to it counts
            return
        for name, value in schema.items():
            if name == "items" and isinstance(value, list):
                yield "prefixItems", value
                if "additionalItems" in schema:
                    yield "items", schema["additionalItems"]
            elif name == "dependencies" and self._old:
                lists = {key: names for key, names in value.items() if isinstance(names, list)}
                yield "dependentRequired", lists
                yield "dependentSchemas", {key: wanted for key, wanted in value.items() if key not in lists}
            elif name in (*_PLAIN, *_ONE, *_LISTS, *_MAPS, *_REFUSED, "unevaluatedProperties", "$ref"):
                yield name, value

    def _read_member(self, name: str, value: Any, path: Path) -> Any:
        if name in _SCHEMAS:
            return self.read(value, path)
        if name in _LISTS:
            return [self.read(item, (*path, str(index))) for index, item in enumerate(value)]
        if name in _MAPS:
            return {key: self.read(item, (*path, key)) for key, item in value.items()}
        return value


def dotted_path(path: Sequence[str]) -> str:
    """A path as the name of a field: "properties.age.minimum"."""
    return ".".join(re.sub(r"\s", " ", step) for step in path)
