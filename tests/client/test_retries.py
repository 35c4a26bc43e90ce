"""What is tried again, and after how long."""

import pickle
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from redraft import Busy, ConnectionFailed, ProblemError, UnexpectedAnswer
from tests.support.callers import WAYS, Handler, calling
from tests.support.serving import Served

MODELS = httpx.Response(
    200, json={"object": "list", "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "redraft"}]}
)


def refused(status: int, code: str = "overloaded", **headers: str) -> httpx.Response:
    body = {"type": f"/problems#{code}", "title": "No", "status": status, "detail": "not now", "code": code}
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): text for name, text in headers.items()})


def answering(*answers: httpx.Response | Exception, asked: list[httpx.Request]) -> Handler:
    """Give each answer once, the last one again and again."""

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        answer = answers[min(len(asked), len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    return handle


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("status", [429, 503])
async def test_the_service_s_own_wait_is_kept(way: str, status: int) -> None:
    asked: list[httpx.Request] = []
    answers = [refused(status, Retry_After="3"), refused(status, Retry_After="7"), MODELS]
    async with calling(way, handler=answering(*answers, asked=asked)) as caller:
        assert (await caller.ask("models"))[0].id == "m"

    assert caller.waits == [3.0, 7.0]
    assert len(asked) == 3


@pytest.mark.parametrize("way", WAYS)
async def test_retries_are_bounded_and_send_the_same_request(way: str) -> None:
    asked: list[httpx.Request] = []
    handler = answering(refused(503, Retry_After="1", X_Request_ID="r1"), asked=asked)
    async with calling(way, handler=handler, retries=3) as caller:
        with pytest.raises(Busy) as caught:
            await caller.events("stream_refine", prompt="Write.")

    assert (caught.value.retry_after, caught.value.request_id, caught.value.code) == (1, "r1", "overloaded")
    assert caller.waits == [1.0] * 3
    assert {(request.method, request.url.path, request.content) for request in asked} == {
        ("POST", "/v1/refine", b'{"prompt":"Write.","stream":true}')
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "answer",
    [
        refused(503),
        refused(503, Retry_After="61"),
        refused(503, Retry_After="9" * 5_001),
        refused(503, Retry_After="0" * 5_001),
        refused(503, Retry_After="Wed, 21 Oct 2026 07:28:00 GMT"),
        refused(503, "deadline_exceeded", Retry_After="1"),
        refused(500, "internal_error", Retry_After="1"),
        refused(422, "invalid_request", Retry_After="1"),
    ],
)
async def test_other_answers_are_final(way: str, answer: httpx.Response) -> None:
    asked: list[httpx.Request] = []
    async with calling(way, handler=answering(answer, asked=asked)) as caller:
        with pytest.raises(ProblemError) as caught:
            await caller.ask("refine", prompt="Write.")

    assert caught.value.status == answer.status_code
    assert (caller.waits, len(asked)) == ([], 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("failure", [httpx.ConnectError("refused"), httpx.ConnectTimeout("late")])
async def test_what_was_never_sent_is_tried_again(way: str, failure: Exception) -> None:
    asked: list[httpx.Request] = []
    handler = answering(failure, failure, MODELS, asked=asked)
    async with calling(way, handler=handler) as caller:
        assert len(await caller.ask("models")) == 1

    assert caller.waits == [0.5, 1.0]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("failure", [httpx.ReadTimeout("timed out"), httpx.ReadError("cut"), httpx.WriteError("cut")])
async def test_what_may_have_been_sent_is_not_tried_again(way: str, failure: Exception) -> None:
    asked: list[httpx.Request] = []
    async with calling(way, handler=answering(failure, asked=asked)) as caller:
        with pytest.raises(ConnectionFailed, match=str(failure)) as caught:
            await caller.ask("models")

    assert caught.value.sent
    assert (caller.waits, len(asked)) == ([], 1)


@pytest.mark.parametrize("way", WAYS)
async def test_nobody_listens(way: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with calling(way, f"http://user:hush@127.0.0.1:{port}", retries=1) as caller:
        with pytest.raises(ConnectionFailed, match=f"^127.0.0.1:{port}: ") as caught:
            await caller.ask("models")

    assert not caught.value.sent
    assert caller.waits == [0.5]


@pytest.mark.parametrize("way", WAYS)
async def test_a_stream_that_has_begun_is_not_tried_again(way: str) -> None:
    asked: list[httpx.Request] = []
    problem = refused(503, Retry_After="1").json()
    headers = {"Content-Type": "text/event-stream; charset=utf-8"}
    content = f"event: error\ndata: {httpx.Response(200, json=problem).text}\n\n".encode()
    handler = answering(httpx.Response(200, content=content, headers=headers), asked=asked)
    async with calling(way, handler=handler) as caller:
        with pytest.raises(Busy):
            await caller.events("stream_generate", prompt="Write.")

    assert (caller.waits, len(asked)) == ([], 1)


async def test_errors_can_be_pickled() -> None:
    async with calling("sync", handler=answering(refused(503, Retry_After="90"), asked=[])) as caller:
        with pytest.raises(Busy) as busy:
            await caller.ask("models")
    async with calling("sync", handler=answering(httpx.ReadError("cut"), asked=[])) as caller:
        with pytest.raises(ConnectionFailed) as cut:
            await caller.ask("models")

    for error in (busy.value, cut.value):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("way", WAYS)
async def test_a_request_with_a_key_states_it_every_time(way: str) -> None:
    asked: list[httpx.Request] = []
    handler = answering(refused(503, Retry_After="1"), MODELS, asked=asked)
    async with calling(way, handler=handler) as caller:
        with pytest.raises(UnexpectedAnswer):
            await caller.ask("refine", prompt="Write.", idempotency_key="k-1")

    assert [request.headers["idempotency-key"] for request in asked] == ["k-1", "k-1"]
    assert "idempotency_key" not in asked[0].content.decode()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "failure", [httpx.ReadTimeout("late"), httpx.ReadError("cut"), httpx.Response(502), httpx.Response(504)]
)
async def test_with_a_key_what_may_have_been_sent_is_tried_again(way: str, failure: Any) -> None:
    asked: list[httpx.Request] = []
    async with calling(way, handler=answering(failure, asked=asked), retries=3) as caller:
        with pytest.raises((ConnectionFailed, ProblemError)):
            await caller.ask("refine", prompt="Write.", idempotency_key="k-1")

    assert caller.waits == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("way", WAYS)
async def test_an_answer_that_is_still_made_is_awaited_without_counting(way: str) -> None:
    asked: list[httpx.Request] = []
    working = [refused(409, "still_at_work", Retry_After="1")] * 5
    async with calling(way, handler=answering(*working, MODELS, asked=asked), retries=0) as caller:
        with pytest.raises(UnexpectedAnswer):
            await caller.ask("refine", prompt="Write.", idempotency_key="k-1")

    assert caller.waits == [1.0] * 5


async def test_an_answer_that_was_lost_on_its_way_is_fetched_again(served: Served) -> None:
    def cut_body() -> Iterator[bytes]:
        yield b"{"
        raise httpx.ReadError("cut")

    url = f"{served.client.base_url}/v1/refine"
    asked: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        answer = httpx.post(url, content=request.content, headers=request.headers, trust_env=False)
        if len(asked) == 1:
            return httpx.Response(200, content=cut_body())
        return httpx.Response(answer.status_code, content=answer.content)

    async with calling("sync", served.client.base_url, handler=handle) as caller:
        result = await caller.ask("refine", prompt="Write about the sea.", idempotency_key="k-1")
        worked = len(served.engine.calls)
        await caller.ask("refine", prompt="Write about the sea.", idempotency_key="k-1")

    assert result.text == "Waves."
    assert len(asked) == 3
    assert len(served.engine.calls) == worked
