"""Chat completions over HTTP: the shapes of answers, streams and refusals, and what becomes of each field."""

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

import httpx
import jsonschema
import pytest

from service.api.body import decode
from service.api.openai.fields import Only
from service.api.openai.translate import Chat, ChatRequest
from service.engines.base import Sample
from service.engines.scripted import EngineCall, Script
from service.errors import EngineDead, InvalidRequest
from service.refinement.program import PRESETS
from tests.support.scripts import stall
from tests.support.serving import Served, reply, serving

PATH = "/v1/chat/completions"
ASKED = {"model": "scripted", "messages": [{"role": "user", "content": "Write about the sea."}]}
REFINED = {**ASKED, "model": "scripted:refine"}
SALT = {"evaluators": [{"type": "keywords", "include": ["salt"]}], "judge": False}
SCHEMA = {"type": "object", "properties": {"warm": {"type": "boolean"}}, "required": ["warm"]}
AS_SCHEMA = {"type": "json_schema", "json_schema": {"name": "weather", "strict": True, "schema": SCHEMA}}
ACCOUNT = {
    "score",
    "passed",
    "models",
    "judge_trust",
    "improved",
    "selected",
    "stop_reason",
    "constraints",
    "usage",
    "timing",
}
KEY = f"ann:{hashlib.sha256(b'secret').hexdigest()}"


async def streamed(served: Served, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The chunks of a stream that ends as OpenAI's do."""
    async with served.client.stream("POST", PATH, json={**body, "stream": True}) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        lines = [line async for line in response.aiter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def refusal(response: httpx.Response) -> tuple[int, str, str | None, str]:
    """Status, type, param and code of an error, whose shape is held against OpenAI's."""
    body = response.json()
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert body.keys() == {"error"}
    error = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    if response.status_code in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
    return response.status_code, error["type"], error["param"], error["code"]


IGNORED = [name for name, field in ChatRequest.model_fields.items() if field.description == "Ignored."]
REFUSED = {
    name: limit.value
    for name, field in ChatRequest.model_fields.items()
    for limit in field.metadata
    if isinstance(limit, Only)
}


def refused(body: Mapping[str, Any]) -> InvalidRequest:
    """Why a body cannot be read."""
    with pytest.raises(InvalidRequest) as raised:
        Chat.from_request(decode(ChatRequest, json.dumps(body).encode(), None), "scripted")
    return raised.value


async def test_a_completion_has_openai_s_shape(served: Served) -> None:
    before = int(time.time())
    response = await served.post(PATH, {**ASKED, "n": 2, "seed": 1})

    body = response.json()
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert body.keys() == {"id", "object", "created", "model", "choices", "usage"}
    assert body["id"].startswith("gen-")
    assert (body["object"], body["model"]) == ("chat.completion", "scripted")
    assert before <= body["created"] <= time.time()
    assert body["choices"] == [
        {
            "index": index,
            "message": {"role": "assistant", "content": "Waves.", "refusal": None},
            "finish_reason": "stop",
            "logprobs": None,
        }
        for index in (0, 1)
    ]
    usage = body["usage"]
    details = {"prompt_tokens_details", "completion_tokens_details"}
    assert usage.keys() == {"prompt_tokens", "completion_tokens", "total_tokens", *details}
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (10, 2, 12)
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0}


async def test_sampling_reaches_the_engine(served: Served) -> None:
    stated = {"temperature": 1, "top_p": 0.5, "max_completion_tokens": 7, "stop": "END", "seed": 3}
    assert (await served.post(PATH, {**ASKED, **stated})).status_code == 200
    assert (await served.post(PATH, {**ASKED, "max_tokens": 8, "stop": ["A", "B"]})).status_code == 200

    first, second = (sample.sampling for sample in served.engine.calls_of(Sample))
    assert first is not None
    assert second is not None
    assert (first.temperature, first.top_p, first.max_tokens, first.stop, first.seed) == (1.0, 0.5, 7, ("END",), 3)
    assert (second.max_tokens, second.stop) == (8, ("A", "B"))


async def test_messages_become_the_conversation(served: Served) -> None:
    part = {"type": "text", "text": "Go "}
    answered: dict[str, Any] = {
        "role": "assistant",
        "content": "Hello!",
        "refusal": None,
        "annotations": [],
        "tool_calls": None,
    }
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hello.", "name": "ann"},
        answered,
        {"role": "assistant", "content": None},
        {"role": "user", "content": "Well?"},
        {"role": "user", "content": [part, {**part, "text": "on."}]},
    ]
    assert (await served.post(PATH, {**ASKED, "messages": messages})).status_code == 200

    [call] = served.engine.calls
    turns = [(turn.role, turn.text) for turn in call.conversation.turns()]
    assert turns == [
        ("system", "Be brief."),
        ("user", "Hello."),
        ("assistant", "Hello!\n\n"),
        ("user", "Well?\n\nGo on."),
    ]


