"""No model of a request collects an error for each of a caller's members."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from annotated_types import Len
from pydantic import BaseModel, ConfigDict, ValidationError

from service.api.batches import BatchLine, BatchRequest
from service.api.openai.translate import ChatRequest
from service.fail_fast import FAIL_FAST, MOST_FIELDS, limit_members
from service.tasks.task import _RubricFile, _TaskFile
from service.wire.requests import CritiqueRequest, GenerateRequest, RefineRequest
from service.wire.tools import ToolRequest

REQUESTS = [
    GenerateRequest,
    CritiqueRequest,
    RefineRequest,
    ChatRequest,
    ToolRequest,
    BatchRequest,
    BatchLine,
]


def schemas(schema: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
    """Each part of a core schema, and the types of those that it is in."""
    if isinstance(schema, dict):
        kind = schema.get("type")
        if isinstance(kind, str):
            yield schema, above
            above = (*above, kind)
        for name, part in schema.items():
            if name not in ("default", "metadata"):
                yield from schemas(part, above)
    elif isinstance(schema, list | tuple):
        for part in schema:
            yield from schemas(part, above)


@pytest.mark.parametrize("model", [*REQUESTS, _TaskFile, _RubricFile])
def test_every_sequence_fails_fast(model: type[BaseModel]) -> None:
    found = [part for part, _ in schemas(model.__pydantic_core_schema__) if part["type"] in ("list", "tuple", "set")]
    assert all(part.get("fail_fast") for part in found)
    assert found or model is BatchLine


@pytest.mark.parametrize("model", REQUESTS)
def test_every_mapping_of_objects_has_few_members(model: type[BaseModel]) -> None:
    """A mapping of texts or of anything has at most as many errors as an object may have members."""
    for part, above in schemas(model.__pydantic_core_schema__):
        if part["type"] == "dict":
            kinds = {inner["type"] for inner, _ in schemas(part.get("values_schema", {}))}
            assert kinds <= {"any", "str"} or above[-1] == "function-before"


@dataclass(frozen=True)
class Item:
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    size: int | None = None


class Model(BaseModel):
    items: Annotated[tuple[Item, ...], FAIL_FAST] = ()
    named: Annotated[Mapping[str, Item], Len(0, 3), limit_members(3)] = {}


def errors(**given: Any) -> list[tuple[str | int, ...]]:
    with pytest.raises(ValidationError) as raised:
        Model.model_validate_json(json.dumps(given))
    return [error["loc"] for error in raised.value.errors()]


def test_the_first_wrong_member_ends_a_list() -> None:
    assert errors(items=[{}, {"size": "1"}, {"size": "2"}]) == [("items", 1, "size")]


def test_a_small_mapping_tells_of_each_wrong_member() -> None:
    assert errors(named={"a": {"size": "1"}, "b": {}, "c": {"more": 1}}) == [
        ("named", "a", "size"),
        ("named", "c", "more"),
    ]


def test_a_large_mapping_is_refused_as_a_whole() -> None:
    assert errors(named={name: {"size": "1"} for name in "abcd"}) == [("named",)]
    assert errors(named={"a": {str(number): 1 for number in range(MOST_FIELDS + 1)}}) == [("named",)]
    assert errors(named=5) == [("named",)]
    assert Model.model_validate_json('{"named": {"a": {"size": 1}}}').named == {"a": Item(1)}
