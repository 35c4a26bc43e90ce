"""Random JSON Schemas: what people write, and what they rarely write, nested and combined."""

import random
from collections.abc import Callable
from typing import Any

Schema = Any
NAMES = (
    "id",
    "name",
    "kind",
    "tags",
    "a b",
    "größe",
    "名前",
    'q"uote',
    "back\\slash",
    "\U0001f600",
    "",
    "$ref",
    "x/y~z",
)
PATTERNS = (
    "^[a-z]+$",
    "^[A-Z]{2,3}$",
    r"^\d{3}-\d{4}$",
    "ab",
    "^a|b$",
    r"^\w+@\w+\.com$",
    r"^[\u4e00-\u9fff]{1,4}$",
    "^(?:red|green|blue)$",
    r'^["\\]+$',
    r"^\p{Lu}\p{L}*$",
    r"^[^,]*$",
    r"\bword\b",
    "(?=x)",
)
FORMATS = (
    "date",
    "time",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
    "uri",
    "iri",
    "password",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    1.5,
    1e5,
    2**53 + 1,
    "",
    "a",
    "é\n",
    '"\\',
    [],
    [1, "b"],
    {},
    {"id": 1},
)


class Maker:
    """Makes schemas from a seed. ``depth``: how far they nest."""

    def __init__(self, seed: int, depth: int = 3) -> None:
        self.random = random.Random(seed)  # noqa: S311 - nothing here is secret
        self.depth = depth
        self.definitions: dict[str, Schema] = {}

    def schema(self) -> dict[str, Schema]:
        """A whole schema."""
        for name in self.random.sample(("node", "text", "count"), self.random.randint(0, 2)):
            self.definitions[name] = True  # so that they may refer to each other
        for name in self.definitions:
            self.definitions[name] = self.part(self.depth - 1)
        made = self.part(self.depth)
        made = made if isinstance(made, dict) else self.objects(self.depth)
        return {**made, "$defs": self.definitions} if self.definitions else made

    def part(self, depth: int) -> Schema:
        simple: list[Callable[[], Schema]] = [self.numbers, self.strings, self.listed, self.plain]
        nested: list[Callable[[int], Schema]] = [self.objects, self.objects, self.objects, self.arrays, self.combined]
        if self.definitions and self.random.random() < 0.1:
            return self.reference()
        if depth > 0 and self.random.random() < 0.7:
            made = self.random.choice(nested)(depth - 1)
        else:
            made = self.random.choice(simple)()
        if isinstance(made, dict) and self.random.random() < 0.08:
            made = {**made, **self.combined(depth - 1)}
        if isinstance(made, dict) and self.random.random() < 0.2:
            made |= self.random.choice(({"title": "T"}, {"description": "d"}, {"default": None}, {"x-note": 1}))
        return made

    def some(self, **keywords: Callable[[], Any]) -> dict[str, Any]:
        """A few of the keywords."""
        return {name: make() for name, make in keywords.items() if self.random.random() < 0.3}

    def number(self) -> float:
        choice = self.random.random()
        if choice < 0.6:
            return self.random.randint(-20, 20)
        return self.random.choice((0.5, -0.25, 1e-3, 1e3, 99.99, 10**12, -(2**63), 2**53 + 1, 0.0))

    def numbers(self) -> Schema:
        bounds = self.some(
            minimum=self.number,
            maximum=self.number,
            exclusiveMinimum=self.number,
            exclusiveMaximum=self.number,
        )
        if self.random.random() < 0.1:
            bounds["multipleOf"] = self.random.choice((1, 2, 5, 10, 0.01, 0.5, 3))
        return {"type": self.random.choice(("integer", "integer", "number")), **bounds}

    def strings(self) -> Schema:
        made: dict[str, Any] = {"type": "string"}
        made |= self.some(minLength=lambda: self.random.randint(0, 4), maxLength=lambda: self.random.randint(1, 12))
        if self.random.random() < 0.2:
            made["pattern"] = self.random.choice(PATTERNS)
        elif self.random.random() < 0.2:
            made["format"] = self.random.choice(FORMATS)
        return made

    def listed(self) -> Schema:
        if self.random.random() < 0.3:
            return {"const": self.random.choice(VALUES)}
        made: dict[str, Any] = {"enum": self.random.sample(VALUES, self.random.randint(1, 5))}
        return {**made, **self.random.choice(({}, {}, {"type": "string"}, {"type": ["integer", "null"]}))}

    def plain(self) -> Schema:
        kinds = ("string", "integer", "number", "boolean", "null", "object", "array")
        return self.random.choice(
            (
                {"type": self.random.choice(kinds[:5])},
                {"type": self.random.choice(kinds[:5])},
                {"type": self.random.sample(kinds, 2)},
                {"type": "object"},
                {},
                True,
                False if self.random.random() < 0.3 else {"type": "boolean"},
            )
        )

    def reference(self) -> Schema:
        made = {"$ref": f"#/$defs/{self.random.choice([*self.definitions])}"}
        return {**made, **self.random.choice(({}, {}, {}, {"maxLength": 5}, {"minimum": 3}, {"title": "R"}))}

    def objects(self, depth: int) -> Schema:
        names = self.random.sample(NAMES, self.random.choice((0, 1, 2, 2, 3, 4)))
        made: dict[str, Any] = {"type": "object"}
        if names:
            made["properties"] = {name: self.part(depth) for name in names}
            made["required"] = self.random.sample(names, self.random.randint(0, len(names)))
        extras: list[Any] = [None, None, False, False, True, self.part(depth)]
        if (extra := self.random.choice(extras)) is not None:
            made["additionalProperties"] = extra
        if self.random.random() < 0.05:
            made["required"] = [*made.get("required", ()), "unnamed"]
        made |= self.seldom(
            minProperties=lambda: self.random.randint(0, 3),
            maxProperties=lambda: self.random.randint(0, 4),
            propertyNames=lambda: self.random.choice(
                ({"pattern": "^[a-z]+$"}, {"maxLength": 4}, {"enum": ["id", "kind"]})
            ),
            patternProperties=lambda: {self.random.choice(PATTERNS[:4]): self.part(depth)},
            dependentRequired=lambda: {self.random.choice(NAMES): [self.random.choice(NAMES)]},
            dependentSchemas=lambda: {self.random.choice(NAMES): self.objects(0)},
            unevaluatedProperties=lambda: False,
        )
        return made

    def seldom(self, **keywords: Callable[[], Any]) -> dict[str, Any]:
        return {name: make() for name, make in keywords.items() if self.random.random() < 0.05}

    def arrays(self, depth: int) -> Schema:
        made: dict[str, Any] = {"type": "array"}
        if self.random.random() < 0.8:
            made["items"] = self.part(depth)
        made |= self.some(minItems=lambda: self.random.randint(0, 3), maxItems=lambda: self.random.randint(0, 4))
        made |= self.seldom(
            prefixItems=lambda: [self.part(depth) for _ in range(self.random.randint(1, 3))],
            uniqueItems=lambda: self.random.random() < 0.7,
            contains=lambda: self.part(0),
            unevaluatedItems=lambda: False,
        )
        return made

    def combined(self, depth: int) -> Schema:
        def parts() -> list[Schema]:
            return [self.part(depth) for _ in range(self.random.randint(1, 3))]

        kind = self.random.choice(("anyOf", "anyOf", "anyOf", "oneOf", "allOf", "not", "if", "tagged"))
        if kind == "not":
            return {"not": self.random.choice(({"const": 1}, {"required": ["id"]}, {"type": "null"}, self.part(0)))}
        if kind == "if":
            condition: dict[str, Any] = {"properties": {"kind": {"const": self.random.choice(VALUES)}}}
            if self.random.random() < 0.5:
                condition["required"] = ["kind"]
            return {"if": condition, **self.some(then=lambda: self.objects(0), **{"else": lambda: self.objects(0)})}
        if kind == "tagged":
            options = [self.objects(depth) for _ in range(2)]
            for index, option in enumerate(options):
                option.setdefault("properties", {})["kind"] = {"const": f"k{index}"}
                if self.random.random() < 0.6:
                    option["required"] = [*{*option.get("required", ()), "kind"}]
            return {"oneOf": options}
        return {kind: parts()}


def make_schema(seed: int) -> dict[str, Any]:
    """The schema of a seed."""
    maker = Maker(seed, depth=seed % 4)
    return maker.schema()
