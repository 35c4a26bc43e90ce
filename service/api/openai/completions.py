"""What OpenAI's clients are answered, whole or in chunks, made from a program's events."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel

from service.engines.base import Completion, Usage
from service.engines.relay import CallPiece, MessagePiece, RelayFinish, relay_finish
from service.refinement.events import Delta, Done, Event, Generated, ReasoningDelta, Refined, Relayed
from service.refinement.roles import CallRole
from service.wire.responses import LEFT_OUT_IF_NONE, refine_response, sse_event, total
from service.wire.sse import DONE_FRAME, data_frame

Chunk = dict[str, Any]
ServiceTier = Literal["default", "flex"]


class ErrorBody(BaseModel):
    """``param``: the first field that is wrong."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorResponse(BaseModel):
    error: ErrorBody


class FunctionCallBody(BaseModel):
    name: str
    arguments: str


class ToolCallBody(BaseModel):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCallBody


class AnswerBody(BaseModel):
    """``content`` is null where the model only called tools. ``reasoning_content`` is there if it was asked for."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    reasoning_content: Annotated[str | None, LEFT_OUT_IF_NONE] = None
    refusal: None = None
    tool_calls: Annotated[list[ToolCallBody] | None, LEFT_OUT_IF_NONE] = None


class ChatChoice(BaseModel):
    index: int
    message: AnswerBody
    finish_reason: RelayFinish
    logprobs: None = None


class PromptTokensDetails(BaseModel):
    cached_tokens: int


class CompletionTokensDetails(BaseModel):
    reasoning_tokens: int


class CompletionUsage(BaseModel):
    """Of all calls of the program."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class ChatCompletion(BaseModel):
    """``redraft``: of a refine, its response without what is elsewhere here."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage
    metadata: Annotated[dict[str, str] | None, LEFT_OUT_IF_NONE] = None
    service_tier: Annotated[ServiceTier | None, LEFT_OUT_IF_NONE] = None
    redraft: Annotated[dict[str, Any] | None, LEFT_OUT_IF_NONE] = None


@dataclass
class ChatFormat:
    """How a chat completion is answered, whole or in chunks. One serves one answer: its first chunks are special.

    id: the program's.
    model: as the request names it.
    created: Unix time.
    texts: how many texts are streamed. The first chunk of each says whose it is.
    include_usage: whether the last chunk of a stream has the usage.
    trace: whether a refine's account has its rounds.
    reasoning: whether the model's thoughts are shown.
    metadata: the caller's, which the answer repeats.
    service_tier: which one served the request, if it asked for one.
    """

    id: str
    model: str
    created: int
    texts: int = 1
    include_usage: bool = False
    trace: bool = False
    reasoning: bool = False
    metadata: dict[str, str] | None = None
    service_tier: ServiceTier | None = None
    _begun: bool = False

    def response(self, done: Done) -> ChatCompletion:
        """The whole answer."""
        redraft = None
        match done.outcome:
            case Generated(completions=[completions]):
                choices = [self._text_choice(index, completion) for index, completion in enumerate(completions)]
            case Refined() as refined:
                choices = [self._text_choice(0, refined.selected.completion)]
                account = refine_response(refined, done.timing, trace=self.trace, reasoning=self.reasoning)
                redraft = account.model_dump(mode="json", exclude={"id", "model", "text"})
            case Relayed() as relayed:
                choices = [self._tool_choice(relayed)]
            case outcome:
                raise TypeError(f"no chat completion ends with {type(outcome).__name__}")
        usage = _usage(done.outcome.usage)
        return ChatCompletion(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=choices,
            usage=usage,
            metadata=self.metadata,
            service_tier=self.service_tier,
            redraft=redraft,
        )

    def encode(self, event: Event) -> bytes:
        """The event as chunks; empty for one that is not shown."""
        frames = [data_frame(chunk) for chunk in self._chunks(event)]
        return b"".join([*frames, DONE_FRAME] if isinstance(event, Done) else frames)

    def encode_error(self, body: Mapping[str, Any]) -> bytes:
        return data_frame(body)

    def _chunks(self, event: Event) -> Iterator[Chunk]:
        if not self._begun:
            self._begun = True
            for index in range(self.texts):
                yield self._delta_chunk(index, {"role": "assistant", "content": ""})
        match event:
            case Done():
                yield from self._last_chunks(self.response(event))
            case ReasoningDelta():
                if self.reasoning:
                    yield self._delta_chunk(event.index, {"reasoning_content": event.text})
            case Delta():
                yield self._delta_chunk(event.index, {"content": event.text})
            case MessagePiece():
                if delta := _delta(event, self.reasoning):
                    yield self._delta_chunk(0, delta)
            case _:
                if shown := sse_event(event, reasoning=self.reasoning):
                    name, data = shown
                    yield self._delta_chunk(0, {}, redraft={"event": name, **data})

    def _last_chunks(self, completion: ChatCompletion) -> Iterator[Chunk]:
        for choice in completion.choices:
            account = {} if completion.metadata is None else {"metadata": completion.metadata}
            if completion.redraft is not None:  # only now is it known which text it is
                if choice.message.reasoning_content:
                    yield self._delta_chunk(choice.index, {"reasoning_content": choice.message.reasoning_content})
                yield self._delta_chunk(choice.index, {"content": choice.message.content})
                account["redraft"] = {"event": "done", **completion.redraft}
            yield self._delta_chunk(choice.index, {}, choice.finish_reason, **account)
        if self.include_usage:
            yield self._chunk([], usage=completion.usage.model_dump())

    def _delta_chunk(
        self, index: int, delta: Mapping[str, Any], finish_reason: RelayFinish | None = None, **more: Any
    ) -> Chunk:
        return self._chunk([{"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": None}], **more)

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> Chunk:
        usage = {"usage": None} if self.include_usage else {}
        head = {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model}
        head |= {} if self.service_tier is None else {"service_tier": self.service_tier}
        return {**head, "choices": choices, **usage, **more}

    def _text_choice(self, index: int, completion: Completion) -> ChatChoice:
        thoughts = completion.thoughts if self.reasoning else None
        message = AnswerBody(content=completion.text, reasoning_content=thoughts)
        return ChatChoice(index=index, message=message, finish_reason=relay_finish(completion.finish_reason))

    def _tool_choice(self, relayed: Relayed) -> ChatChoice:
        calls = [
            ToolCallBody(id=call.id or "", function=FunctionCallBody(name=call.name or "", arguments=call.arguments))
            for call in relayed.message.calls
        ]
        thoughts = relayed.message.thoughts if self.reasoning else None
        message = AnswerBody(content=relayed.message.content, reasoning_content=thoughts, tool_calls=calls or None)
        return ChatChoice(index=0, message=message, finish_reason=relayed.finish_reason)


def _usage(by_role: Mapping[CallRole, Usage]) -> CompletionUsage:
    spent = total(by_role)
    return CompletionUsage(
        prompt_tokens=spent.prompt_tokens,
        completion_tokens=spent.completion_tokens,
        total_tokens=spent.tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=spent.cached_tokens),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=spent.reasoning_tokens),
    )


def _delta(piece: MessagePiece, reasoning: bool) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if piece.thoughts and reasoning:
        delta["reasoning_content"] = piece.thoughts
    if piece.content:
        delta["content"] = piece.content
    if piece.calls:
        delta["tool_calls"] = [_call_delta(call) for call in piece.calls]
    return delta


def _call_delta(call: CallPiece) -> dict[str, Any]:
    function: dict[str, str] = {} if call.name is None else {"name": call.name}
    begun = {} if call.id is None else {"id": call.id, "type": "function"}
    return {"index": call.index, **begun, "function": {**function, "arguments": call.arguments}}