async def test_what_the_system_says_later_is_the_user_s(served: Served) -> None:
    said = [("system", "A"), ("developer", "B"), ("user", "C"), ("system", "D"), ("assistant", "E"), ("system", "F")]
    messages = [{"role": role, "content": text} for role, text in said]
    assert (await served.post(PATH, {**ASKED, "messages": messages})).status_code == 200

    [call] = served.engine.calls
    turns = [(turn.role, turn.text) for turn in call.conversation.turns()]
    assert turns == [("system", "A\n\nB"), ("user", "C\n\nD"), ("assistant", "E"), ("user", "F")]


@pytest.mark.parametrize("model", ["scripted", "scripted:refine"])
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (["assistant", "user"], ["assistant", "user"]),
        (["system", "assistant", "user"], ["system", "assistant", "user"]),
        (["assistant", "assistant", "user"], ["assistant", "user"]),
        (["assistant", "system"], ["assistant", "user"]),
        (["system"], ["user"]),
        (["developer", "system"], ["user"]),
    ],
)
async def test_a_chat_need_not_begin_with_the_user(
    served: Served, model: str, said: list[str], expected: list[str]
) -> None:
    chat = {
        "model": model,
        "messages": [{"role": role, "content": f"Say {number}."} for number, role in enumerate(said)],
        "redraft": {**SALT, "search": {"rounds": 0}} if "refine" in model else None,
    }
    line = {"custom_id": "a", "url": PATH, "body": chat}
    alone = await served.post(PATH, chat)
    batch = await served.post("/v1/batch", {"requests": [line]})

    assert (alone.status_code, batch.json()["response"]["status_code"]) == (200, 200)
    for call in served.engine.calls:
        assert [turn.role for turn in call.conversation.turns()] == expected
        assert call.conversation.turn.text.endswith(f"Say {len(said) - 1}.")


async def test_an_answer_that_the_caller_has_begun_is_refused(served: Served) -> None:
    begun = {"role": "assistant", "content": "Once"}
    response = await served.post(PATH, {**ASKED, "messages": [*ASKED["messages"], begun]})

    assert refusal(response) == (400, "invalid_request_error", "messages.1.role", "invalid_request")
    assert "must be the user's" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("stated", "answer"), [(AS_SCHEMA, {"warm": True}), ({"type": "json_object"}, {}), ({"type": "text"}, None)]
)
async def test_a_generated_text_follows_the_response_format(stated: dict[str, Any], answer: Any) -> None:
    async with serving(Script()) as served:
        body = (await served.post(PATH, {**ASKED, "response_format": stated})).json()

    text = body["choices"][0]["message"]["content"]
    assert text.startswith("Reply ") if answer is None else json.loads(text) == answer


async def test_the_response_format_of_a_refine_is_a_hard_verifier() -> None:
    def json_at_last(call: Any) -> str:
        return '{"warm": true}' if "JSON" in call.prompt else "It is warm."

    redraft = {"judge": False, "evaluators": [{"type": "keywords", "include": ["warm"]}], "trace": True}
    async with serving(Script(reply=json_at_last)) as served:
        response = await served.post(PATH, {**REFINED, "redraft": redraft, "response_format": AS_SCHEMA})

    body = response.json()
    assert body["choices"][0]["message"]["content"] == '{"warm": true}'
    draft = body["redraft"]["rounds"][0]["candidates"][0]
    assert [(e["evaluator"], e["hard"], e["passed"]) for e in draft["evaluations"]] == [
        ("keywords", True, True),
        ("json_schema", True, False),
    ]
    assert (body["redraft"]["stop_reason"], body["redraft"]["passed"]) == ("target", True)


