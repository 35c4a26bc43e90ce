"""The whole service over real HTTP: every endpoint answers as the wire contract says."""

import asyncio
import json
import re
from typing import Any

import jsonschema
import pytest

from service.engines.base import Sample
from service.engines.scripted import Script
from service.evaluators.text.length import Length
from tests.support.scripts import role_of, stall
from tests.support.serving import Served, reply, serving

PROMPT = {"prompt": "Write about the sea."}
SALT = {"evaluators": [{"type": "keywords", "include": ["salt"]}]}
USAGE = {"calls", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens"}
USER = {"role": "user", "content": "Write about the sea."}
TIMING = {"queued_seconds", "total_seconds"}
VERIFIED = {"evaluator", "authority", "hard", "passed", "score", "issues", "error"}


async def test_generate_answers_with_its_choices(served: Served) -> None:
    response = await served.post("/v1/generate", {"prompt": ["One?", "Two?"], "n": 2})

    body = response.json()
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert body.keys() == {"id", "model", "choices", "usage", "timing"}
    assert [(c["prompt_index"], c["index"]) for c in body["choices"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert body["choices"][0] == {"prompt_index": 0, "index": 0, "text": "Waves.", "finish_reason": "stop"}
    assert body["usage"].keys() == USAGE
    assert (body["usage"]["calls"], body["usage"]["completion_tokens"]) == (4, 4)
    assert body["timing"].keys() == TIMING
    assert 0 <= body["timing"]["queued_seconds"] <= body["timing"]["total_seconds"] < 60


async def test_generate_says_which_texts_were_cut() -> None:
    async with serving(Script(reply=lambda call: "one two three")) as served:
        response = await served.post("/v1/generate", {**PROMPT, "sampling": {"max_tokens": 2}})

    assert response.json()["choices"] == [{"prompt_index": 0, "index": 0, "text": "one two", "finish_reason": "length"}]


async def test_generate_follows_a_schema() -> None:
    schema = {"type": "object", "properties": {"warm": {"type": "boolean"}}, "required": ["warm"]}
    async with serving(Script()) as served:
        response = await served.post("/v1/generate", {**PROMPT, "response_schema": schema})

    assert json.loads(response.json()["choices"][0]["text"]) == {"warm": True}


async def test_generate_streams_its_pieces_then_the_account() -> None:
    async with serving(Script(reply=lambda call: f"to {call.prompt} and on")) as served:
        *deltas, (last, done) = await served.stream("/v1/generate", {"prompt": ["One?", "Two?"], "n": 2})

    texts: dict[tuple[int, int], str] = {}
    for name, data in deltas:
        assert (name, set(data)) == ("delta", {"prompt_index", "index", "text"})
        place = data["prompt_index"], data["index"]
        texts[place] = texts.get(place, "") + data["text"]
    assert texts == {(p, i): f"to {('One?', 'Two?')[p]} and on" for p in (0, 1) for i in (0, 1)}
    assert len(deltas) == 16
    assert (last, set(done)) == ("done", {"id", "model", "choices", "usage", "timing"})
    assert done["choices"][3] == {"prompt_index": 1, "index": 1, "finish_reason": "stop"}
    assert done["usage"]["calls"] == 4


@pytest.mark.parametrize("end", ["\u0085", "\u2028", "\u2029"])
async def test_no_answer_is_cut_by_readers_of_lines(end: str) -> None:
    async with serving(Script(reply=lambda call: f"Waves.{end}Salt.")) as served:
        whole = await served.post("/v1/generate", PROMPT)
        streamed = await served.post("/v1/generate", {**PROMPT, "stream": True})
        lines = {"requests": [{"custom_id": "a", "url": "/v1/generate", "body": PROMPT}]}
        batch = await served.post("/v1/batch", lines)
    assert whole.text.splitlines() == [whole.text]
    assert whole.json()["choices"][0]["text"] == f"Waves.{end}Salt."
    assert streamed.text.splitlines() == streamed.text.split("\n")[:-1]
    [line] = batch.text.splitlines()
    assert json.loads(line)["body"]["choices"][0]["text"] == f"Waves.{end}Salt."


async def test_critique_answers_with_evaluations_and_feedback(served: Served) -> None:
    criteria = [{"name": "accuracy", "question": "Is it right?", "weight": 1.0}]

    response = await served.post("/v1/critique", {**PROMPT, **SALT, "candidate": "Sand.", "criteria": criteria})

    body = response.json()
    assert body.keys() == {
        *("id", "model", "models", "judge_trust", "passed", "score", "evaluations", "feedback"),
        *("remarks", "fault_probability", "usage", "timing"),
    }
    assert (body["passed"], body["score"]) == (False, 0.0)
    keywords, judge = body["evaluations"]
    assert keywords == {
        "evaluator": "keywords",
        "authority": "verifier",
        "hard": True,
        "passed": False,
        "score": 0.0,
        "issues": [{"rule": "include", "message": "missing: salt"}],
        "error": None,
    }
    assert judge.keys() == VERIFIED | {"criteria", "stderr"}
    assert (judge["evaluator"], judge["authority"], judge["hard"], judge["passed"]) == ("judge", "judge", False, None)
    assert judge["score"] == pytest.approx(0.4)
    [accuracy] = judge["criteria"]
    assert accuracy == {
        "name": "accuracy",
        "score": pytest.approx(0.4),
        "stderr": pytest.approx(judge["stderr"]),
        "mass": pytest.approx(1.0),
    }
    assert body["feedback"] == "missing: salt\nSay more."
    assert 0.5 < body["fault_probability"] < 1.0
    assert body["remarks"] == [{"message": "Say more.", "criterion": None, "weight": body["fault_probability"]}]
    assert (body["usage"].keys(), body["timing"].keys(), body["usage"]["calls"]) == (USAGE, TIMING, 7)


@pytest.mark.parametrize(
    ("asked", "calls", "evaluators", "feedback"),
    [
        ({}, 9, ["judge"], "Say more."),
        ({"feedback": False}, 4, ["judge"], None),
        ({"judge": False}, 6, [], "Say more."),
        ({"judge": False, "feedback": False}, 0, [], None),
        ({**SALT, "judge": False, "feedback": False}, 0, ["keywords"], None),
    ],
)
async def test_critique_does_only_what_is_asked(
    served: Served, asked: dict[str, Any], calls: int, evaluators: list[str], feedback: str | None
) -> None:
    body = (await served.post("/v1/critique", {**PROMPT, "candidate": "Sand.", **asked})).json()

    assert body["usage"]["calls"] == calls == len(served.engine.calls)
    assert [evaluation["evaluator"] for evaluation in body["evaluations"]] == evaluators
    assert body["feedback"] == feedback


async def test_a_critic_without_issues_says_so() -> None:
    async with serving(Script(weights=lambda call: (0.9, 0.1))) as served:
        body = (await served.post("/v1/critique", {**PROMPT, "candidate": "Sand.", "judge": False})).json()

    assert (body["feedback"], body["remarks"]) == ("No issues.", [])
    assert 0.0 < body["fault_probability"] < 0.5


async def test_a_point_of_the_critic_names_its_criterion_and_weighs_as_much_as_that() -> None:
    criteria = [
        {"name": "tone", "question": "Is it kind?"},
        {"name": "truth", "question": "Is it true?", "weight": 4.0},
    ]
    issues = [{"issue": "It is rude.", "criterion": 2}, {"issue": "It is false.", "criterion": 1}]
    async with serving(Script(reply=lambda call: json.dumps({"issues": issues}))) as served:
        asked = {**PROMPT, "candidate": "Sand.", "criteria": criteria}
        body = (await served.post("/v1/critique", asked)).json()

    probability = body["fault_probability"]
    assert body["feedback"] == "It is false.\nIt is rude."
    assert body["remarks"] == [
        {"message": "It is false.", "criterion": "truth", "weight": probability},
        {"message": "It is rude.", "criterion": "tone", "weight": pytest.approx(probability / 4)},
    ]


async def test_refine_answers_with_the_text_and_the_whole_account(served: Served) -> None:
    asked = {**PROMPT, **SALT, "judge": False, "search": {"critic": "model"}}
    body = (await served.post("/v1/refine", asked)).json()

    assert list(body) == [
        *(
            "id",
            "model",
            "models",
            "judge_trust",
            "text",
            "score",
            "passed",
            "improved",
            "selected",
            "stop_reason",
            "constraints",
            "rounds",
            "usage",
            "timing",
        )
    ]
    assert (body["model"], body["text"], body["score"], body["passed"]) == ("scripted", "Salt waves.", 1.0, True)
    assert (body["improved"], body["selected"], body["stop_reason"]) == (
        True,
        {"round": 1, "candidate": "c1"},
        "target",
    )
    first, second = body["rounds"]
    assert first.keys() == second.keys() == {"round", "accepted", "seconds", "critiques", "candidates"}
    [critique] = second["critiques"]
    assert (critique["candidate"], critique["issues"]) == ("c0", ["missing: salt", "Say more."])
    assert [remark["message"] for remark in critique["remarks"]] == ["Say more."]
    [draft], [revision] = first["candidates"], second["candidates"]
    assert draft.keys() == {
        *("id", "form", "parent", "model", "text", "finish_reason", "score", "passed", "evaluations", "diff"),
        "constraints",
    }
    assert (draft["id"], draft["parent"], draft["diff"], draft["passed"]) == ("c0", None, None, False)
    assert (draft["form"], revision["form"]) == ("draft", "edit")
    assert revision["diff"] == [
        {"op": "delete", "text": "Waves."},
        {"op": "insert", "text": "Salt waves."},
    ]
    assert revision["evaluations"][0].keys() == VERIFIED
    assert body["usage"].keys() == {"total", "by_role"}
    assert body["usage"]["by_role"].keys() == {"draft", "critique", "judge", "revise"}
    for counter in USAGE:
        assert sum(usage[counter] for usage in body["usage"]["by_role"].values()) == body["usage"]["total"][counter]
    assert body["usage"]["by_role"]["judge"] == dict.fromkeys(USAGE, 0)
    assert body["timing"].keys() == TIMING


async def test_refine_without_a_trace_leaves_the_rounds_out(served: Served) -> None:
    body = (await served.post("/v1/refine", {**PROMPT, "trace": False})).json()

    assert body["text"]
    assert "rounds" not in body


async def test_refine_streams_the_account_as_it_happens_and_ends_with_the_response(served: Served) -> None:
    asked = {**PROMPT, **SALT, "judge": False}

    events = await served.stream("/v1/refine", asked)

    assert [(name, *data) for name, data in events[:-1]] == [
        ("started", "id", "model", "models", "judge_trust", "task"),
        ("candidate", "round", "id", "form", "parent", "model", "text", "finish_reason", "constraints"),
        ("evaluation", "candidate", "score", "passed", "evaluations", "tokens"),
        ("round", "round", "incumbent", "accepted", "gain", "tokens"),
        ("critique", "round", "candidate", "issues", "remarks", "fault_probability"),
        ("candidate", "round", "id", "form", "parent", "model", "text", "finish_reason", "constraints"),
        ("evaluation", "candidate", "score", "passed", "evaluations", "tokens"),
        ("round", "round", "incumbent", "accepted", "gain", "tokens"),
    ]
    spent = events[-1][1]["usage"]["total"]
    tokens = spent["prompt_tokens"] + spent["completion_tokens"]
    assert events[-2][1] == {"round": 1, "incumbent": "c1", "accepted": True, "gain": 1.0, "tokens": tokens}
    name, done = events[-1]
    whole = (await served.post("/v1/refine", asked)).json()
    assert (name, done.keys()) == ("done", whole.keys())
    assert done["id"] == events[0][1]["id"] != whole["id"]
    # Durations, and what the cache held already, differ from one time to the next.
    same = ("model", "text", "score", "passed", "improved", "selected", "stop_reason")
    assert {key: done[key] for key in same} == {key: whole[key] for key in same}


async def test_a_request_in_chinese_is_revised_by_instructions_in_chinese() -> None:
    asked: list[str] = []

    def write(call: Sample) -> str:
        asked.append(call.prompt)
        return "海很大浪很高。"

    length = {"type": "length", "unit": "words", "max": 3}
    async with serving(Script(reply=write)) as served:
        body = {"prompt": "写一句关于大海的话。", "evaluators": [length], "judge": False, "search": {"rounds": 1}}
        response = await served.post("/v1/refine", body)

    assert response.json()["rounds"][0]["candidates"][0]["evaluations"][0]["issues"] == [
        {"rule": "words", "message": "6 words; at most 3 are allowed"}
    ]
    revision = asked[1]
    [check] = Length(unit="words", max=3).check("")
    assert check.instruction_in("zh") in revision
    assert "at most" not in revision


async def test_the_callers_draft_is_refined(served: Served) -> None:
    body = (await served.post("/v1/refine", {**PROMPT, **SALT, "draft": "Mine, with salt.", "judge": False})).json()

    assert (body["text"], body["improved"], body["usage"]["total"]["calls"]) == ("Mine, with salt.", False, 0)


async def test_messages_are_an_alternative_to_a_prompt(served: Served) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Go on."},
    ]

    response = await served.post("/v1/generate", {"messages": messages})

    assert response.status_code == 200
    [call] = served.engine.calls
    assert [{"role": turn.role, "content": turn.text} for turn in call.conversation.turns()] == messages


async def test_an_engine_that_dies_in_a_stream_is_its_last_event(served: Served) -> None:
    stall(served.engine, lambda call: True, served.engine.kill)

    events = await served.stream("/v1/refine", PROMPT)

    assert [name for name, _ in events] == ["started", "error"]
    assert events[-1][1] == {
        "type": "/problems#engine_dead",
        "title": "The engine has stopped",
        "status": 503,
        "detail": "the scripted engine was killed",
        "code": "engine_dead",
    }


async def test_an_engine_that_dies_later_leaves_the_best_so_far(served: Served) -> None:
    stall(served.engine, lambda call: role_of(call) == "revise", served.engine.kill)

    response = await served.post("/v1/refine", {**PROMPT, **SALT})

    assert response.status_code == 200
    assert (response.json()["text"], response.json()["stop_reason"]) == ("Waves.", "engine_failed")


async def test_the_served_model_is_listed_and_may_be_named(served: Served) -> None:
    model = (await served.client.get("/v1/models")).json()["data"][0]

    assert (await served.post("/v1/generate", {**PROMPT, "model": model["id"]})).status_code == 200


async def test_tasks_are_listed_and_their_examples_work(served: Served) -> None:
    listed = (await served.client.get("/v1/tasks")).json()["tasks"]

    assert {"general", "summarize", "translate", "code"} <= {task["name"] for task in listed}
    for task in listed:
        shown = (await served.client.get(f"/v1/tasks/{task['name']}")).json()
        assert shown.keys() == {"name", "description", "parameters", "choices", "criteria", "rubrics", "example"}
        assert shown["description"] == task["description"]
        response = await served.post("/v1/refine", shown["example"])
        assert response.status_code == 200, response.text


async def test_a_task_shows_its_parameters(served: Served) -> None:
    shown = (await served.client.get("/v1/tasks/translate")).json()

    assert shown["parameters"]["target_language"]["default"] is None
    assert shown["parameters"]["source_language"]["default"] == ""
    assert {"name", "question", "weight"} == shown["criteria"][0].keys()


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/generate", "GenerateRequest"),
        ("/v1/critique", "CritiqueRequest"),
        ("/v1/refine", "RefineRequest"),
    ],
)
async def test_the_openapi_document_tells_the_truth(served: Served, path: str, model: str) -> None:
    document = (await served.client.get("/openapi.json")).json()
    components = {"components": document["components"]}
    examples = document["components"]["schemas"][model]["examples"]

    described = document["paths"][path]["post"]
    schema = described["requestBody"]["content"]["application/json"]["schema"]
    answered = described["responses"]["200"]["content"]["application/json"]["schema"]
    assert examples
    for example in examples:
        jsonschema.validate(example, {**schema, **components})
        response = await served.post(path, example)
        assert response.status_code == 200, response.text
        jsonschema.validate(response.json(), {**answered, **components})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"surprise": 1}, {**schema, **components})


