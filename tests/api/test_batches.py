"""Batches over real HTTP: every line is told once, none harms another, and all give way to who waits."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest

from service.engines.base import Sample
from service.engines.scripted import Script
from tests.support.scripts import stall
from tests.support.serving import Served, reply, serving

PROMPT = {"prompt": "Write about the sea."}
REFUSED = {"prompt": "Write.", "sampling": {"max_tokens": 0}}


def line(custom_id: str, url: str = "/v1/generate", body: Mapping[str, Any] = PROMPT, **others: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "url": url, "body": body, **others}


def told(response: httpx.Response) -> dict[str, dict[str, Any]]:
    """The results by their ids, of which none may stand there twice."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/jsonl"
    results = [json.loads(text) for text in response.text.split("\n") if text]
    assert len({result["custom_id"] for result in results}) == len(results)
    return {result["custom_id"]: result for result in results}


def without_chance(body: Any) -> Any:
    """What is the same whenever the same is asked."""
    return {name: value for name, value in body.items() if name not in ("id", "timing", "usage")}


async def test_each_line_is_answered_as_if_it_were_sent_alone(served: Served) -> None:
    asked = {
        "g": ("/v1/generate", {**PROMPT, "n": 2}),
        "c": ("/v1/critique", {**PROMPT, "candidate": "Sand.", "judge": False}),
        "r": ("/v1/refine", {**PROMPT, "search": {"rounds": 0}, "trace": False}),
    }
    response = await served.post("/v1/batch", {"requests": [line(name, *request) for name, request in asked.items()]})

    results = told(response)
    assert results.keys() == asked.keys()
    for name, (path, body) in asked.items():
        alone = await served.post(path, body)
        assert results[name]["status"] == alone.status_code == 200
        assert without_chance(results[name]["body"]) == without_chance(alone.json())
        assert results[name]["body"].keys() == alone.json().keys()


async def test_what_is_wrong_with_one_line_is_its_own(caplog: pytest.LogCaptureFixture) -> None:
    def broken(call: Sample) -> str:
        if "break" in call.prompt:
            raise KeyError("a bug")
        return reply(call)

    lines = [
        line("field", body=REFUSED),
        line("task", "/v1/refine", {**PROMPT, "task": "none"}),
        line("stream", "/v1/refine", {**PROMPT, "stream": True}),
        line("bug", body={"prompt": "Please break."}),
        line("good"),
    ]
    async with serving(Script(reply=broken)) as served:
        results = told(await served.post("/v1/batch", {"requests": lines}))
        page = (await served.client.get("/metrics")).text

    problems = {
        name: (result["status"], result["body"].get("code"), result["body"].get("errors"))
        for name, result in results.items()
    }
    assert problems["field"][:2] == problems["task"][:2] == problems["stream"][:2] == (422, "invalid_request")
    assert [problems[name][2][0]["field"] for name in ("field", "task", "stream")] == [
        "sampling.max_tokens",
        "task",
        "stream",
    ]
    assert problems["bug"] == (500, "internal_error", None)
    assert problems["good"] == (200, None, None)
    assert "a bug" in caplog.text
    for status, count in (("200", 1), ("422", 3), ("500", 1)):
        assert f'redraft_batch_lines_total{{status="{status}"}} {count}.0' in page
    assert "redraft_batch_lines_waiting 0.0" in page


async def test_an_answer_that_cannot_be_sent_is_its_line_s_failure() -> None:
    """Half of a surrogate pair has no bytes in UTF-8."""

    def unsendable(call: Sample) -> str:
        return "\ud800" if "break" in call.prompt else reply(call)

    lines = [line("bad", body={"prompt": "Please break."}), line("good")]
    async with serving(Script(reply=unsendable), max_batch_programs=1) as served:
        results = told(await served.post("/v1/batch", {"requests": lines}))
    assert {name: result["status"] for name, result in results.items()} == {"bad": 500, "good": 200}


async def test_a_cancellation_inside_a_line_ends_no_other() -> None:
    def cancelled(call: Sample) -> str:
        if "break" in call.prompt:
            raise asyncio.CancelledError
        return reply(call)

    lines = [line("bad", body={"prompt": "Please break."}), line("good")]
    async with serving(Script(reply=cancelled), max_batch_programs=1) as served:
        results = told(await served.post("/v1/batch", {"requests": lines}))
        await served.at_rest()
    assert {name: result["status"] for name, result in results.items()} == {"bad": 500, "good": 200}


