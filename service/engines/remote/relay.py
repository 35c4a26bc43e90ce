"""Chat completions with tools on a server that has them (relay.py): its answer, whole or piece by piece."""

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator

from service.engines.base import Thought, Usage
from service.engines.relay import CallPiece, ChatBody, MessageEnd, MessagePiece, with_user_first, without_system
from service.engines.remote.answers import (
    CompletedChoice,
    CompletionAnswer,
    UsageAnswer,
    finish_reason,
    object_or_nothing,
)
from service.engines.remote.server import CHAT, OpenAIServer
from service.engines.remote.thoughts import ChatReader, SaidText, count_thoughts
from service.engines.thoughts import Habit, Marks, Split, find_named_marks
from service.errors import EngineUnavailable, FieldError, InvalidRequest, PromptTooLong


class FunctionAnswer(BaseModel):
    name: str | None = None
    arguments: str | None = None


class ToolCallAnswer(BaseModel):
    """``index`` only in a stream, where a call comes in pieces."""

    index: int | None = None
    id: str | None = None
    function: Annotated[FunctionAnswer, BeforeValidator(object_or_nothing)] = FunctionAnswer()

    def piece(self, place: int) -> CallPiece:
        index = place if self.index is None else self.index
        return CallPiece(index, self.id, self.function.name, self.function.arguments or "")


class MessageAnswer(SaidText):
    tool_calls: list[ToolCallAnswer] | None = None

    @property
    def calls(self) -> tuple[CallPiece, ...]:
        return tuple(call.piece(place) for place, call in enumerate(self.tool_calls or ()))


class RelayChoice(CompletedChoice):
    """``message`` in a whole answer, ``delta`` in a stream's event."""

    message: Annotated[MessageAnswer, BeforeValidator(object_or_nothing)] = MessageAnswer()
    delta: Annotated[MessageAnswer, BeforeValidator(object_or_nothing)] = MessageAnswer()


class RelayAnswer(CompletionAnswer[RelayChoice]):
    """The last event of a stream has the usage and no choice."""


@dataclass(frozen=True)
class ServerRelay:
    """A Relay on a server that knows the model as ``model``.

    ``system``, ``greetings``, ``supports_priority``, ``context_tokens``, ``max_tokens_param`` and ``whole_top_p`` are
    those of ChatCapabilities. ``habit``: how its replies begin. ``fields``: further fields of the request.
    """

    server: OpenAIServer
    model: str
    system: bool = True
    supports_priority: bool = False
    context_tokens: int | None = None
    max_tokens_param: str = "max_tokens"
    whole_top_p: bool = True
    habit: Habit = field(default_factory=Habit)
    fields: Mapping[str, Any] = field(default_factory=dict)
    greetings: bool = True

    async def relay(
        self, chat: ChatBody, *, stream: bool, priority: int = 0
    ) -> AsyncGenerator[MessagePiece | MessageEnd, None]:
        body = {**chat, **self.fields, "model": self.model}
        reader = ChatReader(self.habit.splitter(_marks_named_in(chat)))
        if not self.system:
            body["messages"] = without_system(body["messages"])
        if not self.greetings:
            body["messages"] = with_user_first(body["messages"])
        if self.supports_priority:
            body["priority"] = priority
        if not self.whole_top_p and body.get("top_p") == 1:
            del body["top_p"]
        with _name_field("tools" if "tools" in body else "messages"):
            if self.context_tokens is not None and "max_tokens" in body:
                body["max_tokens"] = min(body["max_tokens"], await self._room(body, self.context_tokens))
            if "max_tokens" in body:
                body[self.max_tokens_param] = body.pop("max_tokens")
            answer = self._answer_stream(body, reader) if stream else self._answer_whole(body, reader)
            async with aclosing(answer) as items:
                async for item in items:
                    yield item

    async def _answer_whole(
        self, body: ChatBody, reader: ChatReader
    ) -> AsyncGenerator[MessagePiece | MessageEnd, None]:
        answer = await self.server.post(CHAT, body, RelayAnswer)
        if len(answer.choices) != 1:
            raise EngineUnavailable("the engine's server answers without one choice")
        [choice] = answer.choices
        reader.feed(choice.message)
        _, split, end = _finish(reader, choice.finish_reason, answer.usage)
        content = split.text or (None if choice.message.calls or choice.message.content is None else "")
        yield MessagePiece(content, choice.message.calls, split.thoughts)
        yield end

    async def _answer_stream(
        self, body: ChatBody, reader: ChatReader
    ) -> AsyncGenerator[MessagePiece | MessageEnd, None]:
        said, usage, begun = None, None, False
        async with aclosing(self.server.stream(CHAT, body, RelayAnswer)) as events:
            async for event in events:
                for choice in event.choices:
                    begun = True
                    said = choice.finish_reason or said
                    for piece in reader.feed(choice.delta):
                        yield _piece(piece)
                    if choice.delta.calls:
                        yield MessagePiece(calls=choice.delta.calls)
                usage = event.usage or usage
        if not begun:
            raise EngineUnavailable("the engine's server wrote nothing")
        rest, _, end = _finish(reader, said, usage)
        for piece in rest:
            yield _piece(piece)
        yield end

    async def _room(self, body: ChatBody, context_tokens: int) -> int:
        """The tokens left for the answer. The context size is known only for a server that counts tokens."""
        counted = {name: body[name] for name in ("model", "messages", "tools") if name in body}
        count = (await self.server.tokenize(counted)).count
        if count >= context_tokens:
            raise PromptTooLong(count, context_tokens)
        return context_tokens - count


def _marks_named_in(chat: ChatBody) -> frozenset[Marks]:
    return find_named_marks(str(message["content"]) for message in chat["messages"] if message["role"] != "assistant")


def _piece(piece: str | Thought) -> MessagePiece:
    return MessagePiece(thoughts=piece.text) if isinstance(piece, Thought) else MessagePiece(piece)


def _finish(
    reader: ChatReader, said: str | None, usage: UsageAnswer | None
) -> tuple[list[str | Thought], Split, MessageEnd]:
    """The last pieces of a message, the whole, and its end."""
    rest, split = reader.end(finish_reason(said))
    spent = count_thoughts(usage.usage() if usage else Usage(calls=1), split)
    return rest, split, MessageEnd("tool_calls" if said == "tool_calls" else split.finish_reason, spent)


@contextmanager
def _name_field(field: str) -> Iterator[None]:
    """Name the field that a server rejects: most servers support tools only if they are started with them."""
    try:
        yield
    except PromptTooLong:
        raise
    except InvalidRequest as error:
        raise InvalidRequest(error.detail, [FieldError(field, error.detail)]) from error
