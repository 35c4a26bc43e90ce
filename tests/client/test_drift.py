"""The client's requests, results and events have the fields and types of the service's."""

import json
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

import pytest
from pydantic import BaseModel, TypeAdapter

from redraft import answers, batches, events, requests, results
from redraft.results import Result
from service.api.batches import BatchLine, BatchResult
from service.api.problems import OPENAI_CODES
from service.engines.base import Sample
from service.engines.scripted import Script
from service.refinement.critic import QUESTIONS_SCHEMA
from service.wire import responses
from service.wire.requests import CritiqueRequest, GenerateRequest, RefineRequest
from tests.support.serving import Served, serving

Schema = Mapping[str, Any]
KEPT = ("type", "properties", "items", "anyOf", "enum", "additionalProperties")


def shape(schema: Schema, definitions: Schema, *, words: bool = True) -> Any:
    """Names and types of a JSON Schema, whatever its models are called; without ``words`` an enum is any text."""
    if "$ref" in schema:
        return shape(definitions[schema["$ref"].removeprefix("#/$defs/")], definitions, words=words)
    if "length" in schema.get("discriminator", {}).get("mapping", {}):
        return {"type": "object", "additionalProperties": True}  # evaluators are mappings
    schema = {**schema, "anyOf": schema["oneOf"]} if "oneOf" in schema else schema
    found: dict[str, Any] = {}
    for name in KEPT:
        match name, schema.get(name):
            case "properties", dict() as properties:
                found[name] = {key: shape(value, definitions, words=words) for key, value in properties.items()}
            case "items" | "additionalProperties", dict() as inner:
                found[name] = shape(inner, definitions, words=words)
            case "anyOf", list() as options:
                shapes = [shape(option, definitions, words=words) for option in options]
                found[name] = sorted(shapes, key=json.dumps)
            case "enum", list() as options if words:
                found[name] = options
            case ("type", value) if value is not None:
                found[name] = value
            case "additionalProperties", True:
                found[name] = True
    return found


def model_shape(model: type[BaseModel], mode: Literal["validation", "serialization"], *, words: bool) -> Any:
    schema = model.model_json_schema(mode=mode)
    return shape(schema, schema.get("$defs", {}), words=words)


def hinted(hint: Any) -> Any:
    """The shape that a type has as JSON. Pydantic itself takes typing's TypedDict only from Python 3.12 on."""
    if is_typeddict(hint):
        return {"type": "object", "properties": {name: hinted(kind) for name, kind in get_type_hints(hint).items()}}
    kinds = get_args(hint)
    if isinstance(hint, UnionType) or get_origin(hint) is Union:
        return {"anyOf": sorted(map(hinted, kinds), key=json.dumps)}
    if get_origin(hint) is Sequence:
        return {"type": "array", "items": hinted(kinds[0])}
    return shape(TypeAdapter(hint).json_schema(), {})


@pytest.mark.parametrize(
    ("result", "response"),
    [
        (results.GenerateResult, responses.GenerateResponse),
        (results.CritiqueResult, responses.CritiqueResponse),
        (results.RefineResult, responses.RefineResponse),
        (results.Problem, responses.Problem),
    ],
)
def test_results(result: type[Result], response: type[BaseModel]) -> None:
    expected = model_shape(response, "serialization", words=False)
    assert model_shape(result, "validation", words=False) == expected
    assert "id" in expected["properties"] or "code" in expected["properties"]


@pytest.mark.parametrize(
    ("fields", "request_model"),
    [
        (requests.GenerateFields, GenerateRequest),
        (requests.CritiqueFields, CritiqueRequest),
        (requests.RefineFields, RefineRequest),
    ],
)
def test_requests(fields: Any, request_model: type[BaseModel]) -> None:
    expected = model_shape(request_model, "validation", words=True)
    for name in ("stream", "deltas"):
        expected["properties"].pop(name, None)  # a method of its own, and its parameter
    assert hinted(fields) == expected
    assert fields.__required_keys__ == set(request_model.model_json_schema().get("required", []))


def test_batches() -> None:
    assert model_shape(batches.Line, "validation", words=False) == model_shape(
        BatchResult, "serialization", words=False
    )
    line = BatchLine.model_json_schema()["properties"]
    assert get_type_hints(requests.BatchLine).keys() == line.keys() - {"method"}
    assert list(get_args(get_type_hints(requests.BatchLine)["url"])) == line["url"]["enum"] == list(batches.RESULTS)


def test_openai_s_words_for_codes() -> None:
    assert {code: word for word, code in answers.OPENAI_CODES.items()} == OPENAI_CODES


def critical(call: Sample) -> str:
    if call.schema is QUESTIONS_SCHEMA:
        return json.dumps({"questions": ["Is it wet?"]})
    return "Some text." if call.schema is None else json.dumps({"issues": ["It says too little."]})


async def test_events() -> None:
    asked = {"prompt": "Why?", "search": {"rounds": 1, "critic": "factored"}, "reasoning": True, "deltas": True}
    async with serving(Script(reply=critical)) as served:
        streamed = await served.stream("/v1/refine", asked)
        deltas = await served.stream("/v1/generate", {"prompt": "Why?"})
    thinking = Script(reply=lambda call: "<think>Hm.</think>Why not?", seconds_per_token=0.001)
    async with serving(thinking) as served:
        thoughts = await served.stream("/v1/generate", {"prompt": "Why?", "reasoning": True})
        streamed += await served.stream("/v1/refine", {**asked, "search": {"rounds": 0}})

    assert {name for name, _ in streamed} == events.REFINE_EVENTS.keys()
    for name, data in streamed:
        assert data.keys() == events.REFINE_EVENTS[name].model_fields.keys(), name
    assert [name for name, _ in deltas[-2:]] == ["delta", "done"]
    assert deltas[0][1].keys() == events.Delta.model_fields.keys()
    assert thoughts[0][0] == "reasoning"
    assert thoughts[0][1].keys() == events.ReasoningDelta.model_fields.keys()


async def test_lists(served: Served) -> None:
    kinds: dict[str, type[Result]] = {"models": results.ModelList, "tasks": results.TaskList}
    for path, kind in kinds.items():
        sent = (await served.client.get(f"/v1/{path}")).json()
        assert kind.model_validate(sent).model_dump(mode="json") == sent
