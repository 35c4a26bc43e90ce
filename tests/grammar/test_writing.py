# ruff: noqa: E501 - tables read better in lines

"""Grammars of whole schemas, held against validators that share nothing with them, without a model."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import jsonschema_rs
import pytest
from pydantic import BaseModel, EmailStr, Field, HttpUrl, TypeAdapter

from bench.scenarios.made_schemas import make_schema
from service.evaluators.text.schema import FollowsSchema
from service.grammar.reading import UnsupportedSchema, dotted_path
from service.grammar.writing import write_grammar
from tests.support.walks import accepts, compiled, walk

DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}
LOOP = {"$ref": "#/$defs/loop", "$defs": {"loop": {"$ref": "#/$defs/loop"}}}
TREE = {
    "type": "object",
    "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}, "value": DIGIT},
    "required": ["value"],
    "additionalProperties": False,
}


def refusal(schema: Mapping[str, Any]) -> tuple[str, str]:
    with pytest.raises(UnsupportedSchema) as caught:
        write_grammar(schema)
    return dotted_path(caught.value.path), str(caught.value)


def texts(schema: Mapping[str, Any], count: int, seed: int = 0) -> Iterator[str]:
    rules = compiled(write_grammar(schema))
    walks = (walk(rules, seed * 1000 + number) for number in range(count))
    return (text for text in walks if text is not None)


@pytest.mark.parametrize("begin", range(0, 600, 100))
def test_what_a_grammar_writes_fits_its_schema(begin: int) -> None:
    held = 0
    for seed in range(begin, begin + 100):
        schema = make_schema(seed)
        try:
            form, found = FollowsSchema(schema=schema), list(texts(schema, 3, seed))
        except ValueError:
            continue  # refused
        validator = jsonschema_rs.validator_for(schema, offline=True, validate_formats=False)
        for text in found:
            assert validator.is_valid(json.loads(text)), (seed, text)
            assert form.misfit(text) is None, (seed, text)
            held += 1
    assert held > 120


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "null"}, ["null"], ["1"]),
        ({"type": ["integer", "null"]}, ["5", "null"], ['"5"', "5.5"]),
        ({"enum": ["a", 1, None, {"b": [1.5]}]}, ['"a"', "1", "null", '{"b":[1.5]}'], ['"b"', "2"]),
        ({"const": "é\"\\\n"}, [r'"é\"\\\n"'], ['"e"']),
        ({"enum": [1, 2, "3"], "type": "integer", "minimum": 2}, ["2"], ["1", '"3"']),
        ({"type": "integer", "minimum": 1, "maximum": 12}, ["1", "12"], ["0", "13", "1.0", "01"]),
        ({"type": "integer", "exclusiveMinimum": -1, "maximum": 100, "multipleOf": 25}, ["0", "75"], ["10", "125"]),
        ({"type": "number", "multipleOf": 0.01, "minimum": 0}, ["19.99", "3"], ["19.999", "-1"]),
        ({"type": "integer", "minimum": 0, "maximum": 3, "not": {"enum": [0, 1, 2]}}, ["3"], ["0", "2"]),
        ({"type": ["string", "null"], "not": {"type": "null"}}, ['"a"'], ["null"]),
        ({"type": "array", "items": DIGIT, "minItems": 1, "maxItems": 2}, ["[1]", "[1, 2]", "[1,2]"], ["[]", "[1,2,3]"]),
        ({"type": "array", "prefixItems": [DIGIT, {"type": "string"}], "minItems": 2}, ['[1,"a"]'], ["[1]", '["a"]']),
        ({"type": "array", "prefixItems": [DIGIT], "items": {"type": "null"}}, ["[]", "[1,null,null]"], ["[null]"]),
        ({"type": "array", "prefixItems": [DIGIT, False]}, ["[]", "[1]"], ["[1,1]"]),
        ({"type": "array", "maxItems": 1, "uniqueItems": True, "items": DIGIT}, ["[]", "[3]"], ["[3,3]"]),
        ({"type": "object", "properties": {"a": DIGIT}}, ["{}", '{"a":1}', '{"a": 1}'], ['{"a":"x"}', '{"b":1}']),
        ({"type": "object", "additionalProperties": DIGIT}, ["{}", '{"x":1,"é":2}'], ['{"x":"y"}']),
        ({"type": "object", "additionalProperties": DIGIT, "minProperties": 1, "maxProperties": 2}, ['{"x":1}'], ["{}"]),
        ({"type": "object", "additionalProperties": False}, ["{}"], ['{"a":1}']),
        ({"type": "object"}, ["{}", '{"a":[1,{"b":null}]}'], ["[]"]),
        ({"type": "object", "required": ["a"], "additionalProperties": DIGIT}, ['{"a":1}'], ["{}", '{"a":"x"}']),
        ({"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 2, "maxProperties": 2},
            ['{"a":1,"c":2}', '{"b":1,"c":2}'], ["{}", '{"a":1}', '{"a":1,"b":1,"c":1}']),
        ({"type": "object", "patternProperties": {"^x": DIGIT}, "additionalProperties": False}, ['{"xy":1}'], ['{"y":1}']),
        ({"type": "object", "properties": {"xa": {"minimum": 5}}, "patternProperties": {"^x": DIGIT}}, ['{"xa":7}'], ['{"xa":3}']),
        ({"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": DIGIT}, ['{"b":1}'], ['{"c":1}']),
        ({"type": "object", "propertyNames": {"pattern": "^[a-z]$"}}, ['{"a":1}'], ['{"A":1}', '{"ab":1}']),
        ({"type": "object", "properties": {"secret": False, "a": DIGIT}}, ['{"a":1}'], ['{"secret":1}']),
        ({"type": "object", "properties": {"a": DIGIT, "b": DIGIT}, "dependentRequired": {"a": ["b"]}},
            ["{}", '{"b":1}', '{"a":1,"b":2}'], ['{"a":1}']),
        ({"type": "object", "properties": {"a": DIGIT}, "dependentSchemas": {"a": {"maxProperties": 0}}}, ["{}"], ['{"a":1}']),
        ({"anyOf": [{"type": "string", "maxLength": 1}, DIGIT]}, ['"a"', "7"], ['"ab"', "77"]),
        ({"anyOf": [{"minimum": 5}, {"maximum": 2}], **DIGIT}, ["1", "7"], ["3"]),
        ({"oneOf": [{"type": "string"}, {"type": "null"}]}, ['"a"', "null"], ["1"]),
        ({"oneOf": [{"type": "integer", "minimum": 6}, {"type": "integer", "maximum": 3}]}, ["7", "1"], ["5"]),
        ({"allOf": [{"properties": {"a": DIGIT}, "required": ["a"]}, {"properties": {"b": DIGIT}, "required": ["b"]}],
            "type": "object"}, ['{"a":1,"b":2}'], ['{"a":1}', '{"b":2}']),
        ({"allOf": [{"type": "string", "minLength": 1}, {"maxLength": 2}]}, ['"a"', '"ab"'], ['""', '"abc"']),
        ({"allOf": [{"properties": {"a": DIGIT}}], "unevaluatedProperties": False, "type": "object"}, ['{"a":1}'], ['{"b":1}']),
        ({"type": "object", "properties": {"kind": {"enum": ["card", "cash"]}, "last": DIGIT}, "required": ["kind"],
            "if": {"properties": {"kind": {"const": "card"}}}, "then": {"required": ["last"]}},
            ['{"kind":"card","last":1}', '{"kind":"cash"}'], ['{"kind":"card"}']),
        ({"type": "object", "properties": {"id": DIGIT}, "required": ["id"],
            "anyOf": [{"properties": {"mail": {"type": "boolean"}}, "required": ["mail"]}, {"properties": {"a": {}}, "required": ["a"]}]},
            ['{"id":1,"mail":true}', '{"id":1,"a":null}'], ['{"id":1}', '{"mail":true}', '{"id":1,"mail":1}']),
        ({"$ref": "#/$defs/text", "maxLength": 3, "$defs": {"text": {"type": "string"}}}, ['"abc"'], ['"abcd"']),
        (TREE, ['{"value":1}', '{"left":{"value":1},"value":2}'], ['{"left":{},"value":2}']),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/a~1b%20c", "maxLength": 0,
            "definitions": {"a/b c": {"type": "string"}}}, ['"long"'], ["1"]),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "items": [DIGIT], "additionalItems": False},
            ["[1]"], ["[1,1]", '["a"]']),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": {"a": DIGIT, "b": DIGIT},
            "dependencies": {"a": ["b"]}}, ['{"a":1,"b":2}', '{"b":1}'], ['{"a":1}']),
        ({"type": "object", "properties": {'q"\\é\n': DIGIT}, "required": ['q"\\é\n']}, [r'{"q\"\\é\n":1}'], ["{}"]),
        ({"title": "T", "description": "d", "default": 1, "examples": [1], "x-mine": {"not": 1}, **DIGIT}, ["1"], ["10"]),
    ],
    ids=lambda value: json.dumps(value, ensure_ascii=True)[:60],
)  # fmt: skip
def test_schemas(schema: dict[str, Any], good: list[str], bad: list[str]) -> None:
    rules = compiled(write_grammar(schema))
    assert [text for text in good if not accepts(rules, text)] == []
    assert [text for text in bad if accepts(rules, text)] == []
    validator = jsonschema_rs.validator_for(schema)
    assert all(validator.is_valid(json.loads(text)) for text in good)
    assert all(validator.is_valid(json.loads(text)) for text in texts(schema, 20))


@pytest.mark.parametrize(
    ("schema", "field", "message"),
    [
        (LOOP, "$defs.loop.$ref", "$ref: it leads to itself, so no value would ever be complete"),
        ({"allOf": [{"$ref": "#"}]}, "$ref", "$ref: it leads to itself, so no value would ever be complete"),
        (
            {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]},
            "",
            "nothing fits it: look at type, properties, required",
        ),
        (
            {"oneOf": [DIGIT, {"type": "integer", "minimum": 3}]},
            "oneOf",
            "oneOf: two of its schemas may fit the same value",
        ),
        (
            {"type": "string", "not": {"const": "a"}},
            "not",
            "not: it is supported only if the remaining values can be listed",
        ),
        (
            {"properties": {"a": {"not": {"type": "integer"}}}, "type": "object"},
            "properties.a.not",
            "not: it is supported",
        ),
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, "uniqueItems", "uniqueItems: it is not"),
        ({"type": "array", "contains": DIGIT}, "contains", "contains: it is not supported"),
        ({"type": "number", "multipleOf": 0.3}, "multipleOf", "multipleOf: it is supported only for powers of ten"),
        ({"type": "integer", "multipleOf": 7}, "multipleOf", "multipleOf: it is supported only for powers of ten"),
        (
            {"type": "string", "pattern": "^[a-z]+@", "maxLength": 30},
            "maxLength",
            "maxLength: cannot be used with a pattern",
        ),
        (
            {"type": "string", "pattern": "^a*$", "minLength": 3},
            "minLength",
            "minLength: cannot be used with a pattern",
        ),
        (
            {"type": "string", "format": "date", "pattern": "^2"},
            "format",
            "format: a string cannot have two patterns",
        ),
        ({"type": "string", "format": "iri"}, "format", "format: 'iri' is not supported; date, time"),
        ({"type": "string", "pattern": r"\bword"}, "pattern", "pattern: a pattern may have ^"),
        (
            {"type": "object", "minProperties": 2},
            "minProperties",
            "minProperties: above 1 it is supported only together with properties",
        ),
        (
            {"type": "object", "properties": {"a": DIGIT}, "minProperties": 2},
            "minProperties",
            "minProperties: it is supported only up",
        ),
        (
            {"type": "object", "patternProperties": {"^a": DIGIT, "^b": DIGIT}},
            "patternProperties",
            "patternProperties: more than",
        ),
        (
            {"type": "object", "propertyNames": {"maxLength": 2}, "patternProperties": {"^a+$": DIGIT}},
            "patternProperties",
            "",
        ),
        ({"type": "integer", "minimum": 10**18}, "minimum", "minimum: no number with that few digits"),
        ({"type": "string", "minLength": 3, "maxLength": 1}, "", "nothing fits it: look at type, minLength, maxLength"),
        (
            {"type": "object", "properties": {"a": {"enum": [1], "type": "string"}}, "required": ["a"]},
            "properties.a",
            "nothing",
        ),
        (
            {"type": "object", "properties": {"a": False}, "required": ["a"]},
            "properties.a",
            "nothing fits it: look at false",
        ),
        ({"$dynamicRef": "#x"}, "$dynamicRef", "$dynamicRef: it is not supported: use $ref"),
        (
            {"allOf": [{"anyOf": [{"minimum": i}, {"maximum": -i}]} for i in range(9)]},
            "allOf.8",
            "it has more than 256",
        ),
        (
            {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(900)}},
            "",
            "the schema is too large",
        ),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_a_schema_that_no_grammar_holds_to_is_refused_by_name(schema: dict[str, Any], field: str, message: str) -> None:
    found = refusal(schema)
    assert found[0] == field
    assert found[1].startswith(message)


def test_a_schema_that_takes_too_long_is_refused() -> None:
    deep: dict[str, Any] = {"type": "null"}
    for _ in range(3000):
        deep = {"type": "array", "items": deep}
    assert refusal(deep)[1] == "the schema is nested too deeply"
    options = [{"properties": {f"a{i}": {"enum": [j, 50]}}, "required": [f"a{i}"]} for i in range(60) for j in range(2)]
    assert "too" in refusal({"type": "object", "oneOf": options})[1] or "oneOf" in refusal({"oneOf": options})[1]


def test_members_are_written_in_the_order_of_the_schema() -> None:
    schema = {"type": "object", "properties": {"b": DIGIT, "a": DIGIT}, "required": ["a", "b"]}
    assert all([*json.loads(text)] == ["b", "a"] for text in texts(schema, 5))


def test_options_that_overlap_are_told_apart_by_a_member_whose_values_they_list() -> None:
    def option(kind: str) -> dict[str, Any]:
        return {"type": "object", "properties": {"kind": {"const": kind}, "n": DIGIT}}

    schema = {"oneOf": [option("cat"), option("dog")]}
    rules = compiled(write_grammar(schema))
    assert accepts(rules, '{"kind":"cat","n":1}')
    assert not accepts(rules, '{"n":1}')  # it fits both


class Colour(Enum):
    red = "red"
    blue = "blue"


class Address(BaseModel):
    street: str
    code: str = Field(pattern=r"^\d{5}$")


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = Field(ge=0, le=9)


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str = Field(min_length=1, max_length=20)


class Tree(BaseModel):
    value: int
    children: list["Tree"] = []


class Order(BaseModel):
    """Whatever people put into the models that they want filled."""

    name: str
    age: int | None = None
    colour: Colour
    tags: Annotated[list[str], Field(max_length=5)]
    scores: dict[str, int] = {}
    address: Address
    born: date
    seen: datetime
    id: UUID
    mail: EmailStr
    site: HttpUrl | None = None
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    price: Annotated[float, Field(gt=0, lt=1000, multiple_of=0.01)]
    pair: tuple[int, str]
    level: Literal[1, 2, 3]
    tree: Tree
    mixed: int | str | bool
    share: Annotated[float, Field(ge=0, le=1)]
    flags: dict[Literal["a", "b"], bool] = {}


@pytest.mark.parametrize(
    "kind",
    [
        Order,
        Tree,
        list[Cat | Dog],
        dict[str, Address],
        tuple[int, ...],
        list[Colour],
        int | None,
        bool,
        Any,
    ],
    ids=str,
)
def test_types_of_pydantic_are_accepted(kind: Any) -> None:
    adapter = TypeAdapter[Any](kind)
    for text in texts(adapter.json_schema(), 25):
        adapter.validate_json(text)


def test_schemas_as_openai_wants_them_are_accepted() -> None:
    schema = Order.model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        if "properties" in part:
            part |= {"additionalProperties": False, "required": [*part["properties"]]}
    validator = jsonschema_rs.validator_for(schema)
    assert all(validator.is_valid(json.loads(text)) for text in texts(schema, 25))


def test_the_largest_grammar_is_written_within_bounds() -> None:
    schema = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(300)}}
    assert len(write_grammar(schema)) < 100_000
    assert re.match("start: node0\n", write_grammar(schema))