async def test_a_refine_answers_with_its_text_and_its_account(served: Served) -> None:
    body = (await served.post(PATH, {**REFINED, "redraft": SALT})).json()

    assert body["model"] == "scripted:refine"
    assert [choice["message"]["content"] for choice in body["choices"]] == ["Salt waves."]
    assert body["redraft"].keys() == ACCOUNT
    assert (body["redraft"]["stop_reason"], body["redraft"]["improved"]) == ("target", True)
    spent = body["redraft"]["usage"]["total"]
    assert spent["calls"] == len(served.engine.calls) == 2
    assert body["usage"] == {
        "prompt_tokens": spent["prompt_tokens"],
        "completion_tokens": spent["completion_tokens"],
        "total_tokens": spent["prompt_tokens"] + spent["completion_tokens"],
        "prompt_tokens_details": {"cached_tokens": spent["cached_tokens"]},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


@pytest.mark.parametrize("preset", PRESETS)
async def test_a_model_stands_for_a_preset(served: Served, preset: str) -> None:
    redraft = {**({} if preset == "vote" else {"judge": False}), "evaluators": SALT["evaluators"], "trace": True}
    for name in {preset, preset.replace("_", "-")}:
        body = (await served.post(PATH, {**ASKED, "model": f"scripted:{name}", "redraft": redraft})).json()
        assert body["model"] == f"scripted:{name}"
        drafts = body["redraft"]["rounds"][0]["candidates"]
        assert len(drafts) == PRESETS[preset].drafts


async def test_the_task_s_own_preset_is_that_of_refine(served: Served) -> None:
    for redraft in ({"task": "summarize"}, {"task": "summarize", "search": {"preset": "best_of_n"}}):
        ours = await served.post("/v1/refine", {"messages": ASKED["messages"], **redraft})
        theirs = await served.post(PATH, {**REFINED, "redraft": {**redraft, "trace": True}})
        shape = [len(ended["candidates"]) for ended in ours.json()["rounds"]]
        assert [len(ended["candidates"]) for ended in theirs.json()["redraft"]["rounds"]] == shape


async def test_a_generation_takes_a_task(served: Served) -> None:
    redraft = {"task": "translate", "parameters": {"target_language": "French"}}
    assert (await served.post(PATH, {**ASKED, "redraft": redraft})).status_code == 200
    assert "French" in served.engine.calls[0].prompt


async def test_a_stream_has_openai_s_chunks() -> None:
    async with serving(Script(reply=lambda call: "one two")) as served:
        chunks = await streamed(served, {**ASKED, "n": 2, "stream_options": {"include_usage": True}})

    ids = {(c["id"], c["object"], c["created"], c["model"]) for c in chunks}
    assert len(ids) == 1
    *told, last = chunks
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 4
    assert {c["usage"] for c in told} == {None}
    assert [c["choices"][0]["index"] for c in told[:2]] == [0, 1]
    for index in (0, 1):
        choices = [choice for c in told for choice in c["choices"] if choice["index"] == index]
        assert choices[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(choice["delta"]["content"] for choice in choices[:-1]) == "one two"
        assert len(choices) == 4
        assert choices[-1] == {"index": index, "delta": {}, "finish_reason": "stop", "logprobs": None}
        assert {choice["finish_reason"] for choice in choices[:-1]} == {None}


async def test_without_include_usage_a_stream_has_none(served: Served) -> None:
    for options in ({}, {"stream_options": None}, {"stream_options": {"include_usage": False}}):
        chunks = await streamed(served, {**ASKED, **options})
        assert [c for c in chunks if "usage" in c or not c["choices"]] == []


async def test_a_streamed_refine_tells_what_happens_and_then_the_text(served: Served) -> None:
    asked = {**REFINED, "redraft": SALT, "stream_options": {"include_usage": True}}
    first, *told, text, finish, usage = await streamed(served, asked)

    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [c["redraft"]["event"] for c in told] == [
        *("started", "candidate", "evaluation", "round"),
        *("critique", "candidate", "evaluation", "round"),
    ]
    assert {json.dumps(choice["delta"]) for c in told for choice in c["choices"]} == {"{}"}
    events = await served.stream("/v1/refine", {"messages": ASKED["messages"], **SALT})
    assert [set(c["redraft"]) - {"event"} for c in told] == [set(data) for _, data in events[:-1]]
    assert told[0]["redraft"]["id"] == finish["id"]
    assert text["choices"][0]["delta"] == {"content": "Salt waves."}
    assert "redraft" not in text
    assert (finish["choices"][0]["delta"], finish["choices"][0]["finish_reason"]) == ({}, "stop")
    assert finish["redraft"].keys() == ACCOUNT | {"event"}
    assert finish["redraft"]["event"] == "done"
    assert usage["usage"]["completion_tokens"] == finish["redraft"]["usage"]["total"]["completion_tokens"]


async def test_a_failure_in_a_stream_is_its_last_event() -> None:
    def dying(call: EngineCall) -> None:
        raise EngineDead("it was killed")

    async with serving(Script(fault=dying)) as served:
        response = await served.post(PATH, {**REFINED, "stream": True})

    *_, last = filter(None, response.text.splitlines())
    assert response.status_code == 200
    error = json.loads(last.removeprefix("data: "))["error"]
    assert (error["type"], error["param"], error["code"]) == ("server_error", None, "engine_dead")


async def test_a_streamed_text_that_a_failing_engine_cuts_ends_as_if_at_its_limit() -> None:
    script = Script(reply=lambda call: "word " * 100, seconds_per_token=0.05)
    async with (
        serving(script) as served,
        served.client.stream("POST", PATH, json={**ASKED, "stream": True}) as response,
    ):
        lines = response.aiter_lines()
        while '"content":"word' not in await anext(lines):
            pass
        served.engine.kill()
        *_, last, done = [line async for line in lines if line]

    assert done == "data: [DONE]"
    assert json.loads(last.removeprefix("data: "))["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("stated", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 5, "max_tokens": 5}, "max_tokens"),
        ({"seed": 2**64}, "seed"),
        ({"stop": ["x"] * 9}, "stop"),
        ({"stop": ["fine", ""]}, "stop.1"),
        ({"n": 0}, "n"),
        ({"surprise": 1}, "surprise"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url"}]}]},
         "messages.0.content.1.image_url"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "function", "content": "x"}]}, "messages.1.role"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [{}]}]}, "messages.0.tool_calls.0.id"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
         "response_format.json_schema.name"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["x" * 40_000]}}}},
         "response_format"),
        ({"redraft": {"search": {"rounds": 1}}}, "redraft.search"),
        ({"redraft": {"sampling": {}}}, "redraft.sampling"),
        ({"redraft": {"n": 3}}, "redraft.n"),
        ({"redraft": {"task": "general", "second": 1, "first": 1}}, "redraft.second"),
        ({"redraft": {"x" * 300: 1}}, "redraft." + "x" * 192),
        ({"redraft": 5}, "redraft"),
        ({"model": "scripted:refine", "n": 2}, "n"),
        ({"model": "scripted:refine", "redraft": {"search": {"rounds": -1}}}, "redraft.search.rounds"),
        ({"model": "scripted:refine", "redraft": {"search": None}}, "redraft.search"),
        ({"model": "scripted:refine", "redraft": {"stop": {"target": 2}}}, "redraft.stop.target"),
        ({"model": "scripted:refine", "redraft": {"messages": []}}, "redraft.messages"),
        ({"model": "scripted:refine", "redraft": {"evaluators": {}}, "response_format": AS_SCHEMA},
         "redraft.evaluators"),
        ({"model": "scripted:refine", "redraft": {"evaluators": [{"type": "length", "unit": "words"}]}},
         "redraft.evaluators.0"),
        ({"model": "scripted:refine", "redraft": {"evaluators": [{"type": "regex", "pattern": "("}]}},
         "redraft.evaluators.0.pattern"),
        ({"model": "scripted:refine", "redraft": SALT,
          "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "wrong"}}}},
         "response_format"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(stated: dict[str, Any], param: str) -> None:
    assert refused({**ASKED, **stated}).errors[0].field == param


@pytest.mark.parametrize(
    ("stated", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 100_000}, "max_tokens"),
        ({"max_completion_tokens": 100_000}, "max_completion_tokens"),
        ({"n": 100}, "n"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}, "messages.1.role"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages.0.content"),
        ({"redraft": {"task": "nonsense"}}, "redraft.task"),
        ({"redraft": {"parameters": {"tone": "dry"}}}, "redraft.parameters.tone"),
        ({"model": "scripted:refine", "redraft": {"search": {"rounds": 100}}}, "redraft.search.rounds"),
    ],
)
async def test_a_wrong_field_is_400(served: Served, stated: dict[str, Any], param: str) -> None:
    response = await served.post(PATH, {**ASKED, **stated})

    assert refusal(response) == (400, "invalid_request_error", param, "invalid_request")
    assert response.json()["error"]["message"].startswith(f"{param}: ")
    assert served.engine.calls == []


