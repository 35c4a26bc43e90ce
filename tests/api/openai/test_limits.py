"""How long a chat's answers may be where the caller does not say."""

import json
from typing import Any

import pytest

from service.engines.base import Sample
from service.engines.scripted import Script
from tests.api.openai.test_tools import ASKED as WITH_TOOLS
from tests.api.openai.test_translate import AS_SCHEMA, ASKED, PATH, REFINED, SALT, streamed
from tests.images.test_fetch import PNG, data_url, part
from tests.support.chat_server import COUNT, ChatServer, before
from tests.support.serving import Served, serving

CONTEXT = 1_000
LONG = Script(reply=lambda call: "word " * 700, context_tokens=CONTEXT)


def limits(served: Served) -> list[int]:
    return [sample.sampling.max_tokens for sample in served.engine.calls_of(Sample)]


@pytest.mark.parametrize("stated", [{}, {"max_tokens": None}, {"n": 2}])
async def test_a_chat_without_a_limit_is_answered_to_its_end(stated: dict[str, Any]) -> None:
    async with serving(LONG) as served:
        body = (await served.post(PATH, {**ASKED, **stated})).json()
        chunks = await streamed(served, {**ASKED, **stated, "stream_options": {"include_usage": True}})

    count = stated.get("n", 1)
    assert [choice["finish_reason"] for choice in body["choices"]] == ["stop"] * count
    assert body["usage"]["completion_tokens"] == chunks[-1]["usage"]["completion_tokens"] == 701 * count
    ends = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    assert ends == ["stop"] * count
    assert limits(served) == [32_768] * 2 * count


async def test_the_context_s_end_cuts_it() -> None:
    async with serving(Script(reply=lambda call: "word " * 700, context_tokens=100)) as served:
        body = (await served.post(PATH, ASKED)).json()

    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["total_tokens"] == 100


async def test_the_operator_s_bound_cuts_it() -> None:
    async with serving(LONG, max_tokens=600) as served:
        body = (await served.post(PATH, ASKED)).json()

    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 600


async def test_a_form_for_the_answer_sets_no_limit() -> None:
    async with serving(Script()) as served:
        assert (await served.post(PATH, {**ASKED, "response_format": AS_SCHEMA})).status_code == 200

    assert limits(served) == [32_768]


async def test_a_line_of_a_batch_has_none_either(served: Served) -> None:
    line = {"custom_id": "a", "method": "POST", "url": PATH, "body": ASKED}
    response = await served.client.post(
        "/v1/batch", content=json.dumps(line), headers={"Content-Type": "application/jsonl"}
    )

    assert response.json()["response"]["status_code"] == 200
    assert limits(served) == [32_768]


async def test_a_task_s_own_limit_holds_wherever_a_task_is_asked_for(served: Served) -> None:
    prompt = {"prompt": "Write about the sea."}
    responses = [
        await served.post("/v1/generate", prompt),
        await served.post("/v1/refine", {**prompt, **SALT, "search": {"rounds": 0}}),
        await served.post(PATH, {**REFINED, "redraft": {**SALT, "search": {"rounds": 0}}}),
        await served.post(PATH, {**ASKED, "redraft": {"task": "summarize"}}),
    ]

    assert [response.status_code for response in responses] == [200] * 4
    assert limits(served) == [512, 512, 512, 256]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("asked", [ASKED, WITH_TOOLS])
async def test_a_server_whose_context_is_not_known_decides(asked: dict[str, Any], stream: bool) -> None:
    server = ChatServer()
    async with before(server) as front:
        assert (await front.post(PATH, {**asked, "stream": stream})).status_code == 200

    [body] = server.asked
    assert not [name for name in body if name.startswith("max_")]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("asked", "limit"), [(ASKED, 500 - COUNT), (WITH_TOOLS, None)])
async def test_a_server_that_counts_is_asked_for_the_rest_of_its_context(
    asked: dict[str, Any], limit: int | None, stream: bool
) -> None:
    server = ChatServer(context_tokens=500)
    async with before(server) as front:
        counts = server.counts
        assert (await front.post(PATH, {**asked, "stream": stream})).status_code == 200

    assert [body.get("max_tokens") for body in server.asked] == [limit]
    assert server.counts == counts + (limit is not None)


@pytest.mark.parametrize("asked", [ASKED, WITH_TOOLS])
async def test_a_bound_that_the_operator_lowers_is_sent(asked: dict[str, Any]) -> None:
    server = ChatServer()
    async with before(server, max_tokens=300) as front:
        assert (await front.post(PATH, asked)).status_code == 200

    assert [body["max_tokens"] for body in server.asked] == [300]


async def test_a_chat_with_an_image_has_no_limit() -> None:
    script = Script(reply=lambda call: "Red.", takes_images=True)
    content = [{"type": "text", "text": "Which colour?"}, part(data_url(PNG))]
    async with serving(script) as served:
        body = {**ASKED, "messages": [{"role": "user", "content": content}]}
        assert (await served.post(PATH, body)).status_code == 200

    assert limits(served) == [32_768]
