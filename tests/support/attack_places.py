"""Every place of a request model where a list or an object may be, found in its JSON schema."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """``name``: its path. A body that has a value there is ``before``, the value and ``after``."""

    name: str
    before: bytes
    after: bytes

    def body(self, value: bytes) -> bytes:
        return self.before + value + self.after

    def within(self, name: str, before: str, after: str) -> "Place":
        return Place(
            f"{name}.{self.name}".removesuffix("."), before.encode() + self.before, self.after + after.encode()
        )


def places(model: type[BaseModel]) -> list[Place]:
    schema = model.model_json_schema()
    found = {place.name: place for place in _places(schema, schema.get("$defs", {}), frozenset())}
    return list(found.values())


def _places(schema: Schema, definitions: Schema, seen: frozenset[str]) -> Iterator[Place]:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name not in seen:
            yield from _places(definitions[name], definitions, seen | {name})
        return
    for option in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        yield from _places(option, definitions, seen)
    if schema.get("type") in ("array", "object"):
        yield Place("", b"", b"")
    if isinstance(items := schema.get("items"), dict):
        for place in _places(items, definitions, seen):
            yield place.within("0", "[", "]")
    if isinstance(values := schema.get("additionalProperties"), dict):
        for place in _places(values, definitions, seen):
            yield place.within("x", '{"x":', "}")
    yield from _places_in_fields(schema, definitions, seen)


def _places_in_fields(schema: Schema, definitions: Schema, seen: frozenset[str]) -> Iterator[Place]:
    """A tag comes first, so that the value is held against the right model."""
    fields = schema.get("properties", {})
    tags = {name: stated["const"] for name, stated in fields.items() if "const" in stated}
    tag = "".join(f"{json.dumps(name)}:{json.dumps(value)}," for name, value in tags.items())
    for name, stated in fields.items():
        label = f"{name}({','.join(map(str, tags.values()))})" if tags else name
        inner = [*_places(stated, definitions, seen)] or ([Place("", b"", b"")] if "type" not in stated else [])
        for place in inner:
            yield place.within(label, "{" + tag + json.dumps(name) + ":", "}")
