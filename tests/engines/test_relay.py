"""Messages put together, and put for templates without a system role; and such servers, over real HTTP."""

from typing import Any

import pytest
from starlette.responses import Response

from service.engines.base import Sample
from service.engines.conversation import Conversation, Turn
from service.engines.relay import CallPiece, MessagePiece, join_pieces, require_relay, with_user_first, without_system
from service.engines.remote.chat import ChatEngine
from service.engines.remote.connect import Tokenizers, connect
from service.engines.scripted import ScriptedEngine
from service.errors import InvalidRequest
from tests.support.chat_server import ChatServer, refusal
from tests.support.engine_contract import GREEDY
from tests.support.serving import listening

BRIEF = {"role": "system", "content": "Be brief."}
HELLO = {"role": "user", "content": "Hello."}


def test_the_pieces_of_each_call_are_put_together() -> None:
    pieces = [
        MessagePiece("I "),
        MessagePiece("look."),
        MessagePiece(calls=(CallPiece(1, "b", "time", "{"), CallPiece(0, "a", "weather"))),
        MessagePiece(calls=(CallPiece(1, arguments="}"),)),
        MessagePiece(calls=(CallPiece(0, arguments="{}"),)),
    ]

    assert join_pieces(pieces) == MessagePiece(
        "I look.", (CallPiece(0, "a", "weather", "{}"), CallPiece(1, "b", "time", "{}"))
    )
    assert join_pieces([]) == MessagePiece(None, ())


def test_what_the_system_says_begins_the_user_s_next_message() -> None:
    reply = {"role": "assistant", "content": "Hi."}

    assert without_system([BRIEF, HELLO, reply, BRIEF]) == [
        {"role": "user", "content": "Be brief.\n\nHello."},
        reply,
        {"role": "user", "content": "Be brief."},
    ]
    assert without_system([HELLO, reply]) == [HELLO, reply]
    assert without_system([BRIEF, reply, HELLO]) == [{"role": "user", "content": "Be brief."}, reply, HELLO]


def test_an_empty_message_of_the_user_s_comes_before_a_greeting() -> None:
    empty, reply = {"role": "user", "content": ""}, {"role": "assistant", "content": "Hi."}

    assert with_user_first([reply, HELLO]) == [empty, reply, HELLO]
    assert with_user_first([BRIEF, reply, HELLO]) == [BRIEF, empty, reply, HELLO]
    for fine in ([HELLO, reply, HELLO], [BRIEF, HELLO], [BRIEF], []):
        assert with_user_first(fine) == fine


def test_what_the_system_says_begins_a_message_of_parts_too() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    shown = {"role": "user", "content": [picture]}
    assert without_system([BRIEF, shown]) == [
        {"role": "user", "content": [{"type": "text", "text": BRIEF["content"]}, picture]}
    ]


def test_an_engine_that_cannot_relay_is_named_as_the_reason() -> None:
    with pytest.raises(InvalidRequest) as refused:
        require_relay(ScriptedEngine())
    assert refused.value.errors[0].field == "tools"


@pytest.mark.parametrize("knows_system", [True, False])
async def test_a_template_without_a_system_role_is_found_out_and_served(knows_system: bool) -> None:
    server = ChatServer(system=knows_system)
    folded = [{"role": "user", "content": "Be brief.\n\nHello."}]
    async with listening(server.app()) as url:
        engine = await connect(url, "scripted", tokenizers=Tokenizers())
        assert isinstance(engine, ChatEngine)
        server.asked.clear()
        reply = await engine.call(Sample(Conversation(Turn("system", "Be brief.")).with_user("Hello."), GREEDY))
        relayed = [item async for item in engine.relay({"messages": [BRIEF, HELLO]}, stream=False)]
        await engine.close()

    assert reply.text == "Hello."
    assert relayed[0] == MessagePiece("Hello.")
    assert [asked["messages"] for asked in server.asked] == [[BRIEF, HELLO] if knows_system else folded] * 2


@pytest.mark.parametrize("user_first", [True, False])
async def test_a_template_that_wants_the_user_first_is_found_out_and_served(user_first: bool) -> None:
    def fault(body: dict[str, Any]) -> Response | None:
        begins = body["messages"][0]["role"]
        return refusal("Conversation roles must alternate") if user_first and begins == "assistant" else None

    server = ChatServer(fault=fault)
    reply = {"role": "assistant", "content": "Hi."}
    async with listening(server.app()) as url:
        engine = await connect(url, "scripted", tokenizers=Tokenizers())
        assert isinstance(engine, ChatEngine)
        server.asked.clear()
        await engine.call(Sample(Conversation(Turn("assistant", "Hi.")).with_user("Hello."), GREEDY))
        async for _ in engine.relay({"messages": [reply, HELLO]}, stream=False):
            pass
        await engine.close()

    before = [{"role": "user", "content": ""}] if user_first else []
    assert [asked["messages"] for asked in server.asked] == [[*before, reply, HELLO]] * 2
