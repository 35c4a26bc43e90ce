"""Chat completions with tools, passed on as they are: an ability that some engines have in addition to the contract.

A model that calls tools answers with calls, the caller runs them and asks again with what they gave. None of that is
the core's: it has no rounds and nothing to evaluate. So the request goes to a server that knows tools, and the answer
comes back. Errors are those of the engine contract; InvalidRequest names ``tools`` where there is no such server.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

from service.engines.base import FinishReason, Usage
from service.errors import wrong_field

RelayFinish = Literal["stop", "length", "content_filter", "tool_calls"]
"""Why a message ends, in OpenAI's words."""
ChatBody = Mapping[str, Any]
"""A request for one chat completion in OpenAI's words, without its model and without what streams it."""


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A piece of the ``index``-th tool call: its id and its function's name come first, then the arguments."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class MessagePiece:
    """A piece of a message, or the whole of it; a call's pieces are in order. ``thoughts``: what the model thought
    before it answered."""

    content: str | None = None
    calls: tuple[CallPiece, ...] = ()
    thoughts: str = ""


@dataclass(frozen=True, slots=True)
class MessageEnd:
    finish_reason: RelayFinish
    usage: Usage


@runtime_checkable
class Relay(Protocol):
    """An engine that hands chat completions on."""

    def relay(
        self, chat: ChatBody, *, stream: bool, priority: int = 0
    ) -> AsyncGenerator[MessagePiece | MessageEnd, None]:
        """Yield the message, in pieces as they are written if ``stream``, then how it ended as the last item."""


def relay_finish(reason: FinishReason) -> RelayFinish:
    """OpenAI's word for the end of a reply. One that was stopped because it had all that it needed is whole.

    >>> relay_finish("stop"), relay_finish("deadline")
    ('stop', 'length')
    """
    if reason == "stop" or reason == "aborted":
        return "stop"
    return "content_filter" if reason == "content_filter" else "length"


def require_relay(engine: object) -> Relay:
    if isinstance(engine, Relay):
        return engine
    reason = "the engine here calls no tools; it takes remote servers that do (REDRAFT_ENGINE=openai)"
    raise wrong_field("tools", reason)


def join_pieces(pieces: Iterable[MessagePiece]) -> MessagePiece:
    """The message that the pieces make up."""
    content: str | None = None
    thoughts = ""
    calls: dict[int, CallPiece] = {}
    for piece in pieces:
        thoughts += piece.thoughts
        if piece.content is not None:
            content = (content or "") + piece.content
        for call in piece.calls:
            begun = calls.get(call.index)
            if begun is None:
                calls[call.index] = call
            else:
                calls[call.index] = replace(
                    begun,
                    id=begun.id or call.id,
                    name=begun.name or call.name,
                    arguments=begun.arguments + call.arguments,
                )
    return MessagePiece(content, tuple(calls[index] for index in sorted(calls)), thoughts.strip())


def without_system(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The messages for a chat template without a system role: system texts begin the next user message."""
    sent: list[Mapping[str, Any]] = []
    system_texts: list[str] = []
    for message in messages:
        if message["role"] == "system":
            system_texts.append(message["content"])
        elif message["role"] == "user" and system_texts:
            sent.append({**message, "content": _before("\n\n".join(system_texts), message["content"])})
            system_texts = []
        elif system_texts and not sent:  # else it would come after the assistant's greeting
            sent += [{"role": "user", "content": "\n\n".join(system_texts)}, message]
            system_texts = []
        else:
            sent.append(message)
    return [*sent, {"role": "user", "content": "\n\n".join(system_texts)}] if system_texts else sent


def with_user_first(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The messages for a chat template that requires a user message first: an empty one before the assistant's."""
    roles = [message["role"] for message in messages]
    first = next((index for index, role in enumerate(roles) if role != "system"), len(roles))
    if roles[first : first + 1] != ["assistant"]:
        return list(messages)
    return [*messages[:first], {"role": "user", "content": ""}, *messages[first:]]


def _before(text: str, content: str | list[Any]) -> str | list[Any]:
    return f"{text}\n\n{content}" if isinstance(content, str) else [{"type": "text", "text": text}, *content]