async def test_what_is_ignored_may_be_anything(served: Served) -> None:
    for value in (None, True, "x", {"x": [1]}):
        assert (await served.post(PATH, {**ASKED, **dict.fromkeys(IGNORED, value)})).status_code == 200


async def test_what_cannot_be_done_may_be_said_not_to_be_wanted(served: Served) -> None:
    for neutral in (REFUSED, dict.fromkeys(REFUSED)):
        assert (await served.post(PATH, {**ASKED, **neutral})).status_code == 200


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_refused(name: str) -> None:
    [error] = refused({**ASKED, name: "wanted"}).errors

    assert error.field == name
    assert "not supported" in error.message


async def test_null_is_as_good_as_left_out(served: Served) -> None:
    nothing = dict.fromkeys(ChatRequest.model_fields.keys() - ASKED.keys())
    for asked in (ASKED, REFINED):
        assert (await served.post(PATH, {**nothing, **asked})).status_code == 200


@pytest.mark.parametrize("missing", ["model", "messages"])
async def test_what_is_needed_is_named(served: Served, missing: str) -> None:
    response = await served.post(PATH, {name: value for name, value in ASKED.items() if name != missing})

    assert refusal(response) == (400, "invalid_request_error", missing, "invalid_request")


async def test_an_unknown_model_is_404(served: Served) -> None:
    for model in ("gpt-4o", "scripted:nonsense", "scripted:", ":refine", "refine", "scripted:refine:"):
        asked = await served.post(PATH, {**ASKED, "model": model, "redraft": SALT})
        shown = await served.client.get(f"/v1/models/{model}")

        assert refusal(asked) == refusal(shown) == (404, "invalid_request_error", "model", "model_not_found")
        assert "scripted:best-of-n" in asked.json()["error"]["message"]