async def test_a_line_without_a_place_is_waiting() -> None:
    batch = {"requests": [line(str(number)) for number in range(10)]}
    async with serving(Script(seconds_per_call=3600.0), max_batch_programs=3) as served:
        clients = [asyncio.create_task(served.post("/v1/batch", batch)) for _ in range(2)]
        await served.until(lambda: served.engine.in_flight == 3)
        metrics = ""
        async with asyncio.timeout(5):
            while "redraft_batch_lines_waiting 17.0" not in metrics:
                metrics = (await served.client.get("/metrics")).text
        for client in clients:
            client.cancel()
        await asyncio.wait(clients)
        await served.at_rest()


async def test_json_lines(served: Served) -> None:
    text = "\n\n".join(json.dumps(line(name, method="POST")) for name in "ab") + "\r\n"
    for media_type in (
        "application/jsonl",
        "application/x-ndjson; charset=utf-8",
        "application/x-jsonlines",
        "application/json-lines",
    ):
        headers = {"content-type": media_type}
        assert told(await served.client.post("/v1/batch", content=text, headers=headers)).keys() == {"a", "b"}


@pytest.mark.parametrize(
    ("lines", "field"),
    [
        ([], "requests"),
        ([line(str(number)) for number in range(1001)], "requests"),
        ([line("a"), line("b"), line("a")], "requests.2.custom_id"),
        ([line("")], "requests.0.custom_id"),
        ([line("a"), line("b", "/v1/batch")], "requests.1.url"),
        ([line("a"), line("b", "/v1/batches")], "requests.1.url"),
        ([line("a", method="GET")], "requests.0.method"),
        ([line("a", priority=1)], "requests.0.priority"),
        ([{"custom_id": "a", "url": "/v1/generate"}], "requests.0.body"),
    ],
)
async def test_a_wrong_envelope_is_refused_before_any_work(
    served: Served, lines: list[dict[str, Any]], field: str
) -> None:
    response = await served.post("/v1/batch", {"requests": lines})
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert served.engine.calls == []


async def test_a_line_that_is_no_json_is_named(served: Served) -> None:
    content = f'{json.dumps(line("a"))}\n{{"custom_id": "b"'
    response = await served.client.post("/v1/batch", content=content, headers={"content-type": "application/jsonl"})
    assert (response.status_code, response.json()["code"]) == (400, "malformed_body")
    assert "line 2" in response.json()["detail"], "lines are counted from 1"


async def test_a_line_of_a_list_that_is_no_json_is_named(served: Served) -> None:
    content = f'{{"requests": [{json.dumps(line("a"))}, {{"custom_id" "b"}}]}}'
    response = await served.client.post("/v1/batch", content=content, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (400, "malformed_body")
    assert "line 2" in response.json()["detail"]


@pytest.mark.parametrize(
    ("lines", "errors"),
    [
        ([line("a"), 5], [("lines.2", "Input should be an object")]),
        ([line("a"), line("a")], [("lines.2.custom_id", "line 1 has the same")]),
        ([{"custom_id": "a"}, line("b")], [("lines.1.url", "Field required"), ("lines.1.body", "Field required")]),
    ],
)
async def test_wrong_json_lines_are_named_by_their_numbers(
    served: Served, lines: list[Any], errors: list[tuple[str, str]]
) -> None:
    content = "\n".join(map(json.dumps, lines))
    response = await served.client.post("/v1/batch", content=content, headers={"content-type": "application/jsonl"})
    assert response.status_code == 422
    assert [(error["field"], error["message"]) for error in response.json()["errors"]] == errors
    assert served.engine.calls == []


async def test_a_line_has_a_bound_of_bytes(served: Served) -> None:
    lines = [line("a"), line("b", body={"prompt": "x" * (1 << 20)})]
    response = await served.post("/v1/batch", {"requests": lines})
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert "line 2" in response.json()["detail"]


async def test_of_many_wrong_lines_the_first_errors_are_told(served: Served) -> None:
    response = await served.post("/v1/batch", {"requests": [{}] * 1_000})
    fields = [error["field"] for error in response.json()["errors"]]
    assert (len(fields), fields[0], fields[-1]) == (20, "requests.0.custom_id", "requests.6.url")


CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "Write about the sea."}]}


async def test_a_chat_completion_s_line_is_answered_as_openai_s_batches_are(served: Served) -> None:
    lines = [
        line("chat", "/v1/chat/completions", CHAT),
        line("refined", "/v1/chat/completions", {**CHAT, "model": "scripted:refine"}),
        line("native"),
    ]
    response = await served.post("/v1/batch", {"requests": lines})
    results = told(response)

    assert results["native"].keys() == {"custom_id", "status", "body"}
    for name in ("chat", "refined"):
        result = results[name]
        assert result.keys() == {"id", "custom_id", "response", "error"}
        assert result["id"].startswith("batch_req_")
        assert result["error"] is None
        assert result["response"]["status_code"] == 200
        assert result["response"]["request_id"] == response.headers["x-request-id"]
        assert result["response"]["body"]["object"] == "chat.completion"
    assert results["chat"]["response"]["body"]["choices"][0]["message"]["content"] == "Waves."


