import json
import threading
from functools import partial
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator
from starlette.requests import Request

from service.api.body import DescribedApp, decode, decode_bounded, json_body, read_json
from service.api.problems import install
from service.errors import InvalidRequest, MalformedBody
from service.evaluators.text.patterns import compile_linear
from service.wire.requests import GenerateRequest, RefineRequest
from tests.support.peer import Peer

JSON = {"Content-Type": "application/json"}


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str


class Item(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    count: int
    parts: tuple[Part, ...] = ()
    extra: Any = None


class Bottomless(BaseModel):
    @model_validator(mode="after")
    def _descend(self) -> "Bottomless":
        raise RecursionError


@pytest.mark.parametrize(
    "content_type", [None, "application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"]
)
def test_a_body_becomes_its_model(content_type: str | None) -> None:
    item = decode(Item, b'{"count": 2, "parts": [{"name": "a"}]}', content_type)
    assert item == Item(count=2, parts=(Part(name="a"),))


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "image/svg+json", ""])
def test_another_content_type_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        decode(Item, b'{"count": 2}', content_type)
    assert [error.field for error in raised.value.errors] == ["content-type"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"count": 1} x',
        b'{"count": 1,}',
        b"\xff\xfe",
        b'{"extra": "\xff"}',
        b'{"extra": "\\ud800"}',
        b'{"extra": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"extra": ' + b"1" * 10_000 + b"}",
    ],
)
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedBody) as raised:
        decode(Item, body, None)
    assert len(raised.value.detail) < 200


def test_recursion_in_a_validator_is_malformed() -> None:
    with pytest.raises(MalformedBody):
        decode(Bottomless, b"{}", None)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"count": "2"}', "count"),
        (b'{"count": 2.0}', "count"),
        (b"{}", "count"),
        (b'{"count": 2, "parts": [{"name": "a"}, {}]}', "parts.1.name"),
        (b'{"count": 2, "more": 1}', "more"),
        (b"null", "body"),
    ],
)
def test_what_the_model_refuses_is_named(body: bytes, field: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        decode(Item, body, None)
    assert [error.field for error in raised.value.errors] == [field]


def made_app() -> DescribedApp:
    app = DescribedApp([Item])
    install(app)

    @app.post("/items", openapi_extra=json_body(Item))
    async def create(request: Request) -> int:
        return (await read_json(request, Item)).count

    return app


async def test_a_route_reads_its_body() -> None:
    app = made_app()
    good = Peer(b'{"cou', b'nt": 2}', method="POST", path="/items", headers=JSON)
    await good.call(app)
    assert (good.status, good.json) == (200, 2)
    bad = Peer(b"{}", method="POST", path="/items", headers=JSON)
    await bad.call(app)
    assert (bad.status, bad.json["errors"]) == (422, [{"field": "count", "message": "Field required"}])


async def test_the_openapi_document_holds_the_body() -> None:
    app = made_app()
    peer = Peer(path="/openapi.json")
    await peer.call(app)
    schemas = peer.json["components"]["schemas"]
    operation = peer.json["paths"]["/items"]["post"]
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Item"}
    assert [parameter["name"] for parameter in operation["parameters"]] == ["Idempotency-Key"]
    assert schemas["Item"]["additionalProperties"] is False
    assert schemas["Item"]["properties"]["parts"]["items"] == {"$ref": "#/components/schemas/Part"}
    assert "Part" in schemas


def test_two_schemas_of_one_name_are_refused() -> None:
    class Part(BaseModel):
        text: str

    app = made_app()

    @app.get("/part")
    async def part() -> Part:
        return Part(text="")

    with pytest.raises(ValueError, match="two schemas are called Part"):
        app.openapi()


class Patterns(BaseModel):
    """Patterns that are compiled while the body is validated."""

    patterns: list[Annotated[str, AfterValidator(compile_linear)]]


def patterns(count: int) -> bytes:
    return json.dumps({"patterns": ["(?:a?){1000}"] * count}).encode()


async def test_a_small_body_that_takes_long_to_compile_is_decoded_in_a_thread() -> None:
    threads = list[int]()

    def decoding(body: bytes) -> int:
        threads.append(threading.get_ident())
        return len(decode(Patterns, body, None).patterns)

    assert await decode_bounded(decoding, patterns(1)) == 1
    assert threads == [threading.get_ident()]
    assert await decode_bounded(decoding, patterns(20)) == 20
    assert threads[1] == threading.get_ident()
    assert threads[2] != threading.get_ident()


async def test_a_request_may_compile_only_so_much() -> None:
    with pytest.raises(InvalidRequest, match="the patterns and schemas of the request take too long to compile"):
        await decode_bounded(partial(decode, Patterns, content_type=None), patterns(300))


@pytest.mark.parametrize(
    ("model", "body", "errors"),
    [
        (GenerateRequest, {"messages": []}, [("messages", "Input should have at least 1 item")]),
        (GenerateRequest, {"messages": 5}, [("messages", "Input should be a list")]),
        (GenerateRequest, {"messages": [5]}, [("messages.0", "Input should be an object")]),
        (GenerateRequest, {"prompt": " "}, [("prompt", "Input should not be blank")]),
        (GenerateRequest, {"prompt": []}, [("prompt", "Input should have at least 1 item")]),
        (GenerateRequest, {"prompt": ["a", " "]}, [("prompt.1", "Input should not be blank")]),
        (GenerateRequest, {"prompt": 5}, [("prompt", "Input should be a text or a list of texts")]),
        (GenerateRequest, {"parameters": 5}, [("parameters", "Input should be an object")]),
        (
            GenerateRequest,
            {"parameters": {str(number): "" for number in range(65)}},
            [("parameters", "Input should have at most 64 members")],
        ),
        (
            GenerateRequest,
            {"messages": [{"role": "user", "content": {"type": "text", "text": "hi"}}]},
            [("messages.0.content", "Input should be a text or a list of parts")],
        ),
        (
            RefineRequest,
            {"prompt": "x", "evaluators": [{"type": "one_of", "options": ["a"]}]},
            [("evaluators.0.options", "Input should have at least 2 items")],
        ),
        (
            RefineRequest,
            {"prompt": "x", "evaluators": [{"type": "number", "value": 1, "unit": "m"}]},
            [("evaluators.0.unit", "Extra inputs are not permitted")],
        ),
    ],
)
def test_each_error_is_told_once_and_in_words_of_json(
    model: type[BaseModel], body: dict[str, Any], errors: list[tuple[str, str]]
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        decode(model, json.dumps(body).encode(), None)
    assert [(error.field, error.message) for error in raised.value.errors] == errors


def test_of_two_members_of_one_name_the_last_counts() -> None:
    assert decode(Item, b'{"count": 1, "count": 2}', None) == Item(count=2)


def test_a_value_is_as_strict_as_it_says_in_lists_too() -> None:
    for wrong in ({"prompt": "x", "rubrics": [5]}, {"prompt": "x", "sampling": {"temperature": "1"}}):
        with pytest.raises(InvalidRequest):
            decode(RefineRequest, json.dumps(wrong).encode(), None)