async def test_the_models_are_listed_and_each_is_shown(served: Served) -> None:
    listed = (await served.client.get("/v1/models")).json()

    names = [model["id"] for model in listed["data"]]
    assert listed.keys() == {"object", "data"}
    assert listed["object"] == "list"
    assert names == ["scripted", "scripted:refine", *(f"scripted:{preset.replace('_', '-')}" for preset in PRESETS)]
    for model in listed["data"]:
        assert model == {
            "id": model["id"],
            "object": "model",
            "created": 0,
            "owned_by": "redraft",
            "judge_trust": {"level": "drive", "share": None, "source": "unknown"},
            "judge_digest": listed["data"][0]["judge_digest"],
        }
        assert (await served.client.get(f"/v1/models/{model['id']}")).json() == model


async def test_a_body_that_is_not_json_is_400(served: Served) -> None:
    for content in (b"{", b"[" * 300, b'{"model": "\xff"}'):
        response = await served.client.post(PATH, content=content, headers={"content-type": "application/json"})
        assert refusal(response) == (400, "invalid_request_error", None, "malformed_body")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["scripted", "scripted:refine"])
async def test_a_prompt_beyond_the_context_is_400(model: str, stream: bool) -> None:
    asked = {"model": model, "messages": [{"role": "user", "content": "word " * 100}], "stream": stream}
    async with serving(Script(context_tokens=50)) as served:
        response = await served.post(PATH, asked)

    assert refusal(response) == (400, "invalid_request_error", "messages", "context_length_exceeded")
    assert "102 tokens" in response.json()["error"]["message"]


async def test_a_body_beyond_the_limit_is_413() -> None:
    async with serving(max_body_bytes=100) as served:
        response = await served.post(PATH, {**ASKED, "user": "x" * 100})

    assert refusal(response) == (413, "invalid_request_error", None, "body_too_large")


async def test_a_large_body_is_read_too(served: Served) -> None:
    response = await served.post(PATH, {**REFINED, "redraft": SALT, "user": "x" * 20_000})
    wrong = await served.post(PATH, {**REFINED, "redraft": {"search": 1}, "user": "x" * 20_000})

    assert response.json()["choices"][0]["message"]["content"] == "Salt waves."
    assert refusal(wrong)[2] == "redraft.search"


async def test_without_a_key_it_is_401() -> None:
    async with serving(api_keys=KEY) as served:
        asked = await served.client.post(PATH, content=b"{")
        listed = await served.client.get("/v1/models")
        known = await served.post(PATH, ASKED, headers={"Authorization": "Bearer secret"})

    assert refusal(asked) == refusal(listed) == (401, "authentication_error", None, "invalid_api_key")
    assert asked.headers["www-authenticate"] == "Bearer"
    assert known.status_code == 200


