import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from service.evaluators.base import Check
from service.evaluators.text.documents import json_document
from service.evaluators.text.regex import MAX_TEXT
from service.evaluators.text.schema import MAX_ISSUES, MAX_MESSAGE, FollowsSchema

WIRE = TypeAdapter(FollowsSchema)
EVIL = "(a+)+$"
VICTIM = "a" * 60 + "!"
DRAFTS = {
    "https://json-schema.org/draft/2020-12/schema": "$defs",
    "https://json-schema.org/draft/2019-09/schema": "$defs",
    "http://json-schema.org/draft-07/schema#": "definitions",
    "http://json-schema.org/draft-06/schema#": "definitions",
}


def fits(schema: dict[str, Any], document: object) -> bool:
    return all(check.score == 1.0 for check in FollowsSchema(schema=schema).check(json.dumps(document)))


def refusal(schema: Any) -> tuple[tuple[int | str, ...], str]:
    with pytest.raises(ValidationError) as caught:
        WIRE.validate_json(json.dumps({"type": "json_schema", "schema": schema}))
    (error,) = caught.value.errors()
    return error["loc"], error["msg"]


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ('{"a": 1}', {"a": 1}),
        ("\r\n null \n", None),
        ('```json\n{"a": "```"}\n```', {"a": "```"}),
        ("```JSON \r\n[1]\r\n```\n", [1]),
        ("```\n[1]```", [1]),
        ("``` json\n[1]\n```", [1]),
        ("````json\n[1]\n````", [1]),
        ("~~~json\n[1]\n~~~", [1]),
        ("```json5\n[1]\n```", [1]),
        ('```json title="a" {1}\n[1]\n```', [1]),
        ("  ```json\n  [1]\n  ```", [1]),
    ],
)
def test_a_document_is_the_whole_text(text: str, document: object) -> None:
    assert json_document(text) == document


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        "{} {}",
        "Here: {}",
        "```json\n{}",
        "```py\n{}\n```",
        "```json\n{}\n```\nThat is all.",
        "Here it is:\n```json\n{}\n```",
        "````json\n{}\n```",
        "1e9999999999999999999",
        "0." + "1" * 5000,
        "Infinity",
        "NaN",
        "[" * 300 + "]" * 300,
        "[" * 100_000,
        "1" * 5000,
        '"\\ud800"',
        '{"\\udfff": 1}',
    ],
    ids=lambda text: ascii(text)[:20],
)
def test_what_is_not_json_is_one_issue(text: str) -> None:
    (check,) = FollowsSchema(schema={}).check(text)
    assert (check.rule, check.score) == ("json", 0.0)
    assert check.message.startswith("not JSON: ")
    assert check.instruction == "Reply with JSON only, without any other text."


def test_each_violated_place_is_an_issue() -> None:
    schema = {
        "type": "object",
        "properties": {"items": {"items": {"properties": {"name": {"type": "string"}}}}, "age": {"minimum": 0}},
        "required": ["age", "items"],
        "additionalProperties": False,
    }
    text = '{"items": [{}, {"name": "x"}, {"name": 3}], "extra": 1}'
    third = 1 / 4
    assert FollowsSchema(schema=schema).check(text) == [
        Check(
            "schema",
            third,
            "$.items[2].name: 3 is not of type 'string'",
            'In the JSON, $.items[2].name must fit the schema {"type": "string"}',
        ),
        Check(
            "schema",
            third,
            "$: 'age' is a required property",
            'In the JSON, $ must fit the schema {"required": ["age", "items"]}',
        ),
        Check(
            "schema",
            third,
            "$: unexpected: 'extra'",
            'In the JSON, $ must fit the schema {"additionalProperties": false}',
        ),
    ]
    assert fits(schema, {"items": [], "age": 3})


def test_issues_are_few_and_short() -> None:
    checks = FollowsSchema(schema={"items": {"type": "string", "description": "d" * 9999}}).check(
        json.dumps([["v" * 1000]] * 50)
    )
    assert len(checks) == MAX_ISSUES
    assert {check.score for check in checks} == {1 / (1 + MAX_ISSUES)}
    for check in checks:
        assert len(check.message) <= MAX_MESSAGE
        assert len(check.instruction) <= MAX_MESSAGE
        assert check.message.endswith("is not of type 'string'")


