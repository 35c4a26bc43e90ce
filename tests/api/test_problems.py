import json
from typing import Annotated, Any, Literal

import pytest
from fastapi import FastAPI, HTTPException
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.api.problems import install, list_errors, make_response, name_fields
from service.errors import EngineDead, InvalidRequest, NotFound, Overloaded, PromptTooLong, RedraftError, Unauthorized
from service.wire.problems import make_public, problem_body
from tests.support.peer import Peer


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Length(Strict):
    type: Literal["length"]
    unit: Literal["words", "lines"]
    least: int | None = Field(None, ge=0)


class Language(Strict):
    """Its tag is also the name of a field elsewhere."""

    type: Literal["language"]
    code: Annotated[str, AfterValidator(str)]


class Code(Strict):
    type: Literal["code"]
    language: Literal["python"]
    counts: dict[Annotated[str, Field(max_length=3)], int] = {}


class Body(Strict):
    prompt: Annotated[str, AfterValidator(str)] | list[Annotated[str, Field(max_length=5)]] | None = None
    evaluators: list[Annotated[Length | Language | Code, Field(discriminator="type")]] = []
    first: int = 0
    last: int = 0

    @model_validator(mode="after")
    def _ordered(self) -> "Body":
        if self.last < self.first:
            raise ValueError("last must not be below first")
        return self


def refused(given: Any) -> InvalidRequest:
    with pytest.raises(ValidationError) as raised:
        Body.model_validate_json(json.dumps(given))
    return name_fields(list_errors(raised.value), given)


@pytest.mark.parametrize(
    ("given", "field", "message"),
    [
        ({"evaluators": [{"type": "length"}]}, "evaluators.0.unit", "Field required"),
        ({"evaluators": [{"type": "length", "unit": "q"}]}, "evaluators.0.unit", "Input should be 'words' or 'lines'"),
        ({"evaluators": [{"type": "language", "code": 5}]}, "evaluators.0.code", "Input should be a valid string"),
        ({"evaluators": [{"type": "code", "language": 5}]}, "evaluators.0.language", "Input should be 'python'"),
        (
            {"evaluators": [{"type": "language", "code": "en", "language": "en"}]},
            "evaluators.0.language",
            "Extra inputs are not permitted",
        ),
        (
            {"evaluators": [{"type": "nope"}]},
            "evaluators.0.type",
            "Input should be one of 'length', 'language', 'code'",
        ),
        ({"evaluators": [{}]}, "evaluators.0.type", "Field required"),
        ({"evaluators": [5]}, "evaluators.0", "Input should be an object"),
        (
            {"evaluators": [{"type": "code", "language": "python", "counts": {"a": "x"}}]},
            "evaluators.0.counts.a",
            "Input should be a valid integer",
        ),
        (
            {"evaluators": [{"type": "code", "language": "python", "counts": {"abcd": 1}}]},
            "evaluators.0.counts.abcd",
            "String should have at most 3 characters",
        ),
        ({"prompt": ["fine", "secret"]}, "prompt.1", "String should have at most 5 characters"),
        ({"prompt": {"secret": 1}}, "prompt", "Input should be a valid string"),
        ({"secret": 1}, "secret", "Extra inputs are not permitted"),
        ({"first": 1}, "body", "last must not be below first"),
        ([], "body", "Input should be an object"),
    ],
)
def test_a_path_is_what_the_caller_wrote(given: Any, field: str, message: str) -> None:
    found = refused(given).errors
    assert (field, message) in [(error.field, error.message) for error in found]
    assert {error.field for error in found} <= {field, "prompt"}
    assert not any("secret" in error.message or "nope" in error.message for error in found)


def test_the_number_of_errors_and_the_length_of_a_path_are_bounded() -> None:
    error = refused({"evaluators": [{}] * 50})
    assert len(error.errors) == 20
    assert error.detail == "evaluators.0.type: Field required (and 49 more)"
    assert len(refused({"x" * 10_000: 1}).errors[0].field) == 200


def test_very_many_errors_are_only_counted() -> None:
    """To build each would take a kilobyte."""
    error = refused({str(number): 1 for number in range(500)})
    assert [(item.field, item.message) for item in error.errors] == [
        ("body", "500 fields are wrong or unknown; at most 100 can be named")
    ]


def test_the_members_of_a_problem() -> None:
    assert problem_body(NotFound("no such task")) == {
        "type": "/problems#not_found",
        "title": "There is nothing here",
        "status": 404,
        "detail": "no such task",
        "code": "not_found",
    }
    body = problem_body(PromptTooLong(9, 4))
    assert (body["status"], body["code"]) == (422, "prompt_too_long")
    assert [item["field"] for item in body["errors"]] == ["prompt"]


@pytest.mark.parametrize(
    ("error", "status", "header", "value"),
    [
        (Overloaded("full", retry_after=7), 503, "retry-after", "7"),
        (EngineDead("gone"), 503, "retry-after", "1"),
        (Unauthorized("who?"), 401, "www-authenticate", "Bearer"),
    ],
)
def test_the_headers_of_a_problem(error: RedraftError, status: int, header: str, value: str) -> None:
    response = make_response(error, "/v1/refine")
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers[header] == value
    assert "retry-after" not in make_response(NotFound("no"), "/v1/refine").headers


def test_a_bug_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    known = NotFound("no such task")
    assert make_public(known, "r1") is known
    assert not caplog.records
    error = make_public(KeyError("password"), "r1")
    assert (error.status, error.code) == (500, "internal_error")
    assert "password" not in error.detail
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].request_id == "r1"  # type: ignore[attr-defined]


async def answered(method: str, path: str) -> Peer:
    app = FastAPI()
    install(app)

    @app.get("/thing")
    async def thing(limit: int = 1) -> None:
        raise EngineDead("gone")

    peer = Peer(method=method, path=path.partition("?")[0])
    peer.scope["query_string"] = path.partition("?")[2].encode()
    await peer.call(app)
    assert peer.headers["content-type"] == "application/problem+json"
    return peer


async def test_every_refusal_of_the_app_is_a_problem() -> None:
    dead = await answered("GET", "/thing")
    assert (dead.status, dead.json["code"]) == (503, "engine_dead")
    missing = await answered("GET", "/none")
    assert (missing.status, missing.json["code"]) == (404, "not_found")
    wrong_method = await answered("POST", "/thing")
    assert (wrong_method.status, wrong_method.json["code"]) == (405, "method_not_allowed")
    assert wrong_method.headers["allow"] == "GET"
    bad_query = await answered("GET", "/thing?limit=x")
    assert (bad_query.status, bad_query.json["errors"][0]["field"]) == (422, "limit")


async def test_an_http_exception_of_another_kind_is_a_bug() -> None:
    app = FastAPI()
    install(app)

    @app.get("/")
    async def teapot() -> None:
        raise HTTPException(418)

    peer = Peer()
    with pytest.raises(HTTPException):
        await peer.call(app)
