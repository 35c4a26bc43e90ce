"""What OpenAI's clients are answered, whole or in chunks, made from a program's events."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel

from service.api.responses import LEFT_OUT_IF_NONE, SseEvent, Timing, refine_response, sse_event, total
from service.engines.base import Usage
from service.engines.relay import CallPiece, MessagePiece, RelayFinish
from service.refinement.events import Delta, Event, Generated, Refined, Relayed
from service.refinement.roles import CallRole


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
    """``content`` is null where the model only called tools."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: Annotated[list[ToolCallBody] | None, LEFT_OUT_IF_NONE] = None


class ChatChoice(BaseModel):
    index: int
    message: AnswerBody
    finish_reason: RelayFinish
    logprobs: None = None


class PromptTokensDetails(BaseModel):
    cached_tokens: int


class CompletionUsage(BaseModel):
    """Of all calls of the program."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class ChatCompletion(BaseModel):
    """``redraft``: of a refine, its response without what stands elsewhere here."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage
    redraft: Annotated[dict[str, Any] | None, LEFT_OUT_IF_NONE] = None


def generated_completion(done: Generated, timing: Timing, *, model: str, created: int) -> ChatCompletion:
    [completions] = done.completions
    choices = [_choice(index, c.text, c.finish_reason) for index, c in enumerate(completions)]
    return ChatCompletion(id=done.program, created=created, model=model, choices=choices, usage=_usage(done.usage))


def refined_completion(done: Refined, timing: Timing, *, model: str, created: int, trace: bool) -> ChatCompletion:
    response = refine_response(done, timing, trace=trace)
    return ChatCompletion(
        id=done.program,
        created=created,
        model=model,
        choices=[_choice(0, done.selected.text, done.selected.completion.finish_reason)],
        usage=_usage(done.usage),
        redraft=response.model_dump(mode="json", exclude={"id", "model", "text"}),
    )


def relayed_completion(done: Relayed, timing: Timing, *, model: str, created: int) -> ChatCompletion:
    calls = [
        ToolCallBody(id=call.id or "", function=FunctionCallBody(name=call.name or "", arguments=call.arguments))
        for call in done.message.calls
    ]
    message = AnswerBody(content=done.message.content, tool_calls=calls or None)
    return ChatCompletion(
        id=done.program,
        created=created,
        model=model,
        choices=[ChatChoice(index=0, message=message, finish_reason=done.finish_reason)],
        usage=_usage(done.usage),
    )


def _choice(index: int, text: str, finish_reason: RelayFinish) -> ChatChoice:
    return ChatChoice(index=index, message=AnswerBody(content=text), finish_reason=finish_reason)


def _usage(by_role: Mapping[CallRole, Usage]) -> CompletionUsage:
    spent = total(by_role)
    return CompletionUsage(
        prompt_tokens=spent.prompt_tokens,
        completion_tokens=spent.completion_tokens,
        total_tokens=spent.tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=spent.cached_tokens),
    )


@dataclass
class Chunks:
    """The chunks of one streamed answer with so many ``texts``. The first chunk of each says whose it is."""

    id: str
    model: str
    created: int
    texts: int
    include_usage: bool
    _begun: bool = False

    def of(self, event: Event | ChatCompletion) -> Iterator[SseEvent]:
        """What is told of an event, and last of the whole answer."""
        if not self._begun:
            self._begun = True
            for index in range(self.texts):
                yield self._choice(index, {"role": "assistant", "content": ""})
        if isinstance(event, ChatCompletion):
            yield from self._ended(event)
        elif isinstance(event, Delta):
            yield self._choice(event.index, {"content": event.text})
        elif isinstance(event, MessagePiece):
            yield self._choice(0, _delta(event))
        elif told := sse_event(event):
            name, data = told
            yield self._choice(0, {}, redraft={"event": name, **data})

    def _ended(self, done: ChatCompletion) -> Iterator[SseEvent]:
        for choice in done.choices:
            account = {}
            if done.redraft is not None:  # only now is it known which text it is
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


def _delta(piece: MessagePiece) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if piece.content:
        delta["content"] = piece.content
    if piece.calls:
        delta["tool_calls"] = [_call_delta(call) for call in piece.calls]
    return delta


def _call_delta(call: CallPiece) -> dict[str, Any]:
    function: dict[str, str] = {} if call.name is None else {"name": call.name}
    begun = {} if call.id is None else {"id": call.id, "type": "function"}
    return {"index": call.index, **begun, "function": {**function, "arguments": call.arguments}}
