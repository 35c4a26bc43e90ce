"""What OpenAI's clients are answered, whole or in chunks, made from a program's events."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel

from service.engines.base import Completion, Usage
from service.engines.relay import CallPiece, MessagePiece, RelayFinish
from service.refinement.events import Delta, Event, Generated, ReasoningDelta, Refined, Relayed
from service.refinement.roles import CallRole
from service.wire.responses import LEFT_OUT_IF_NONE, SseEvent, Timing, refine_response, sse_event, total


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
    """``redraft``: of a refine, its response without what stands elsewhere here."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage
    redraft: Annotated[dict[str, Any] | None, LEFT_OUT_IF_NONE] = None


def generated_completion(
    done: Generated, timing: Timing, *, model: str, created: int, reasoning: bool = False
) -> ChatCompletion:
    [completions] = done.completions
    choices = [_choice(index, c, reasoning) for index, c in enumerate(completions)]
    return ChatCompletion(id=done.program, created=created, model=model, choices=choices, usage=_usage(done.usage))


def refined_completion(
    done: Refined, timing: Timing, *, model: str, created: int, trace: bool, reasoning: bool = False
) -> ChatCompletion:
    response = refine_response(done, timing, trace=trace, reasoning=reasoning)
    return ChatCompletion(
        id=done.program,
        created=created,
        model=model,
        choices=[_choice(0, done.selected.completion, reasoning)],
        usage=_usage(done.usage),
        redraft=response.model_dump(mode="json", exclude={"id", "model", "text"}),
    )


def relayed_completion(
    done: Relayed, timing: Timing, *, model: str, created: int, reasoning: bool = False
) -> ChatCompletion:
    calls = [
        ToolCallBody(id=call.id or "", function=FunctionCallBody(name=call.name or "", arguments=call.arguments))
        for call in done.message.calls
    ]
    thoughts = done.message.thoughts if reasoning else None
    message = AnswerBody(content=done.message.content, reasoning_content=thoughts, tool_calls=calls or None)
    return ChatCompletion(
        id=done.program,
        created=created,
        model=model,
        choices=[ChatChoice(index=0, message=message, finish_reason=done.finish_reason)],
        usage=_usage(done.usage),
    )


def _choice(index: int, said: Completion, reasoning: bool) -> ChatChoice:
    message = AnswerBody(content=said.text, reasoning_content=said.thoughts if reasoning else None)
    return ChatChoice(index=index, message=message, finish_reason=said.finish_reason)


def _usage(by_role: Mapping[CallRole, Usage]) -> CompletionUsage:
    spent = total(by_role)
    return CompletionUsage(
        prompt_tokens=spent.prompt_tokens,
        completion_tokens=spent.completion_tokens,
        total_tokens=spent.tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=spent.cached_tokens),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=spent.reasoning_tokens),
    )


@dataclass
class Chunks:
    """The chunks of one streamed answer with so many ``texts``. The first chunk of each says whose it is.
    ``reasoning``: the model's thoughts are told too."""

    id: str
    model: str
    created: int
    texts: int
    include_usage: bool
    reasoning: bool = False
    _begun: bool = False

    def of(self, event: Event | ChatCompletion) -> Iterator[SseEvent]:
        """What is told of an event, and last of the whole answer."""
        if not self._begun:
            self._begun = True
            for index in range(self.texts):
                yield self._choice(index, {"role": "assistant", "content": ""})
        if isinstance(event, ChatCompletion):
            yield from self._ended(event)
        elif isinstance(event, ReasoningDelta):
            if self.reasoning:
                yield self._choice(event.index, {"reasoning_content": event.text})
        elif isinstance(event, Delta):
            yield self._choice(event.index, {"content": event.text})
        elif isinstance(event, MessagePiece):
            if delta := _delta(event, self.reasoning):
                yield self._choice(0, delta)
        elif told := sse_event(event, reasoning=self.reasoning):
            name, data = told
            yield self._choice(0, {}, redraft={"event": name, **data})

    def _ended(self, done: ChatCompletion) -> Iterator[SseEvent]:
        for choice in done.choices:
            account = {}
            if done.redraft is not None:  # only now is it known which text it is
                if choice.message.reasoning_content:
                    yield self._choice(choice.index, {"reasoning_content": choice.message.reasoning_content})
                yield self._choice(choice.index, {"content": choice.message.content})
                account = {"redraft": {"event": "done", **done.redraft}}
            yield self._choice(choice.index, {}, choice.finish_reason, **account)
        if self.include_usage:
            yield self._chunk([], usage=done.usage.model_dump())
        yield "done", {}

    def _choice(
        self, index: int, delta: Mapping[str, Any], finish_reason: RelayFinish | None = None, **more: Any
    ) -> SseEvent:
        return self._chunk([{"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": None}], **more)

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> SseEvent:
        usage = {"usage": None} if self.include_usage else {}
        head = {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model}
        return "chunk", {**head, "choices": choices, **usage, **more}


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
