"""Batches by the clients: over real HTTP, and what no true service answers."""

import json

import httpx
import pytest

from redraft import (
    BatchResult,
    Busy,
    ConnectionFailed,
    CritiqueResult,
    GenerateResult,
    InvalidRequest,
    RefineResult,
    UnexpectedAnswer,
)
from redraft.results import ChatCompletion
from tests.support.callers import WAYS, calling
from tests.support.serving import Served, serving

PROMPT = {"prompt": "Write about the sea."}
LINES = [
    {"custom_id": "g", "url": "/v1/generate", "body": PROMPT},
    {"custom_id": "c", "url": "/v1/critique", "body": {**PROMPT, "candidate": "Sand."}},
    {"custom_id": "r", "url": "/v1/refine", "body": PROMPT},
    {"custom_id": "w", "url": "/v1/refine", "body": {**PROMPT, "task": "none"}},
]
CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "Write about the sea."}]}
CHATS = [
    {"custom_id": "good", "url": "/v1/chat/completions", "body": CHAT},
    {"custom_id": "bad", "url": "/v1/chat/completions", "body": {**CHAT, "model": "none"}},
]
PROBLEM = {"type": "about:blank", "title": "No", "status": 503, "detail": "not now", "code": "draining"}


def answering(text: str) -> httpx.Response:
    return httpx.Response(200, headers={"Content-Type": "application/jsonl"}, content=text)


@pytest.mark.parametrize("way", WAYS)
async def test_each_result_has_its_type_or_its_error(served: Served, way: str) -> None:
    async with calling(way, served.client.base_url) as caller:
        results = {result.custom_id: result for result in await caller.events("batch", lines=LINES)}

    assert {name: type(result.answer) for name, result in results.items() if result.answer} == {
        "g": GenerateResult,
        "c": CritiqueResult,
        "r": RefineResult,
    }
    assert isinstance(results["w"].error, InvalidRequest)
    assert [problem.field for problem in results["w"].error.errors] == ["task"]
    assert (results["w"].status, results["w"].body["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("way", WAYS)
async def test_chat_completions_have_their_results_too(served: Served, way: str) -> None:
    async with calling(way, served.client.base_url) as caller:
        results = {result.custom_id: result for result in await caller.events("batch", lines=CHATS)}

    good, bad = results["good"], results["bad"]
    assert isinstance(good.answer, ChatCompletion)
    assert good.answer.choices[0].message.content == good.body["choices"][0]["message"]["content"] == "Waves."
    assert (bad.status, bad.answer) == (404, None)
    assert bad.error is not None
    assert bad.error.code == "model_not_found"


@pytest.mark.parametrize("way", WAYS)
async def test_leaving_the_block_ends_the_work(way: str) -> None:
    lines = [{**LINES[0], "custom_id": str(number)} for number in range(50)]
    async with serving(max_batch_programs=1) as served, calling(way, served.client.base_url) as caller:
        await caller.events("batch", until=BatchResult, lines=lines)
        await served.at_rest()
        assert len(served.engine.calls) < 50


@pytest.mark.parametrize("way", WAYS)
async def test_a_batch_that_is_refused_is_tried_again(way: str) -> None:
    answers = [
        httpx.Response(503, headers={"Retry-After": "3"}, json={**PROBLEM, "code": "overloaded"}),
        answering("\n" + json.dumps({"custom_id": "g", "status": 503, "body": PROBLEM}) + "\n"),
    ]
    async with calling(way, handler=lambda request: answers.pop(0)) as caller:
        [result] = await caller.events("batch", lines=LINES[:1])
    assert isinstance(result.error, Busy)
    assert caller.waits == [3.0]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", ConnectionFailed),
        ('{"custom_id": "g"', ConnectionFailed),
        ('{"custom_id": "x", "status": 200, "body": {}}\n', UnexpectedAnswer),
        ('{"custom_id": "g", "status": 200, "body": {}}\n', UnexpectedAnswer),
        ('{"custom_id": "g", "status": 500, "body": {}}\n', UnexpectedAnswer),
        ("<html>\n", UnexpectedAnswer),
    ],
)
async def test_what_is_no_answer(way: str, text: str, kind: type[Exception]) -> None:
    async with calling(way, handler=lambda request: answering(text)) as caller:
        with pytest.raises(kind):
            await caller.events("batch", lines=LINES[:1])
