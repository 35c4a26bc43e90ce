"""Texts that the real engine writes under schemas fit them, by validators that are not the service's own."""

import json
from typing import Any

import jsonschema
import pytest

from bench.scenarios.made_schemas import make_schema
from bench.scenarios.schemas import find_misfit, try_seed
from service.concurrency import gather
from tests.real.conftest import Service

DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}
BOOLEAN = {"type": "boolean"}
HARD: dict[str, dict[str, Any]] = {
    "anyOf next to properties": {
        "type": "object",
        "properties": {"id": DIGIT},
        "required": ["id"],
        "anyOf": [
            {"properties": {"mail": BOOLEAN}, "required": ["mail"]},
            {"properties": {"phone": BOOLEAN}, "required": ["phone"]},
        ],
    },
    "a reference with a length": {
        "type": "object",
        "properties": {"code": {"$ref": "#/$defs/text", "maxLength": 3}},
        "required": ["code"],
        "additionalProperties": False,
        "$defs": {"text": {"type": "string"}},
    },
    "if and then": {
        "type": "object",
        "properties": {"kind": {"enum": ["card", "cash"]}, "last": DIGIT},
        "required": ["kind"],
        "additionalProperties": False,
        "if": {"properties": {"kind": {"const": "card"}}},
        "then": {"required": ["last"]},
    },
    "not": {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 3, "not": {"enum": [0, 1, 2]}}},
        "required": ["n"],
    },
    "a name that is not among the properties": {
        "type": "object",
        "properties": {"a": BOOLEAN},
        "required": ["a", "b"],
        "additionalProperties": DIGIT,
    },
    "a price": {
        "type": "object",
        "properties": {"price": {"type": "number", "minimum": 0, "maximum": 100, "multipleOf": 0.01}},
        "required": ["price"],
    },
}


@pytest.mark.parametrize("schema", HARD.values(), ids=HARD)
async def test_what_the_engine_would_not_hold_a_text_to_is_held(service: Service, schema: dict[str, Any]) -> None:
    sampling = {"max_tokens": 60, "temperature": 1.2, "seed": 11}
    request = {"prompt": "Make up an example.", "n": 4, "response_schema": schema, "sampling": sampling}
    response = await service.client.post("/v1/generate", json=request)
    assert response.status_code == 200, response.text
    finished = [choice["text"] for choice in response.json()["choices"] if choice["finish_reason"] == "stop"]
    assert finished
    for text in finished:
        jsonschema.Draft202012Validator(schema).validate(json.loads(text))
        assert find_misfit(schema, text) is None


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"oneOf": [{**DIGIT, "maximum": 6}, {**DIGIT, "minimum": 3}]}, "oneOf"),
        ({"$ref": "#/$defs/loop", "$defs": {"loop": {"$ref": "#/$defs/loop"}}}, "$ref"),
        ({"type": "string", "not": {"minLength": 3}}, "not"),
    ],
)
async def test_a_schema_without_a_grammar_is_refused(service: Service, schema: dict[str, Any], keyword: str) -> None:
    response = await service.client.post("/v1/generate", json={"prompt": "Hello", "response_schema": schema})
    assert response.status_code == 422
    assert keyword in response.json()["errors"][0]["message"]


async def test_schemas_made_by_chance_are_honoured_or_refused(service: Service) -> None:
    seeds = range(100_000, 100_060)
    outcomes = await gather(try_seed(service.engine.engine, seed) for seed in seeds)
    assert [(make_schema(found.seed), found.note) for found in outcomes if found.kind == "misfit"] == []
    assert sum(found.kind == "fits" for found in outcomes) > 20