def test_a_schema_can_forbid_a_value() -> None:
    (check,) = FollowsSchema(schema={"properties": {"secret": False}}).check('{"secret": 1}')
    assert (check.score, check.instruction) == (0.5, "Leave out of the JSON what its schema forbids.")


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"pattern": r"^\pL+$"}, "naïve", "n4"),
        ({"patternProperties": {"^x": {"type": "integer"}}}, {"x1": 1, "y": "a"}, {"x1": "a"}),
        ({"patternProperties": {"^x": {}}, "additionalProperties": False}, {"x1": 1}, {"x1": 1, "y": 1}),
        ({"properties": {"a": {}}, "additionalProperties": {"type": "null"}}, {"a": 1, "b": None}, {"b": 1}),
        ({"additionalProperties": True, "maxProperties": 1}, {"a": 1}, {"a": 1, "b": 1}),
        ({"propertyNames": {"pattern": "^[a-z]+$"}}, {"a": 1}, {"A": 1}),
        ({"uniqueItems": True}, [1, True, "1", [1], {"a": 1}, [True], {"a": True}, None, 0, False], [1, 1.0]),
        ({"uniqueItems": True}, [{"a": 1, "b": [2]}, {"a": 1}], [{"a": 1, "b": [2]}, {"b": [2], "a": 1}]),
        ({"uniqueItems": False}, [1, 1], None),
        ({"unevaluatedProperties": False, "allOf": [{"properties": {"a": {}}}]}, {"a": 1}, {"b": 1}),
        ({"$ref": "#/$defs/t", "$defs": {"t": {"type": "string"}}}, "a", 1),
        ({"$ref": "#/$defs/t", "$defs": {"t": True}}, "a", None),
        ({"properties": {"next": {"$ref": "#"}}, "type": "object"}, {"next": {"next": {}}}, {"next": {"next": 1}}),
        ({"properties": {"$schema": {"type": "string"}, "$ref": {"pattern": "a"}}}, {"$ref": "a"}, {"$ref": "b"}),
        ({"format": "email"}, "not asserted", None),
        ({"pattern": r"^[\u4e00-\u9fff]+$"}, "好的", "ok"),
        ({"pattern": r"^\u{1F600}\/\cA$"}, "\U0001f600/\x01", "a"),
        ({"pattern": r"^\ud83d\ude00$"}, "\U0001f600", "a"),
        ({"pattern": r"^\s$"}, "\u00a0", "a"),
        ({"pattern": "^[[]$"}, "[", "]"),
        ({"pattern": "^.$"}, "a", "\u2028"),
        ({"patternProperties": {r"^\u0061": {"type": "integer"}}}, {"a": 1}, {"a": "1"}),
        ({"const": {"pattern": "(?=x)", "$ref": "http://a"}}, {"pattern": "(?=x)", "$ref": "http://a"}, 1),
    ],
)
def test_keywords(schema: dict[str, Any], good: object, bad: object) -> None:
    assert fits(schema, good)
    assert bad is None or not fits(schema, bad)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"multipleOf": 0.01}, ["19.99", "1.10", "0", "-0.0", "-0.37", "1e400", "1e999", "100"], ["19.999", "1e-3"]),
        ({"multipleOf": 0.1}, ["0.3", "1" + "0" * 400, "0.30", "3e-1"], ["0.35", "0.3000000000000000001"]),
        ({"multipleOf": 2}, ["9007199254740994", "9007199254740994.0"], ["9007199254740993", "9007199254740993.0"]),
        ({"multipleOf": 7}, ["7e0", "14", "0e9"], ["1e400", "8"]),
        ({"multipleOf": 1e-8}, ["0.00000001", "12345.00000001"], ["0.000000001"]),
        ({"multipleOf": 2.5}, ["7.5", "1e1"], ["7"]),
        (
            {"minimum": 0.1, "maximum": 0.3},
            ["0.1", "0.3", "0.30"],
            ["0.09999999999999999999", "0.30000000000000000001"],
        ),
        ({"exclusiveMinimum": 9007199254740992}, ["9007199254740993"], ["9007199254740992", "9007199254740992.0"]),
        ({"type": "integer"}, ["1", "1.0", "1e400", "-0.0", "10e-1"], ["1.5", "1e-1", "true"]),
        ({"enum": [0.1, 1]}, ["0.1", "0.10", "1.0"], ["0.1000000000000000055"]),
        ({"const": [1.5]}, ["[1.50]"], ["[1.5000000000000000001]"]),
        ({"uniqueItems": True}, ["[0.1, 0.10000000000000000001]"], ["[0.1, 0.10]", "[1, 1.0]", "[100, 1e2]"]),
    ],
)
def test_numbers_are_exact(schema: dict[str, Any], good: list[str], bad: list[str]) -> None:
    verifier = FollowsSchema(schema=schema)
    for text in good:
        assert [check.message for check in verifier.check(text)] == [""]
    for text in bad:
        assert [check.score for check in verifier.check(text)] == [0.5]


