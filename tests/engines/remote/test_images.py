"""What a remote server is sent of images, and how it is found out whether it takes any, over real connections."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service.engines.base import Sample, Sampling
from service.engines.conversation import Conversation, Image, Turn
from service.engines.remote.chat import ChatCapabilities, ChatEngine, messages
from service.engines.remote.probes import GREY_PNG, takes_images
from service.engines.remote.server import OpenAIServer
from tests.support.listener import Answer, Listener, answered, listening

IMAGE = Image("image/gif", b"GIF89a\0\1")
PART = {"type": "image_url", "image_url": {"url": "data:image/gif;base64," + base64.b64encode(IMAGE.data).decode()}}
SHOWN = Conversation(Turn("user", "What is it?", images=(IMAGE,)))


def said(prompt_tokens: int | None) -> Answer:
    usage = None if prompt_tokens is None else {"prompt_tokens": prompt_tokens, "completion_tokens": 1}
    return answered({"choices": [{"message": {"content": "Yes."}, "finish_reason": "stop"}], "usage": usage})


@asynccontextmanager
async def server(*answers: Answer) -> AsyncIterator[tuple[OpenAIServer, Listener]]:
    async with listening(*answers) as listener:
        remote = OpenAIServer(f"http://127.0.0.1:{listener.port}")
        yield remote, listener
        await remote.close()


def test_a_text_alone_is_sent_as_such() -> None:
    assert messages(Conversation(Turn("user", "A")).with_user("B")) == [{"role": "user", "content": "A\n\nB"}]


async def test_the_images_of_a_message_come_before_its_text_as_data() -> None:
    conversation = SHOWN.with_user("Look twice.").with_reply("A square.").with_user("Sure?")
    async with server(said(9)) as (remote, listener):
        engine = ChatEngine(remote, "model", ChatCapabilities(schemas=True, logprobs=True, images=True))
        await engine.call(Sample(conversation, Sampling()))

    [received] = listener.requests
    assert received.json["messages"] == [
        {"role": "user", "content": [PART, {"type": "text", "text": "What is it?\n\nLook twice."}]},
        {"role": "assistant", "content": "A square."},
        {"role": "user", "content": "Sure?"},
    ]


@pytest.mark.parametrize(
    ("answers", "taken"),
    [
        ([said(80), said(10)], True),
        ([said(None)], True),  # it answers, and counts nothing
        ([said(10), said(10)], False),  # the image was dropped
        ([answered({"error": {"message": "not a multimodal model"}}, 400)], False),
        ([answered({"error": {"message": "image input is not supported"}}, 500)], False),
    ],
)
async def test_that_a_server_sees_is_found_out(answers: list[Answer], taken: bool) -> None:
    async with server(*answers) as (remote, listener):
        assert await takes_images(remote, "model") is taken

    shown: Any = json.loads(listener.requests[0].body)["messages"][0]["content"]
    url = shown[0]["image_url"]["url"]
    assert base64.b64decode(url.removeprefix("data:image/png;base64,")) == GREY_PNG
