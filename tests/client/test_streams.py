"""Answers that no true service gives, byte by byte over real connections."""

import json
from typing import Any

import pytest

from redraft import ConnectionFailed, Delta, GenerateResult, ProblemError, UnexpectedAnswer
from tests.support.callers import WAYS, calling
from tests.support.listener import Answer, answered, listening, raw

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
DONE: dict[str, Any] = {
    "id": "gen-1",
    "model": "m",
    "choices": [{"prompt_index": 0, "index": 0, "finish_reason": "stop", "mood": "new"}],
    "usage": {"calls": 1, "prompt_tokens": 1, "cached_tokens": 0, "completion_tokens": 1, "joules": 3},
    "timing": {"queued_seconds": 0.0, "total_seconds": 0.1},
    "novelty": [],
}


def chunk(name: str, data: dict[str, Any]) -> bytes:
    frame = f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
    return f"{len(frame):x}\r\n".encode() + frame + b"\r\n"


DELTA = chunk("delta", {"prompt_index": 0, "index": 0, "text": "Waves.", "mood": "new"})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rest", [END, b"", b"9\r\n"], ids=["ended", "cut between chunks", "cut within a chunk"])
async def test_a_stream_without_its_last_event_is_an_error(way: str, rest: bytes) -> None:
    async with (
        listening(raw(HEAD + DELTA + rest, then_close=True)) as listener,
        calling(way, f"http://127.0.0.1:{listener.port}") as caller,
    ):
        with pytest.raises(ConnectionFailed) as caught:
            await caller.events("stream_generate", prompt="Write.")

    assert caught.value.sent
    assert (caller.waits, len(listener.requests)) == ([], 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rest", [END, b""], ids=["ended", "cut"])
async def test_what_a_newer_service_adds_is_ignored(way: str, rest: bytes) -> None:
    stream = HEAD + chunk("weather", {"warm": True}) + DELTA + chunk("done", DONE) + rest
    async with (
        listening(raw(stream, then_close=True)) as listener,
        calling(way, f"http://127.0.0.1:{listener.port}") as caller,
    ):
        delta, result = await caller.events("stream_generate", prompt="Write.")

    assert delta == Delta(prompt_index=0, index=0, text="Waves.")
    assert isinstance(result, GenerateResult)
    assert result.choices[0].text == "Waves."


@pytest.mark.parametrize("way", WAYS)
async def test_a_silent_service_is_given_up(way: str) -> None:
    async with (
        listening(raw(HEAD + DELTA)) as listener,
        calling(way, f"http://127.0.0.1:{listener.port}", timeout=0.05) as caller,
    ):
        with pytest.raises(ConnectionFailed, match="timed out"):
            await caller.events("stream_generate", prompt="Write.")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "answer",
    [
        answered(b"<html>Welcome</html>"),
        answered({"id": "ref-1"}),
        raw(HEAD + chunk("done", {"id": "ref-1"}) + END),
        raw(HEAD + chunk("error", {"sorry": True}) + END),
    ],
    ids=["a page", "less", "less in a stream", "no problem in a stream"],
)
async def test_answers_of_another_form(way: str, answer: Answer) -> None:
    async with listening(answer) as listener, calling(way, f"http://127.0.0.1:{listener.port}") as caller:
        with pytest.raises(UnexpectedAnswer):
            await caller.ask("critique", prompt="Write.", candidate="Sand.")
        with pytest.raises(UnexpectedAnswer):
            await caller.events("stream_refine", prompt="Write.")


@pytest.mark.parametrize("way", WAYS)
async def test_a_proxy_s_own_error(way: str) -> None:
    async with (
        listening(answered(b"<html>Bad gateway</html>", 502)) as listener,
        calling(way, f"http://127.0.0.1:{listener.port}") as caller,
    ):
        with pytest.raises(ProblemError) as caught:
            await caller.ask("refine", prompt="Write.")

    assert (caught.value.status, caught.value.code, caught.value.request_id) == (502, "unknown", None)
    assert str(caught.value) == f"HTTP status 502: 127.0.0.1:{listener.port} did not send a problem document with it"