def test_numbers_are_shown_as_they_are_written() -> None:
    (check,) = FollowsSchema(schema={"properties": {"price": {"multipleOf": 0.25}}}).check('{"price": 19.90}')
    assert check.message == "$.price: 19.90 is not a multiple of 0.25"
    assert check.instruction == 'In the JSON, $.price must fit the schema {"multipleOf": 0.25}'


def test_numbers_that_are_too_many_digits_long_are_not_json() -> None:
    (check,) = FollowsSchema(schema={}).check("0." + "1" * 5000)
    assert check.message == "not JSON: a number is too long"


@pytest.mark.parametrize(("dialect", "definitions"), DRAFTS.items())
def test_the_dialect_is_honoured(dialect: str, definitions: str) -> None:
    schema = {
        "$schema": dialect,
        "$id": "https://example.com/schema",
        definitions: {"text": {"type": "string"}},
        "properties": {"a": {"$ref": f"#/{definitions}/text", "maxLength": 1}},
    }
    assert not fits(schema, {"a": 1})
    # What stands beside a reference counts only since 2019-09.
    assert fits(schema, {"a": "long"}) == (definitions == "definitions")


@pytest.mark.parametrize("dialect", DRAFTS)
@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": EVIL},
        {"items": {"pattern": EVIL}},
        {"items": {"anyOf": [{"type": "null"}, {"pattern": EVIL}]}},
        {"anyOf": [{"type": "array", "items": {"$ref": "#"}}, {"type": "string", "pattern": EVIL}]},
        {"items": {"patternProperties": {EVIL: False}}},
        {"items": {"patternProperties": {EVIL: True}, "additionalProperties": False}},
        {"items": {"propertyNames": {"pattern": EVIL}}},
    ],
    ids=json.dumps,
)
def test_patterns_never_backtrack(dialect: str, schema: dict[str, Any]) -> None:
    begun = time.thread_time()
    FollowsSchema(schema={"$schema": dialect, **schema}).check(json.dumps([VICTIM, {VICTIM: 1}]))
    assert time.thread_time() - begun < 5  # re takes years


STRAY = "does not point to a subschema of this document"


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "strin"}, "$.type: 'strin' is not valid"),
        ({"minimum": "3"}, "$.minimum: '3' is not of type 'number'"),
        ({"properties": {"a": 1}}, "$.properties.a: 1 is not of type"),
        ({"pattern": "(a"}, "(a: missing )"),
        ({"items": {"pattern": "(?=a)"}}, "(?=a): (?= is look-ahead, which is not supported"),
        ({"patternProperties": {"(?<!a)b": {}}}, "(?<!a)b: (?<! is look-behind, which is not supported"),
        ({"$defs": {"unused": {"pattern": r"(a)\1"}}}, r"(a)\1: \1 is a back-reference, which is not supported"),
        ({"pattern": "(?i)a"}, "(?i)a: (?i is not supported"),
        ({"pattern": r"\p{Emoji}"}, r"\p{Emoji}: invalid character class range"),
        ({"pattern": "(?:a?){1000}" * 30 + "Z"}, "too large; at most 10000 instructions"),
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, STRAY),
        ({"$ref": "http://localhost:1/schema"}, STRAY),
        ({"$ref": "file:///etc/passwd"}, STRAY),
        ({"items": {"$ref": "other.json#/a"}}, STRAY),
        ({"$ref": "#/$defs/missing"}, STRAY),
        ({"$ref": "#anchor", "$defs": {"a": {"$anchor": "anchor"}}}, STRAY),
        ({"$ref": "#/title", "title": "text"}, STRAY),
        ({"$ref": "#/maximum/0", "maximum": 3}, STRAY),
        ({"$ref": "#/anyOf/x", "anyOf": [{}]}, STRAY),
        ({"$ref": "#/properties", "properties": {"type": {}}}, STRAY),
        ({"$ref": "#/const/a", "const": {"a": {"pattern": "("}}}, STRAY),
        ({"$dynamicRef": "#meta", "$dynamicAnchor": "meta"}, STRAY),
        ({"$schema": "http://json-schema.org/draft-03/schema"}, "$schema must be one of"),
        ({"$schema": 3}, "$schema must be one of"),
        ({"items": {"$schema": next(iter(DRAFTS)), "pattern": EVIL}}, "$schema can be used at the top only"),
        ({"items": {"$schema": "urn:unknown"}}, "$schema can be used at the top only"),
        ({"items": {"$id": "https://json-schema.org/draft/2020-12/schema", "$ref": "#"}}, "$id can be used at the top"),
        (
            {"unevaluatedProperties": False, "allOf": [{"patternProperties": {EVIL: {}}}]},
            "unevaluatedProperties and patternProperties cannot be used together",
        ),
        ({"allOf": [{"pattern": f"a{number}"} for number in range(101)]}, "101 patterns; at most 100 are allowed"),
        ({"description": "d" * 40_000}, "40019 characters; at most 32768 are allowed"),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_a_schema_that_cannot_be_trusted_is_refused(schema: dict[str, Any], message: str) -> None:
    location, text = refusal(schema)
    assert location == ()
    assert message in text
    assert len(text) < 500