@pytest.mark.parametrize(
    ("wrong", "status", "param"),
    [
        ({"model": "none"}, 404, "model"),
        ({"stream": True}, 400, "stream"),
        ({"logprobs": True}, 400, "logprobs"),
        ({"messages": [{"role": "user", "content": 5}]}, 400, "messages.0.content"),
    ],
)
async def test_what_is_wrong_with_a_chat_completion_s_line_is_told_as_openai_does(
    served: Served, wrong: dict[str, Any], status: int, param: str | None
) -> None:
    lines = [line("bad", "/v1/chat/completions", {**CHAT, **wrong}), line("good")]
    results = told(await served.post("/v1/batch", {"requests": lines}))

    said = results["bad"]["response"]
    assert (said["status_code"], said["body"]["error"]["param"]) == (status, param)
    assert results["good"]["status"] == 200


async def test_two_equal_batches_do_not_harm_each_other() -> None:
    """A client that tries again leaves the first one, and the second has the same lines."""
    batch = {"requests": [line(str(number)) for number in range(4)]}
    async with serving(max_batch_programs=1) as served:
        reached, go_on = asyncio.Event(), asyncio.Event()
        stream = served.engine.stream

        async def held(*arguments: Any, **others: Any) -> Any:
            reached.set()
            await go_on.wait()
            async for item in stream(*arguments, **others):
                yield item

        served.engine.stream = held  # type: ignore[method-assign]
        first = asyncio.create_task(served.post("/v1/batch", batch))
        async with asyncio.timeout(5):
            await reached.wait()
        second = asyncio.create_task(served.post("/v1/batch", batch))
        page = ""
        async with asyncio.timeout(5):
            while "redraft_batch_lines_waiting 7.0" not in page:
                page = (await served.client.get("/metrics")).text
        second.cancel()
        await asyncio.wait([second])
        async with asyncio.timeout(5):
            while "redraft_batch_lines_waiting 3.0" not in page:
                page = (await served.client.get("/metrics")).text
        go_on.set()
        results = told(await first)
        page = (await served.client.get("/metrics")).text
    assert {result["status"] for result in results.values()} == {200}
    assert len(results) == 4
    assert "redraft_batch_lines_waiting 0.0" in page


async def test_a_batch_s_time_ends_with_the_lines_that_are_begun() -> None:
    script = Script(reply=reply, seconds_per_call=1.2)
    async with serving(script, max_batch_programs=1, max_batch_seconds=1.0) as served:
        results = told(await served.post("/v1/batch", {"requests": [line("a"), line("b"), line("c")]}))
    assert results["a"]["status"] == 200
    assert {results[name]["body"]["code"] for name in "bc"} == {"deadline_exceeded"}


async def test_batches_have_a_bound_of_bytes_of_their_own() -> None:
    batch = {"requests": [line("a", body={"prompt": "sea " * 200})]}
    async with serving(max_body_bytes=100, max_batch_bytes=2_000) as served:
        assert told(await served.post("/v1/batch", batch)).keys() == {"a"}
        assert (await served.post("/v1/generate", batch)).status_code == 413
        batch["requests"] *= 3
        assert (await served.post("/v1/batch", batch)).status_code == 413


async def test_as_many_batches_as_are_allowed_and_each_is_one_request_of_its_key() -> None:
    batch = {"requests": [line(str(number)) for number in range(5)]}
    async with serving(Script(seconds_per_call=3600.0), max_batches=1, max_programs_per_key=2) as served:
        first = asyncio.create_task(served.post("/v1/batch", batch))
        await served.until(lambda: served.engine.in_flight == 5)

        full = await served.post("/v1/batch", batch)
        assert (full.status_code, full.json()["code"]) == (503, "overloaded")
        assert int(full.headers["retry-after"]) > 0

        second = asyncio.create_task(served.post("/v1/generate", PROMPT))
        await served.until(lambda: served.app.state.admission.in_progress == 1)
        limited = await served.post("/v1/batch", batch)
        assert (limited.status_code, limited.json()["code"]) == (429, "caller_limit")
        for task in (first, second):
            task.cancel()
        await asyncio.wait([first, second])