async def test_a_wrong_method_and_a_wrong_path_are_told_in_the_same_shape(served: Served) -> None:
    wrong = await served.client.get(PATH)

    assert refusal(wrong) == (405, "invalid_request_error", None, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"
    assert refusal(await served.client.get("/v1/chat/nothing"))[::3] == (404, "not_found")


async def test_while_the_engine_loads_it_is_503() -> None:
    async def start(*_: object) -> Any:
        await asyncio.Event().wait()

    async with serving(start=start) as loading:
        for stream in (False, True):
            response = await loading.post(PATH, {**ASKED, "stream": stream})
            assert refusal(response) == (503, "server_error", None, "starting")


async def test_a_full_service_refuses_before_it_looks_at_the_body() -> None:
    async with serving(max_programs=1, max_queued=0) as served:
        stall(served.engine, lambda call: True)
        busy = asyncio.create_task(served.post(PATH, ASKED))
        await served.until(lambda: served.engine.in_flight == 1)
        response = await served.client.post(PATH, content=b"{")
        busy.cancel()
        await asyncio.wait([busy])
        await served.at_rest()

    assert refusal(response) == (503, "server_error", None, "overloaded")


async def test_a_bug_is_500_and_tells_nothing() -> None:
    def fault(_: object) -> None:
        raise KeyError("password")

    async with serving(Script(fault=fault)) as served:
        response = await served.post(PATH, ASKED)

    assert refusal(response) == (500, "server_error", None, "internal_error")
    assert "password" not in response.text


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_its_engine_calls(served: Served, stream: bool) -> None:
    for asked in (ASKED, REFINED):
        reached = asyncio.Event()
        stall(served.engine, lambda call: True, reached.set)
        asking = asyncio.create_task(served.post(PATH, {**asked, "stream": stream}))
        async with asyncio.timeout(5):
            await reached.wait()
        asking.cancel()
        await asyncio.wait([asking])
        await served.at_rest()
        served.engine.script = Script(reply=reply)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_metrics_count_it_under_its_own_path(served: Served, stream: bool) -> None:
    assert (await served.post(PATH, {**REFINED, "redraft": SALT, "stream": stream})).status_code == 200
    page = (await served.client.get("/metrics")).text

    assert f'redraft_requests_total{{endpoint="{PATH}",status="200"}} 1.0' in page
    assert f'redraft_first_event_seconds_count{{endpoint="{PATH}"}} 1.0' in page
    assert 'redraft_refine_stops_total{reason="target",task="general"} 1.0' in page


async def test_the_openapi_document_tells_the_truth(served: Served) -> None:
    document = (await served.client.get("/openapi.json")).json()
    components = {"components": document["components"]}
    described = document["paths"][PATH]["post"]
    schema = described["requestBody"]["content"]["application/json"]["schema"]
    answered = described["responses"]["200"]["content"]["application/json"]["schema"]
    refused = described["responses"]["400"]["content"]["application/json"]["schema"]

    for example in document["components"]["schemas"]["ChatRequest"]["examples"]:
        jsonschema.validate(example, {**schema, **components})
        jsonschema.validate((await served.post(PATH, example)).json(), {**answered, **components})
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hello."}]}]
    jsonschema.validate({**ASKED, "messages": parts, "response_format": AS_SCHEMA}, {**schema, **components})
    wrong = {**ASKED, "surprise": 1}
    jsonschema.validate((await served.post(PATH, wrong)).json(), {**refused, **components})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, {**schema, **components})


@pytest.mark.parametrize(
    ("field", "wrong", "right", "instead"),
    [
        ("logprobs", True, False, "false"),
        ("logprobs", 0, False, "false"),
        ("frequency_penalty", 1, 0, "0"),
        ("frequency_penalty", False, 0.0, "0"),
        ("top_logprobs", 3, 0, "0"),
        ("functions", [{}], [], "[]"),
        ("reasoning_effort", "low", "none", '"none"'),
    ],
)
async def test_what_may_be_sent_instead_is_told(
    served: Served, field: str, wrong: Any, right: Any, instead: str
) -> None:
    asked = {"model": "scripted", "messages": [{"role": "user", "content": "Hi."}]}
    refused = (await served.post(PATH, {**asked, field: wrong})).json()["error"]
    assert refused["param"] == field
    assert f"or send {instead}" in refused["message"]
    assert (await served.post(PATH, {**asked, field: right})).status_code == 200


async def test_one_part_in_place_of_a_list_of_parts_is_named_itself(served: Served) -> None:
    content = {"type": "text", "text": "Hi."}
    response = await served.post(PATH, {"model": "scripted", "messages": [{"role": "user", "content": content}]})
    assert response.json()["error"]["param"] == "messages.0.content"
    assert "a text or a list of parts" in response.json()["error"]["message"]
