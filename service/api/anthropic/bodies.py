"""What Anthropic's clients are answered, made of a program's last event."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel

from service.engines.relay import CallPiece, MessagePiece, RelayFinish, relay_finish
from service.errors import FormNotKept
from service.refinement.events import Done, Generated, Refined, Relayed
from service.wire.responses import LEFT_OUT_IF_NONE, refine_response, total

StopReason = Literal["end_turn", "max_tokens", "tool_use", "refusal"]
STOP_REASONS: Mapping[RelayFinish, StopReason] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "content_filter": "refusal",
    "tool_calls": "tool_use",
}


class TextBody(BaseModel):
    type: Literal["text"] = "text"
    text: str
    citations: None = None


class ThinkingBody(BaseModel):
    """``signature`` is empty: thoughts are sent as they are, and need no proof when they come back."""

    type: Literal["thinking"] = "thinking"
    thinking: str
    signature: str = ""


class ToolUseBody(BaseModel):
    type: Literal["tool_use"] = "tool_use"
    id: str
    name: str
    input: dict[str, Any]


BlockBody = TextBody | ThinkingBody | ToolUseBody


class MessageUsage(BaseModel):
    """Of all calls of the program. ``input_tokens``: those that were not in the cache."""

    input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    output_tokens: int = 0
    service_tier: Literal["standard"] = "standard"


class MessageBody(BaseModel):
    """``redraft``: of a refine, its response without what is elsewhere here. ``stop_reason`` is null in the first event
    of a stream only."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[BlockBody] = []
    stop_reason: StopReason | None = None
    stop_sequence: None = None
    usage: MessageUsage = MessageUsage()
    redraft: Annotated[dict[str, Any] | None, LEFT_OUT_IF_NONE] = None


class ErrorDetail(BaseModel):
    type: str
    message: str


class ErrorBody(BaseModel):
    type: Literal["error"] = "error"
    error: ErrorDetail


def finish_body(begun: MessageBody, done: Done, *, trace: bool, thoughts: bool) -> MessageBody:
    """The whole answer.

    begun: the message before there is any content.
    trace: whether a refine's account has its rounds.
    thoughts: whether the model's thoughts are shown.

    Raises FormNotKept if the model's call of a tool has no valid arguments.
    """
    redraft = None
    match done.outcome:
        case Generated(completions=[[completion]]):
            message = MessagePiece(content=completion.text, thoughts=completion.thoughts or "")
            finish = relay_finish(completion.finish_reason)
        case Refined() as refined:
            completion = refined.selected.completion
            message = MessagePiece(content=completion.text, thoughts=completion.thoughts or "")
            finish = relay_finish(completion.finish_reason)
            account = refine_response(refined, done.timing, trace=trace, reasoning=thoughts)
            redraft = account.model_dump(mode="json", exclude={"id", "model", "text"})
        case Relayed() as relayed:
            message, finish = relayed.message, relayed.finish_reason
        case outcome:
            raise TypeError(f"no message ends with {type(outcome).__name__}")
    spent = total(done.outcome.usage)
    usage = MessageUsage(
        input_tokens=spent.prompt_tokens - spent.cached_tokens,
        cache_read_input_tokens=spent.cached_tokens,
        output_tokens=spent.completion_tokens,
    )
    finished = {
        "content": _blocks(message, finish, thoughts=thoughts),
        "stop_reason": STOP_REASONS[finish],
        "usage": usage,
        "redraft": redraft,
    }
    return begun.model_copy(update=finished)


def _blocks(message: MessagePiece, finish: RelayFinish, *, thoughts: bool) -> Sequence[BlockBody]:
    """The blocks of a whole message: its thoughts, its text and its calls, as far as there are any."""
    blocks: list[BlockBody] = []
    if message.thoughts and thoughts:
        blocks.append(ThinkingBody(thinking=message.thoughts))
    if message.content:
        blocks.append(TextBody(text=message.content))
    for call in message.calls:
        arguments = _read_arguments(call, finish)
        if arguments is not None:
            blocks.append(ToolUseBody(id=call.id or "", name=call.name or "", input=arguments))
    return blocks


def _read_arguments(call: CallPiece, finish: RelayFinish) -> dict[str, Any] | None:
    """A call's arguments; None for a call that was cut. Raises FormNotKept."""
    try:
        found = json.loads(call.arguments or "{}")
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    if finish == "length":
        return None
    raise FormNotKept(f"the model called {call.name} with arguments that are not a JSON object")