@pytest.mark.parametrize("schema", [True, [], "{}", None])
def test_a_schema_is_an_object(schema: object) -> None:
    assert refusal(schema)[0] == ("schema",)


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}])
def test_a_schema_is_json(value: object) -> None:
    with pytest.raises(ValueError, match=r"schema|JSON"):
        FollowsSchema(schema={"const": value})


def test_a_deep_schema_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(5000):
        schema = {"items": schema}
    with pytest.raises(ValueError, match="nested too deeply"):
        FollowsSchema(schema=schema)


DOUBLING: dict[str, Any] = {
    "$ref": "#/$defs/d0",
    "$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)} | {"d40": {"type": "null"}},
}
LONG = json.dumps(["word"] * 12_000)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"$ref": "#"}, "1"),
        (DOUBLING, "null"),
        ({"anyOf": [{"type": "null"}] * 1500}, LONG),
        ({"items": {"allOf": [{"type": "string"}] * 1000}}, LONG),
        ({"items": {"allOf": [{"pattern": "(?:.?){300}b"}] * 700}}, f'["{"é" * 90_000}"]'),
        ({"items": {"$ref": "#"}}, "[" * 190 + "]" * 190),
        ({"pattern": "(?:a?){1000}" * 4 + "Z"}, json.dumps("a" * 60_000)),
        ({"items": {"allOf": [{"multipleOf": number} for number in range(1, 900)]}}, json.dumps([0] * 100)),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_check_is_bounded(schema: dict[str, Any], text: str) -> None:
    verifier = FollowsSchema(schema=schema)
    begun = time.thread_time()
    (check,) = verifier.check(text)
    assert time.thread_time() - begun < 10
    assert (check.score, check.message) == (0.0, "the JSON is too large or too deep to check")


def test_a_check_spends_only_its_own_steps() -> None:
    verifier = FollowsSchema(schema={"items": {"type": "integer"}})
    text = json.dumps([1] * 30_000)
    assert [check.score for _ in range(3) for check in verifier.check(text)] == [1.0, 1.0, 1.0]


def test_a_long_text_is_not_read() -> None:
    (check,) = FollowsSchema(schema={}).check(" " * (MAX_TEXT + 1))
    assert (check.score, check.message) == (0.0, "100001 characters; at most 100000 are allowed")


def test_many_items_that_cannot_be_sorted_are_compared_fast() -> None:
    begun = time.thread_time()
    assert fits({"uniqueItems": True}, [{"a": number} for number in range(7000)])
    assert time.thread_time() - begun < 5


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["a", "items", "name"]), inner),
)


@settings(deadline=None)
@given(text=st.text() | DOCUMENTS.map(json.dumps))
def test_a_schema_judges_any_text(text: str) -> None:
    verifier = FollowsSchema(
        schema={
            "anyOf": [{"type": ["object", "array", "string"]}, {"multipleOf": 0.5}],
            "properties": {"a": {"$ref": "#"}, "name": {"pattern": "^a*$"}},
            "items": {"$ref": "#"},
            "uniqueItems": True,
            "patternProperties": {"^x": {"const": 1}},
            "additionalProperties": {"maxLength": 3},
        }
    )
    checks = verifier.check(text)
    assert 1 <= len(checks) <= MAX_ISSUES
    for check in checks:
        assert 0.0 <= check.score <= 1.0
        assert check.message or check.score == 1.0
        assert check.instruction
