"""The response_schema of the whole service: honoured, or refused before anything is written."""

import json
from typing import Any

import pytest

from service.engines.base import Sample
from service.engines.scripted import Script
from tests.support.serving import serving

PROMPT = {"prompt": "Make up an example."}
CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "Make up an example."}]}
MAIL = {
    "type": "object",
    "properties": {"mail": {"type": "string", "pattern": "^[a-z]+@", "maxLength": 30}},
    "required": ["mail"],
}
AGE = {"type": "object", "properties": {"age": {"type": "integer", "maximum": 150}}, "required": ["age"]}
FIELD = "properties.mail.maxLength"


def format_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "example", "schema": schema}}}


async def test_a_keyword_that_no_grammar_holds_to_is_named() -> None:
    async with serving() as served:
        response = await served.post("/v1/generate", {**PROMPT, "response_schema": MAIL})
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["field"] == f"response_schema.{FIELD}"
    assert error["message"].startswith("maxLength: ")


@pytest.mark.parametrize("tools", [{}, {"tools": [{"type": "function", "function": {"name": "look"}}]}])
async def test_openais_clients_are_told_the_keyword_too(tools: dict[str, Any]) -> None:
    async with serving() as served:
        response = await served.post("/v1/chat/completions", {**CHAT, **format_of(MAIL), **tools})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == "response_format"
    assert error["message"].startswith(f"response_format: {FIELD}: maxLength: ")


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "nonsense"}, "$.type: 'nonsense' is not valid"),
        ({"$ref": "http://example.com/schema"}, "does not point to a subschema"),
        ({"type": "string", "pattern": "(?=a)"}, "(?=a): (?= is look-ahead, which is not supported"),
        ({"type": "string", "pattern": "(?:a?){1000}" * 30}, "too large"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "nothing fits it: look at type, minimum, maximum"),
    ],
)
async def test_a_schema_that_is_wrong_is_refused_as_a_whole(schema: dict[str, Any], message: str) -> None:
    async with serving() as served:
        response = await served.post("/v1/generate", {**PROMPT, "response_schema": schema})
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["field"] == "response_schema"
    assert message in error["message"]


def writing(text: str) -> Script:
    def reply(call: Sample) -> str:
        return text

    return Script(reply=reply)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"age": "old"}', "$.age: 'old' is not of type 'integer'"),
        ("{}", "'age' is a required property"),
        ("Hm.", "not JSON"),
    ],
)
async def test_a_finished_text_that_does_not_fit_is_an_error(text: str, fault: str) -> None:
    async with serving(writing(text)) as served:
        response = await served.post("/v1/generate", {**PROMPT, "response_schema": AGE})
        chat = await served.post("/v1/chat/completions", {**CHAT, **format_of(AGE)})
        stream = await served.post("/v1/generate", {**PROMPT, "response_schema": AGE, "stream": True})
    assert (response.status_code, response.json()["code"]) == (503, "form_not_kept")
    assert fault in response.json()["detail"]
    assert chat.status_code == 503
    assert chat.json()["error"]["code"] == "form_not_kept"
    assert "form_not_kept" in stream.text.rpartition("event: error")[2]


async def test_a_fence_around_a_text_that_fits_is_taken_off() -> None:
    async with serving(writing('```json\n{"age": 7}\n```')) as served:
        response = await served.post("/v1/generate", {**PROMPT, "response_schema": AGE})
    assert json.loads(response.json()["choices"][0]["text"]) == {"age": 7}


async def test_a_text_that_is_cut_need_not_fit() -> None:
    async with serving(writing('{"age": 7, "name": "Ada"}')) as served:
        cut = {"response_schema": AGE, "sampling": {"max_tokens": 2}}
        response = await served.post("/v1/generate", {**PROMPT, **cut})
        stopped = {"response_schema": AGE, "sampling": {"stop": ["name"]}}
        ended = await served.post("/v1/generate", {**PROMPT, **stopped})
    assert [choice["finish_reason"] for choice in response.json()["choices"]] == ["length"]
    assert ended.status_code == 200


async def test_a_batch_names_the_keyword_for_its_line() -> None:
    body = {**PROMPT, "response_schema": MAIL}
    async with serving() as served:
        response = await served.post(
            "/v1/batch", {"requests": [{"custom_id": "a", "url": "/v1/generate", "body": body}]}
        )
    assert FIELD in response.text


def judged(*schemas: dict[str, Any]) -> dict[str, Any]:
    evaluators = [{"type": "json_schema", "schema": schema} for schema in schemas]
    return {**PROMPT, "candidate": "1", "judge": False, "feedback": False, "evaluators": evaluators}


def of_patterns(*patterns: str) -> dict[str, Any]:
    return {"patternProperties": {pattern: {} for pattern in patterns}}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (judged(of_patterns(*(rf"(?:\pL?){{50}}{number}" for number in range(17)))), "too large; at most 10000"),
        (judged({"pattern": "(?:a?){1000}" * 30 + "Z"}), "too large; at most 10000"),
        (
            judged(*(of_patterns(*(f"(?:a?){{999}}{n}" for n in range(90))) for _ in range(5))),
            "take too long to compile",
        ),
        (judged(*({"allOf": [{}] * 1000} for _ in range(4))), "take too long to compile"),
    ],
)
async def test_what_takes_long_to_compile_is_refused(body: dict[str, Any], message: str) -> None:
    async with serving() as served:
        response = await served.post("/v1/critique", body)
    assert response.status_code == 422
    assert message in response.json()["detail"]


async def test_prices_are_multiples_of_a_cent() -> None:
    schema = {"properties": {"price": {"multipleOf": 0.01}}, "required": ["price"]}
    async with serving() as served:
        response = await served.post("/v1/critique", {**judged(schema), "candidate": '{"price": 19.99}'})
    assert response.json()["passed"]


@pytest.mark.parametrize("text", ["``` json\n{}\n```", "````json\n{}\n````", "~~~json\n{}\n~~~"])
async def test_every_fence_of_markdown_may_be_around_json(text: str) -> None:
    evaluators = [{"type": "format", "kind": "json"}, {"type": "json_schema", "schema": {"type": "object"}}]
    async with serving() as served:
        response = await served.post("/v1/critique", {**judged(), "candidate": text, "evaluators": evaluators})
    assert [found["passed"] for found in response.json()["evaluations"]] == [True, True]
