"""Idempotency-Key over real HTTP: one program for each key, however often and however badly a request is sent."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from service.api.idempotency import parse_key
from service.engines.scripted import Script
from service.errors import EngineDead, InvalidRequest
from tests.support.scripts import stall
from tests.support.serving import Served, reply, serving

PROMPT = {"prompt": "Write about the sea."}
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Write about the sea."}]
CHAT = {"model": "scripted", "messages": MESSAGES}
BATCH = {"requests": [{"custom_id": "a", "url": "/v1/generate", "body": PROMPT}]}
REQUESTS: Mapping[str, Mapping[str, Any]] = {
    "/v1/generate": PROMPT,
    "/v1/critique": {**PROMPT, "candidate": "Sand."},
    "/v1/refine": PROMPT,
    "/v1/chat/completions": CHAT,
    "/v1/batch": BATCH,
}
KEY = {"Idempotency-Key": "8e03978e-40d5"}
SLOW = Script(reply=reply, seconds_per_call=0.05)
REPEATED = "idempotency-replayed"


def calls(served: Served) -> int:
    return len(served.engine.calls)


def openai_client(served: Served, **options: Any) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{served.client.base_url}/v1", api_key="none", **options)


@asynccontextmanager
async def left_at_work(served: Served, path: str, body: Mapping[str, Any]) -> AsyncIterator[None]:
    """A request under KEY whose client leaves while the engine works."""
    asking = asyncio.create_task(served.post(path, body, headers=KEY))
    await served.until(lambda: served.engine.in_flight > 0)
    asking.cancel()
    await asyncio.wait([asking])
    yield


@pytest.mark.parametrize("path", REQUESTS)
async def test_a_request_that_is_sent_again_gets_the_same_answer(served: Served, path: str) -> None:
    first = await served.post(path, REQUESTS[path], headers=KEY)
    worked = calls(served)
    again = await served.post(path, REQUESTS[path], headers=KEY)

    assert first.status_code == again.status_code == 200
    assert first.content == again.content
    assert first.headers["content-type"] == again.headers["content-type"]
    assert (first.headers.get(REPEATED), again.headers[REPEATED]) == (None, "true")
    assert first.headers["x-request-id"] != again.headers["x-request-id"]
    assert calls(served) == worked > 0


@pytest.mark.parametrize("path", ["/v1/generate", "/v1/refine", "/v1/chat/completions"])
async def test_a_stream_that_is_asked_for_again_has_the_same_events(served: Served, path: str) -> None:
    body = {**REQUESTS[path], "stream": True}
    first = await served.post(path, body, headers=KEY)
    worked = calls(served)
    again = await served.post(path, body, headers=KEY)

    assert first.content == again.content
    assert again.headers["content-type"].startswith("text/event-stream")
    assert again.headers["cache-control"] == "no-store"
    assert calls(served) == worked


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/refine", "/v1/chat/completions"])
async def test_of_50_at_once_one_works_and_all_get_its_answer(path: str, stream: bool) -> None:
    async with serving(SLOW) as served:
        asked = [served.post(path, {**REQUESTS[path], "stream": stream}, headers=KEY) for _ in range(50)]
        answers = await asyncio.gather(*asked)
        of_50 = calls(served)
        await served.post(path, {**REQUESTS[path], "stream": stream})

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert sum(REPEATED not in answer.headers for answer in answers) == 1
    assert calls(served) == 2 * of_50


async def test_a_request_that_is_still_at_work_is_a_conflict() -> None:
    async with serving(idempotency_wait=0.01) as served:
        stall(served.engine, lambda call: True)
        asking = asyncio.create_task(served.post("/v1/refine", PROMPT, headers=KEY))
        await served.until(lambda: served.engine.in_flight == 1)
        conflict = await served.post("/v1/refine", PROMPT, headers=KEY)
        other = await served.post("/v1/refine", {"prompt": "Write about sand."}, headers=KEY)
        asking.cancel()
        await asyncio.wait([asking])

    assert (conflict.status_code, conflict.json()["code"]) == (409, "still_at_work")
    assert conflict.headers["retry-after"] == "1"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("path", REQUESTS)
async def test_a_key_with_another_body_or_path_is_refused(served: Served, path: str) -> None:
    await served.post("/v1/generate", {**PROMPT, "n": 2}, headers=KEY)
    worked = calls(served)
    refused = await served.post(path, REQUESTS[path], headers=KEY)

    told = refused.json()
    assert refused.status_code == 422
    assert told.get("error", told)["code"] == "idempotency_key_reused"
    assert calls(served) == worked


async def test_a_key_is_its_caller_s_own() -> None:
    keys = ",".join(f"{name}:{hashlib.sha256(name.encode()).hexdigest()}" for name in ("ann", "bob"))
    async with serving(api_keys=keys) as served:
        for name in ("ann", "bob"):
            headers = {**KEY, "Authorization": f"Bearer {name}"}
            response = await served.post("/v1/generate", PROMPT, headers=headers)
            assert REPEATED not in response.headers
        worked = calls(served)
        stranger = await served.post("/v1/generate", PROMPT, headers=KEY)

    assert worked == 2
    assert stranger.status_code == 401


@pytest.mark.parametrize("stream", [False, True])
async def test_the_work_goes_on_without_its_client_and_a_retry_gets_it(stream: bool) -> None:
    body = {**PROMPT, "stream": stream}
    async with serving(SLOW) as served:
        async with left_at_work(served, "/v1/refine", body):
            again = await served.post("/v1/refine", body, headers=KEY)
        page = (await served.client.get("/metrics")).text

    assert again.status_code == 200
    assert "Salt waves." in again.text or "Waves." in again.text
    assert again.headers[REPEATED] == "true"
    assert 'redraft_refine_rounds_count{task="general"} 1.0' in page


async def test_work_that_nobody_waits_for_ends_after_its_grace() -> None:
    async with serving(idempotency_grace=0.01) as served:
        stall(served.engine, lambda call: True)
        async with left_at_work(served, "/v1/refine", PROMPT):
            await served.at_rest()
        served.engine.script = Script(reply=reply)
        again = await served.post("/v1/refine", PROMPT, headers=KEY)

    assert again.status_code == 200
    assert REPEATED not in again.headers


async def test_work_without_a_key_ends_with_its_client() -> None:
    async with serving(idempotency_grace=3600.0) as served:
        stall(served.engine, lambda call: True)
        asking = asyncio.create_task(served.post("/v1/refine", PROMPT))
        await served.until(lambda: served.engine.in_flight == 1)
        asking.cancel()
        await asyncio.wait([asking])
        await served.at_rest()


async def test_a_second_client_keeps_the_work_alive() -> None:
    async with serving(idempotency_grace=0.0, idempotency_wait=60.0) as served:
        stall(served.engine, lambda call: True)
        first, second = (asyncio.create_task(served.post("/v1/refine", PROMPT, headers=KEY)) for _ in range(2))
        await served.until(lambda: served.engine.in_flight == 1)
        first.cancel()
        await asyncio.wait([first])
        for _ in range(20):
            await served.client.get("/health/live")
        assert served.engine.in_flight == 1
        second.cancel()
        await asyncio.wait([second])
        await served.at_rest()


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/generate", PROMPT), ("/v1/generate", {**PROMPT, "stream": True}), ("/v1/chat/completions", CHAT)],
)
async def test_a_failure_is_forgotten_so_that_a_retry_works(path: str, body: Mapping[str, Any]) -> None:
    def broken(call: object) -> None:
        raise KeyError("a bug")

    async with serving(Script(reply=reply, fault=broken)) as served:
        failed = await served.post(path, body, headers=KEY)
        served.engine.script = Script(reply=reply)
        again = await served.post(path, body, headers=KEY)

    assert failed.status_code == 500
    assert again.status_code == 200
    assert REPEATED not in again.headers


async def test_a_stream_that_ended_with_an_error_is_forgotten() -> None:
    def dying(call: object) -> None:
        raise EngineDead("it was killed")

    body = {**PROMPT, "stream": True}
    async with serving(Script(reply=reply, fault=dying)) as served:
        failed = await served.post("/v1/refine", body, headers=KEY)
        served.engine.script = Script(reply=reply)
        again = await served.post("/v1/refine", body, headers=KEY)

    assert (failed.status_code, failed.text.count("event: error")) == (200, 1)
    assert REPEATED not in again.headers
    assert "event: done" in again.text


async def test_a_refusal_is_forgotten(served: Served) -> None:
    refused = await served.post("/v1/refine", {**PROMPT, "task": "none"}, headers=KEY)
    other = await served.post("/v1/refine", PROMPT, headers=KEY)

    assert (refused.status_code, other.status_code) == (422, 200)


@pytest.mark.parametrize("path", ["/v1/refine", "/v1/batch"])
async def test_an_answer_is_repeated_when_the_service_is_full_or_ends(path: str) -> None:
    async with serving(max_programs=1, max_queued=0, max_batches=1) as served:
        first = await served.post(path, REQUESTS[path], headers=KEY)
        stall(served.engine, lambda call: True)
        busy = asyncio.create_task(served.post(path, REQUESTS[path]))
        await served.until(lambda: served.engine.in_flight == 1)
        again = await served.post(path, REQUESTS[path], headers=KEY)
        other = await served.post(path, REQUESTS[path], headers={"Idempotency-Key": "other"})
        busy.cancel()
        await asyncio.wait([busy])
        served.app.state.admission.drain()
        last = await served.post(path, REQUESTS[path], headers=KEY)

    assert again.content == last.content == first.content
    assert (other.status_code, other.json()["code"]) == (503, "overloaded")


async def test_an_answer_that_is_too_long_to_keep_is_still_answered() -> None:
    body = {**PROMPT, "stream": True, "sampling": {"max_tokens": 400}}
    async with serving(Script(reply=lambda call: "word " * 400), idempotency_bytes=8 * 2_000) as served:
        first = await served.post("/v1/generate", body, headers=KEY)
        again = await served.post("/v1/generate", body, headers=KEY)

    for answer in (first, again):
        assert answer.text.count("event: delta") == 400
        assert "event: done" in answer.text
        assert REPEATED not in answer.headers


async def test_the_end_of_the_service_ends_a_stream_with_a_word() -> None:
    async with serving(Script(reply=lambda call: "word " * 100, seconds_per_token=0.01)) as served:
        body = {**PROMPT, "stream": True}
        async with served.client.stream("POST", "/v1/generate", json=body, headers=KEY) as response:
            text = ""
            async for piece in response.aiter_text():
                if not text:
                    for task in asyncio.all_tasks():
                        if "RequestResponseCycle" in repr(task.get_coro()):
                            task.cancel()
                text += piece

    assert json.loads(text.split("event: error\ndata: ")[1])["code"] == "draining"


@pytest.mark.parametrize("text", ['"a b"', r'"a\"b"', "a,b", "ü".encode().decode("latin-1"), '""', "", '"a', "x" * 256])
async def test_keys_that_are_malformed_and_some_that_are_not(served: Served, text: str) -> None:
    response = await served.post("/v1/generate", PROMPT, headers={"Idempotency-Key": text.encode("latin-1")})

    good = text in ('"a b"', r'"a\"b"', "a,b")
    assert response.status_code == (200 if good else 422)
    if not good:
        assert response.json()["errors"][0]["field"] == "idempotency-key"


async def test_a_key_that_is_stated_twice_is_refused(served: Served) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    response = await served.client.post("/v1/generate", json=PROMPT, headers=headers)

    assert response.json()["errors"][0]["field"] == "idempotency-key"


def test_a_key_means_the_same_with_and_without_quotes() -> None:
    assert parse_key('"a-1"') == parse_key("a-1") == "a-1"
    assert parse_key(r'"a\\b\"c"') == r"a\b" + '"c'
    with pytest.raises(InvalidRequest):
        parse_key(r'"a\b"')


class LosesAnswers(httpx2.AsyncBaseTransport):
    """A way to the service on which the first answer is lost."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self._inner = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.keys.append(request.headers["idempotency-key"])
        response = await self._inner.handle_async_request(request)
        if len(self.keys) == 1:
            await response.aread()
            raise httpx2.ReadError("cut")
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


