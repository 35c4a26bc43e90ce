"""What OpenAI's clients are answered to a Responses request, made of a program's last event."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel

from service.api.openai.completions import ServiceTier
from service.engines.base import Completion
from service.engines.relay import CallPiece, MessagePiece, RelayFinish, relay_finish
from service.refinement.events import Done, Generated, Refined, Relayed
from service.wire.responses import LEFT_OUT_IF_NONE, refine_response, total

Status = Literal["in_progress", "completed", "incomplete"]
"""Of an item."""


class OutputText(BaseModel):
    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any] = []
    logprobs: list[Any] = []


class OutputMessage(BaseModel):
    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: Status
    content: list[OutputText]


class ReasoningContent(BaseModel):
    type: Literal["reasoning_text"] = "reasoning_text"
    text: str


class OutputReasoning(BaseModel):
    """What the model thought, as it is. There is no summary of it."""

    id: str
    type: Literal["reasoning"] = "reasoning"
    status: Status
    summary: list[Any] = []
    content: list[ReasoningContent]


class OutputCall(BaseModel):
    """``arguments``: JSON as the model wrote it."""

    id: str
    type: Literal["function_call"] = "function_call"
    status: Status
    call_id: str
    name: str
    arguments: str


OutputItem = OutputReasoning | OutputMessage | OutputCall


class InputTokensDetails(BaseModel):
    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(BaseModel):
    reasoning_tokens: int


class ResponseUsage(BaseModel):
    """Of all calls of the program."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class IncompleteDetails(BaseModel):
    reason: Literal["max_output_tokens", "content_filter"]


class Failure(BaseModel):
    """``code``: one of OpenAI's words for the failures of responses. The event ``error`` has Redraft's own."""

    code: Literal["server_error"] = "server_error"
    message: str


class ResponseBody(BaseModel):
    """``redraft``: of a refine, its response without what is elsewhere here. Most other fields repeat the request.
    ``store``: whether it can be fetched, which those in the background can be."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Status | Literal["queued", "failed", "cancelled"]
    background: bool = False
    error: Failure | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: None = None
    reasoning: dict[str, Any]
    service_tier: Annotated[ServiceTier | None, LEFT_OUT_IF_NONE] = None
    store: bool = False
    temperature: float | None
    text: dict[str, Any]
    tool_choice: Any
    tools: list[dict[str, Any]]
    top_p: float | None
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
    redraft: Annotated[dict[str, Any] | None, LEFT_OUT_IF_NONE] = None


class DeletedResponse(BaseModel):
    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


@dataclass(frozen=True)
class ItemIds:
    """The ids of a response's items, by the response's."""

    response: str

    @property
    def reasoning(self) -> str:
        return f"rs_{self.response}"

    @property
    def message(self) -> str:
        return f"msg_{self.response}"

    def call(self, index: int) -> str:
        return f"fc_{self.response}_{index}"


def finish_body(begun: ResponseBody, done: Done, *, trace: bool) -> ResponseBody:
    """The whole response, of the one that was begun. ``trace``: whether a refine's account has its rounds."""
    ids, redraft = ItemIds(begun.id), None
    match done.outcome:
        case Generated(completions=[[completion]]):
            finish = relay_finish(completion.finish_reason)
            output = text_items(ids, completion, _status(finish))
        case Refined() as refined:
            completion = refined.selected.completion
            finish = relay_finish(completion.finish_reason)
            output = text_items(ids, completion, _status(finish))
            account = refine_response(refined, done.timing, trace=trace, reasoning=True)
            redraft = account.model_dump(mode="json", exclude={"id", "model", "text"})
        case Relayed() as relayed:
            finish = relayed.finish_reason
            output = message_items(ids, relayed.message, _status(finish))
        case outcome:
            raise TypeError(f"no response ends with {type(outcome).__name__}")
    finished = {
        "status": _status(finish),
        "completed_at": int(time.time()),
        "incomplete_details": _incomplete_details(finish),
        "output": list(output),
        "usage": _usage(done),
        "redraft": redraft,
    }
    return begun.model_copy(update=finished)


def text_items(ids: ItemIds, completion: Completion, status: Status) -> Sequence[OutputItem]:
    """The items of a sampled text."""
    return message_items(ids, MessagePiece(content=completion.text, thoughts=completion.thoughts or ""), status)


def message_items(ids: ItemIds, message: MessagePiece, status: Status) -> Sequence[OutputItem]:
    """The items of a whole message: its thoughts, its text and its calls, as far as there are any."""
    items: list[OutputItem] = []
    if message.thoughts:
        thought = [ReasoningContent(text=message.thoughts)]
        items.append(OutputReasoning(id=ids.reasoning, status="completed", content=thought))
    if message.content or not message.calls:
        content = [OutputText(text=message.content or "")]
        items.append(OutputMessage(id=ids.message, status=status, content=content))
    items += [_call_item(ids, call, status) for call in message.calls]
    return items


def _call_item(ids: ItemIds, call: CallPiece, status: Status) -> OutputCall:
    return OutputCall(
        id=ids.call(call.index),
        status=status,
        call_id=call.id or "",
        name=call.name or "",
        arguments=call.arguments,
    )


def _status(finish: RelayFinish) -> Status:
    return "completed" if finish in ("stop", "tool_calls") else "incomplete"


def _incomplete_details(finish: RelayFinish) -> IncompleteDetails | None:
    match finish:
        case "length":
            return IncompleteDetails(reason="max_output_tokens")
        case "content_filter":
            return IncompleteDetails(reason="content_filter")
        case _:
            return None


def _usage(done: Done) -> ResponseUsage:
    spent = total(done.outcome.usage)
    return ResponseUsage(
        input_tokens=spent.prompt_tokens,
        input_tokens_details=InputTokensDetails(cached_tokens=spent.cached_tokens),
        output_tokens=spent.completion_tokens,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=spent.reasoning_tokens),
        total_tokens=spent.tokens,
    )