async def test_a_client_that_leaves_ends_all_work() -> None:
    async with serving(max_batch_programs=3) as served:
        reached = asyncio.Event()
        stall(served.engine, lambda call: True, reached.set)
        batch = {"requests": [line(str(number), "/v1/refine") for number in range(20)]}
        client = asyncio.create_task(served.post("/v1/batch", batch))
        async with asyncio.timeout(5):
            await reached.wait()
        client.cancel()
        await asyncio.wait([client])
        await served.at_rest()
        async with asyncio.timeout(20):
            await served.app.state.admission.idle()
        assert "redraft_batch_lines_waiting 0.0" in (await served.client.get("/metrics")).text


async def test_draining_finishes_what_is_begun_and_tells_of_the_rest() -> None:
    async with serving(Script(reply=reply, seconds_per_call=0.05), max_batch_programs=3) as served:
        batch = {"requests": [line(str(number)) for number in range(20)]}
        client = asyncio.create_task(served.post("/v1/batch", batch))
        await served.until(lambda: served.engine.in_flight == 3)
        served.app.state.admission.drain()
        results = told(await client)
        async with asyncio.timeout(20):
            await served.app.state.admission.idle()
        refused = await served.post("/v1/batch", batch)

    assert results.keys() == {str(number) for number in range(20)}
    assert [results[str(number)]["status"] for number in range(3)] == [200, 200, 200]
    rest = [results[str(number)]["body"] for number in range(3, 20)]
    assert {(body["status"], body["code"]) for body in rest} == {(503, "draining")}
    assert (refused.status_code, refused.json()["code"]) == (503, "draining")


async def test_one_background_call_beside_an_interactive_request_and_more_once_it_is_over() -> None:
    async with serving(Script(seconds_per_call=3600.0), max_batch_programs=4) as served:
        interactive = asyncio.create_task(served.post("/v1/generate", PROMPT))
        await served.until(lambda: served.engine.in_flight == 1)
        batch = asyncio.create_task(
            served.post("/v1/batch", {"requests": [line(str(number), body={**PROMPT, "n": 3}) for number in range(9)]})
        )
        await served.until(lambda: served.engine.in_flight == 2)
        await asyncio.sleep(0.05)
        assert served.engine.in_flight == 2, "one call of the batch beside the request"

        interactive.cancel()
        await asyncio.wait([interactive])
        await served.until(lambda: served.engine.in_flight == 4)
        await asyncio.sleep(0.05)
        assert served.engine.in_flight == 4, "as many as are allowed, with nobody else there"
        batch.cancel()
        await asyncio.wait([batch])
        await served.at_rest()


async def test_lines_take_no_place_of_interactive_requests_and_rank_behind_them() -> None:
    ranks: dict[str, int] = {}
    async with serving(max_programs=1, max_queued=0) as served:
        engine = served.engine
        stream = engine.stream

        def noted(sample: Sample, **options: Any) -> Any:
            ranks[sample.conversation.turn.text.split()[0]] = options["priority"]
            return stream(sample, **options)

        engine.stream = noted  # type: ignore[method-assign]
        engine.script = replace(engine.script, seconds_per_call=0.05)
        batch = asyncio.create_task(served.post("/v1/batch", {"requests": [line("b", body={"prompt": "Batch."})]}))
        await served.until(lambda: engine.in_flight == 1)
        assert (await served.post("/v1/generate", {"prompt": "Person."})).status_code == 200
        assert told(await batch)["b"]["status"] == 200
    assert ranks["Batch."] > ranks["Person."]


async def test_batches_take_turns() -> None:
    """A batch that comes later doesn't wait for the end of an earlier one."""
    async with serving(Script(reply=reply, seconds_per_call=0.01), max_batch_programs=2) as served:
        finished: list[str] = []

        async def send(name: str, count: int) -> None:
            batch = {"requests": [line(f"{name}{number}") for number in range(count)]}
            async with served.client.stream("POST", "/v1/batch", json=batch, timeout=30) as response:
                async for text in response.aiter_lines():
                    finished.append(json.loads(text)["custom_id"])  # noqa: PERF401 - the other one's come in between

        early = asyncio.create_task(send("early", 40))
        await served.until(lambda: len(finished) > 1)
        await asyncio.gather(early, send("late", 4))
    assert finished.index("late3") < finished.index("early39")


async def test_the_evaluators_of_all_lines_are_bounded(served: Served) -> None:
    rule = {"type": "length", "unit": "words", "max": 5}
    body = {**PROMPT, "candidate": "Sand.", "judge": False, "feedback": False, "evaluators": [rule] * 32}
    chat = {"model": "scripted:refine", "messages": [], "redraft": {"evaluators": [rule] * 32}}
    lines = [line(str(number), "/v1/critique", body) for number in range(64)]
    lines += [line(str(number), "/v1/chat/completions", chat) for number in range(64, 129)]

    response = await served.post("/v1/batch", {"requests": lines})

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == ["requests.128"]
