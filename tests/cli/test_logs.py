"""What the service writes into its log while callers, models and servers say what must not be there."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from service.cli.server import configure_logging
from service.engines.scripted import EngineCall, Script
from service.log_format import format_without_messages
from tests.support.chat_server import ChatServer, before
from tests.support.serving import reply, serving

MARK = "s3cret-of-a-caller"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What ``python -m service`` writes to standard error."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    configure_logging("debug")
    [handler] = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    written = io.StringIO()
    handler.setStream(written)
    yield written
    root.handlers[:] = handlers
    root.setLevel(level)


def echoed(status: int) -> Any:
    """A server that crashes on a text, and says on which."""

    def fault(body: dict[str, Any]) -> Response | None:
        said = str(body["messages"][-1]["content"])
        if MARK not in said:
            return None
        error = {"message": f"worker crashed on input: {said}", "type": said, "code": "worker_crashed"}
        return JSONResponse({"error": error}, status)

    return fault


@pytest.mark.parametrize("status", [500, 502, 424, 418, 200])
async def test_what_a_server_says_of_a_prompt_is_not_logged(log: io.StringIO, status: int) -> None:
    async with before(ChatServer(fault=echoed(status))) as front:
        whole = await front.post("/v1/generate", {"prompt": f"Write of {MARK}."})
        streamed = await front.post("/v1/generate", {"prompt": f"Write of {MARK}.", "stream": True})

    told = log.getvalue()
    assert (whole.status_code, streamed.status_code) == (503, 503)
    assert MARK not in told
    if status != 200:
        assert "worker_crashed" in told


async def test_what_a_server_says_within_a_stream_is_not_logged(log: io.StringIO) -> None:
    def fault(body: dict[str, Any]) -> Response | None:
        if not body.get("stream"):
            return None
        told = [{"choices": [{"delta": {"content": "Once"}}]}, {"error": {"message": f"crashed on {MARK}"}}]
        content = "".join(f"data: {json.dumps(event)}\n\n" for event in told)
        return Response(content, media_type="text/event-stream")

    async with before(ChatServer(fault=fault)) as front:
        told = await front.stream("/v1/generate", {"prompt": "Write."})

    name, done = told[-1]
    assert (name, done["choices"][0]["finish_reason"]) == ("done", "engine_failed")
    assert MARK not in log.getvalue()


async def test_what_a_caller_s_tests_are_called_is_not_logged(log: io.StringIO) -> None:
    name = MARK.replace("-", "_")
    body = {
        "prompt": "Write f.",
        "candidate": "def f():\n    return 1",
        "evaluators": [{"type": "code_tests", "tests": f"def test_{name}():\n    assert f() == {name}"}],
        "judge": False,
        "feedback": False,
    }
    async with serving() as front:
        await front.post("/v1/critique", body)

    assert name not in log.getvalue()


async def test_a_bug_is_logged_with_where_it_was_and_not_with_what_it_said(log: io.StringIO) -> None:
    def fault(_: EngineCall) -> None:
        raise KeyError(MARK)

    async with serving(Script(reply=reply, fault=fault)) as front:
        answer = await front.post("/v1/generate", {"prompt": "Write."})

    told = log.getvalue()
    assert answer.status_code == 500
    assert MARK not in told
    [line] = [json.loads(line) for line in told.splitlines() if "exc_info" in line]
    assert "in fault" in line["exc_info"]
    assert "KeyError" in line["exc_info"]


async def test_an_exception_that_nobody_fetches_is_not_shown(log: io.StringIO) -> None:
    async def failing() -> None:
        raise ValueError(MARK)

    task = asyncio.ensure_future(failing())
    await asyncio.wait([task])
    del task

    told = log.getvalue()
    assert "exception was never retrieved" in told
    assert MARK not in told


def test_a_traceback_tells_of_what_led_to_it() -> None:
    def first() -> None:
        raise KeyError(MARK)

    def second() -> None:
        try:
            first()
        except KeyError as error:
            raise ValueError(MARK) from error

    with pytest.raises(ValueError, match=MARK) as raised:
        second()
    told = format_without_messages(raised.value)

    assert MARK not in told
    assert told.index("KeyError") < told.index("direct cause") < told.index("ValueError")
    assert "in first" in told
    assert "in second" in told