async def test_every_schema_that_the_openapi_document_refers_to_is_in_it(served: Served) -> None:
    response = await served.client.get("/openapi.json")

    assert (
        set(re.findall(r'"#/components/schemas/(\w+)"', response.text))
        <= response.json()["components"]["schemas"].keys()
    )


CALLS: list[tuple[str, str, str, Any]] = [
    ("GET", "/v1/tasks", "/v1/tasks", None),
    ("GET", "/v1/tasks/{name}", "/v1/tasks/general", None),
    ("GET", "/v1/tasks/{name}", "/v1/tasks/nothing", None),
    ("GET", "/v1/rubrics", "/v1/rubrics", None),
    ("GET", "/v1/models", "/v1/models", None),
    ("GET", "/v1/models/{model}", "/v1/models/scripted", None),
    ("GET", "/v1/models/{model}", "/v1/models/nothing", None),
    ("GET", "/health/live", "/health/live", None),
    ("GET", "/health/ready", "/health/ready", None),
    ("GET", "/metrics", "/metrics", None),
    ("GET", "/problems", "/problems", None),
    ("GET", "/llms.txt", "/llms.txt", None),
    ("GET", "/v1/jobs", "/v1/jobs", None),
    ("GET", "/v1/jobs/{id}", "/v1/jobs/nothing", None),
    ("DELETE", "/v1/jobs/{id}", "/v1/jobs/nothing", None),
    ("GET", "/v1/jobs/{id}/events", "/v1/jobs/nothing/events", None),
    ("GET", "/v1/jobs/{id}/notice", "/v1/jobs/nothing/notice", None),
    ("POST", "/v1/jobs/{id}/notice", "/v1/jobs/nothing/notice", None),
    ("GET", "/v1/traces", "/v1/traces", None),
    ("DELETE", "/v1/traces", "/v1/traces", None),
    ("GET", "/v1/traces/{id}", "/v1/traces/nothing", None),
    ("DELETE", "/v1/traces/{id}", "/v1/traces/nothing", None),
    ("GET", "/v1/preferences", "/v1/preferences", None),
    ("POST", "/v1/feedback", "/v1/feedback", {"program": "nothing", "kind": "thumb", "value": "up"}),
    ("GET", "/v1/adapters", "/v1/adapters", None),
    ("GET", "/v1/adapters/{id}", "/v1/adapters/nothing", None),
    ("POST", "/v1/adapters/{id}/promote", "/v1/adapters/nothing/promote", None),
    ("POST", "/v1/adapters/rollback", "/v1/adapters/rollback", None),
    ("POST", "/v1/adapters/{id}/canary", "/v1/adapters/nothing/canary", {"share": 0.5}),
    ("POST", "/v1/adapters/{id}/canary", "/v1/adapters/nothing/canary", {"share": 0}),
    ("DELETE", "/v1/adapters/{id}/canary", "/v1/adapters/nothing/canary", None),
    ("GET", "/v1/learning/runs", "/v1/learning/runs", None),
    ("POST", "/v1/learning/runs", "/v1/learning/runs", {"recipe": "quick"}),
    ("POST", "/v1/learning/runs", "/v1/learning/runs", {"recipe": 5}),
    ("GET", "/v1/learning/runs/{id}", "/v1/learning/runs/nothing", None),
    ("DELETE", "/v1/learning/runs/{id}", "/v1/learning/runs/nothing", None),
    ("GET", "/v1/learning/runs/{id}/events", "/v1/learning/runs/nothing/events", None),
    ("GET", "/v1/files", "/v1/files", None),
    ("POST", "/v1/files", "/v1/files", {}),
    ("GET", "/v1/files/{file}", "/v1/files/nothing", None),
    ("DELETE", "/v1/files/{file}", "/v1/files/nothing", None),
    ("GET", "/v1/files/{file}/content", "/v1/files/nothing/content", None),
    ("GET", "/v1/batches", "/v1/batches", None),
    ("POST", "/v1/batches", "/v1/batches", {}),
    ("GET", "/v1/batches/{batch}", "/v1/batches/nothing", None),
    ("POST", "/v1/batches/{batch}/cancel", "/v1/batches/nothing/cancel", None),
    ("GET", "/v1/batches/{batch}/notice", "/v1/batches/nothing/notice", None),
    ("POST", "/v1/batches/{batch}/notice", "/v1/batches/nothing/notice", None),
    ("POST", "/v1/messages", "/v1/messages", {"model": "scripted", "max_tokens": 9, "messages": [USER]}),
    ("POST", "/v1/messages", "/v1/messages", {"model": "scripted"}),
    ("POST", "/v1/messages", "/v1/messages", {"model": "nothing", "max_tokens": 9, "messages": [USER]}),
    ("POST", "/v1/generate", "/v1/generate", PROMPT),
    ("POST", "/v1/generate", "/v1/generate", {**PROMPT, "stream": True}),
    ("POST", "/v1/generate", "/v1/generate", {"prompt": 5}),
    ("POST", "/v1/critique", "/v1/critique", {**PROMPT, "candidate": "Sand."}),
    ("POST", "/v1/critique", "/v1/critique", PROMPT),
    ("POST", "/v1/refine", "/v1/refine", {**PROMPT, "stream": True}),
    ("POST", "/v1/refine", "/v1/refine", {**PROMPT, "task": 5}),
    ("POST", "/v1/batch", "/v1/batch", {"requests": [{"custom_id": "a", "url": "/v1/generate", "body": PROMPT}]}),
    ("POST", "/v1/batch", "/v1/batch", {"requests": []}),
    ("POST", "/v1/responses", "/v1/responses", {"model": "scripted", "input": "Write about the sea."}),
    ("POST", "/v1/responses", "/v1/responses", {"model": "scripted", "input": "Write.", "stream": True}),
    ("POST", "/v1/responses", "/v1/responses", {"model": "scripted"}),
    ("GET", "/v1/responses/{response}", "/v1/responses/nothing", None),
    ("DELETE", "/v1/responses/{response}", "/v1/responses/nothing", None),
    ("POST", "/v1/responses/{response}/cancel", "/v1/responses/nothing/cancel", None),
    ("POST", "/v1/chat/completions", "/v1/chat/completions", {"model": "scripted", "messages": []}),
    ("POST", "/v1/chat/completions", "/v1/chat/completions", {"model": "nothing", "messages": [USER]}),
    ("POST", "/v1/chat/completions", "/v1/chat/completions", {"model": "scripted", "messages": [USER], "stream": True}),
]