@pytest.mark.parametrize("has_own_header", [False, True])
async def test_a_retry_of_openai_s_client_gets_the_answer_that_was_lost(served: Served, has_own_header: bool) -> None:
    way = LosesAnswers()
    async with openai_client(served, max_retries=1, http_client=httpx2.AsyncClient(transport=way)) as client:
        if has_own_header:
            client._idempotency_header = "Idempotency-Key"  # then it states a key of its own
        headers = {} if has_own_header else KEY
        answer = await client.chat.completions.create(model="scripted", messages=MESSAGES, extra_headers=headers)

    assert answer.choices[0].message.content == "Waves."
    assert len(way.keys) == 2
    assert len(set(way.keys)) == calls(served) == 1


async def test_openai_s_client_has_its_own_exceptions_for_keys() -> None:
    async with serving(idempotency_wait=0.0) as served, openai_client(served, max_retries=0) as client:
        create = client.chat.completions.create
        stall(served.engine, lambda call: True)
        asking = asyncio.create_task(create(model="scripted", messages=MESSAGES, extra_headers=KEY))
        await served.until(lambda: served.engine.in_flight == 1)
        with pytest.raises(openai.ConflictError) as conflict:
            await create(model="scripted", messages=MESSAGES, extra_headers=KEY)
        with pytest.raises(openai.UnprocessableEntityError) as reused:
            await create(model="scripted", messages=MESSAGES, seed=1, extra_headers=KEY)
        asking.cancel()
        await asyncio.wait([asking])

    assert (conflict.value.code, reused.value.code) == ("still_at_work", "idempotency_key_reused")
