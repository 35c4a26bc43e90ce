"""The service before servers that refuse: what does not fit where they count no tokens, and anything, for now."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from starlette.responses import Response

from tests.support.chat_server import ChatServer, before, refusal

CONTEXT = 100
OPENAI = "This model's maximum context length is {} tokens. However, your messages resulted in {} tokens."
BOTH = (
    "This model's maximum context length is {} tokens. However, you requested {} tokens ({} in the messages, {} in the "
    "completion). Please reduce the length of the messages or completion."
)
WITHOUT_LENGTHS = "Your input exceeds the context window of this model."


def words(body: dict[str, Any]) -> int:
    return sum(len(str(message["content"]).split()) for message in body["messages"])


def too_long(body: dict[str, Any]) -> Response | None:
    """A token is a word."""
    count, most = words(body), body.get("max_tokens", 512)
    if count > CONTEXT:
        return refusal(OPENAI.format(CONTEXT, count), "context_length_exceeded")
    if count + most > CONTEXT:
        return refusal(BOTH.format(CONTEXT, count + most, count, most), "context_length_exceeded")
    return None


def too_long_without_lengths(body: dict[str, Any]) -> Response | None:
    return refusal(WITHOUT_LENGTHS, "context_length_exceeded") if words(body) > CONTEXT else None


Fault = Callable[[dict[str, Any]], Response | None]
LONG = "word " * 150
ASKED = {"prompt": "Write.", "evaluators": [{"type": "keywords", "include": ["pepper"]}], "judge": False}


@pytest.mark.parametrize("fault", [too_long, too_long_without_lengths])
async def test_a_program_that_outgrows_the_context_ends_with_its_best_text(fault: Fault) -> None:
    async with before(ChatServer(fault=fault)) as front:
        answer = await front.post("/v1/refine", {**ASKED, "prompt": "word " * 95})

    assert answer.status_code == 200, answer.text
    assert (answer.json()["stop_reason"], answer.json()["text"]) == ("budget", "Hello.")


@pytest.mark.parametrize(
    ("fault", "said"),
    [(too_long, "has 150 tokens; the model's context holds 100"), (too_long_without_lengths, "leaves no room")],
)
async def test_a_prompt_that_is_too_long_is_refused(fault: Fault, said: str) -> None:
    async with before(ChatServer(fault=fault)) as front:
        refined = await front.post("/v1/refine", {**ASKED, "prompt": LONG})
        generated = await front.post("/v1/generate", {"prompt": ["Write.", LONG]})
        streamed = await front.post("/v1/generate", {"prompt": LONG, "stream": True})
        chat = await front.post(
            "/v1/chat/completions", {"model": "scripted", "messages": [{"role": "user", "content": LONG}]}
        )

    assert refined.status_code == generated.status_code == streamed.status_code == 422
    assert chat.json()["error"]["code"] == "context_length_exceeded"
    for response, field in ((refined, "prompt"), (generated, "prompt.1"), (streamed, "prompt")):
        problem = response.json()
        assert problem["code"] == "prompt_too_long"
        assert said in problem["detail"]
        assert [error["field"] for error in problem["errors"]] == [field]


async def test_a_reply_may_be_as_long_as_the_context_leaves_room_for() -> None:
    server = ChatServer(fault=too_long)
    async with before(server) as front:
        whole = await front.post("/v1/generate", {"prompt": "Write.", "sampling": {"max_tokens": 512}})
        streamed = await front.stream("/v1/generate", {"prompt": "Write.", "sampling": {"max_tokens": 512}})

    assert whole.json()["choices"][0]["text"] == "Hello."
    assert [data["text"] for name, data in streamed if name == "delta"] == ["Hello."]
    assert [body.get("max_tokens", 512) for body in server.asked] == [512, CONTEXT - 1] * 2


def busy(requests: Callable[[int], bool], seconds: int = 1) -> Fault:
    """Refuses for now those of the requests, counted from 0, that the function names."""
    counted = itertools.count()

    def fault(_: dict[str, Any]) -> Response | None:
        if requests(next(counted)):
            return Response(status_code=429, headers={"Retry-After": str(seconds)})
        return None

    return fault


async def test_a_program_waits_for_a_server_that_is_busy() -> None:
    server = ChatServer()
    async with before(server) as front:
        server.fault = busy(lambda number: number % 2 == 0)
        answer = await front.post("/v1/refine", {**ASKED, "search": {"rounds": 0, "drafts": 1}}, timeout=30)

    assert (answer.status_code, answer.json()["text"]) == (200, "Hello.")
    assert len(server.asked) == 2


@pytest.mark.parametrize(("served", "ends"), [(0, (503, "deadline_exceeded")), (1, (200, "deadline"))])
async def test_no_program_waits_for_longer_than_it_has(served: int, ends: tuple[int, str]) -> None:
    server = ChatServer()
    async with before(server) as front, asyncio.timeout(10):
        server.fault = busy(lambda number: number >= served, seconds=25)
        answer = await front.post("/v1/refine", {**ASKED, "budget": {"seconds": 1}}, timeout=30)

    told = answer.json()
    assert (answer.status_code, told["stop_reason"] if served else told["code"]) == ends


async def test_a_server_that_is_busy_for_too_long_is_not_waited_for() -> None:
    server = ChatServer()
    async with before(server) as front, asyncio.timeout(10):
        server.fault = busy(lambda number: True, seconds=50)
        answer = await front.post("/v1/generate", {"prompt": "Write."}, timeout=30)
        ready = await front.client.get("/health/ready")

    assert (answer.status_code, answer.json()["code"]) == (503, "engine_busy")
    assert 40 <= int(answer.headers["Retry-After"]) <= 50
    assert ready.status_code == 200