@pytest.mark.parametrize("keys", [None, f"ann:{'0' * 64}"], ids=["let in", "without the key"])
async def test_every_answer_has_a_status_and_a_type_that_the_openapi_document_names(keys: str | None) -> None:
    async with serving(api_keys=keys) as served:
        paths = (await served.client.get("/openapi.json")).json()["paths"]
        for method, route, path, body in CALLS:
            answer = await served.client.request(method, path, json=body)
            described = paths[route][method.lower()]["responses"]
            assert str(answer.status_code) in described, (path, answer.status_code)
            media_type = answer.headers["content-type"].partition(";")[0]
            assert media_type in described[str(answer.status_code)]["content"], (path, media_type)
    assert {route for _, route, _, _ in CALLS} == paths.keys()


async def test_the_documentation_page_is_served(served: Served) -> None:
    response = await served.client.get("/docs")

    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")


async def test_requests_are_served_side_by_side() -> None:
    async with serving(Script(reply=reply, seconds_per_call=0.001)) as served:
        answers = await asyncio.gather(
            *(served.post("/v1/refine", {**PROMPT, **SALT, "sampling": {"seed": seed}}) for seed in range(30))
        )
        await served.at_rest()

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 30
    assert len({answer.headers["x-request-id"] for answer in answers}) == 30
