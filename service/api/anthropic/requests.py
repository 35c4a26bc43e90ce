"""Anthropic's Messages requests: what is followed, what is ignored and what is refused.

A request amounts to a chat completion, which api/openai/translate.py puts in Redraft's terms.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from service.api.anthropic.blocks import ChatMessages, MessageParam, SystemText
from service.api.body import decode
from service.api.openai.fields import Ignored, Only, rename_fields
from service.api.openai.translate import Chat, ChatRequest
from service.errors import FieldError
from service.fail_fast import FAIL_FAST
from service.wire.model import BodyModel, WireModel
from service.wire.requests import BoundedSchema
from service.wire.tools import FunctionName

NAMES: Mapping[str, str] = {
    "max_completion_tokens": "max_tokens",
    "stop": "stop_sequences",
    "response_format": "output_config.format",
    "tool_choice.function.name": "tool_choice.name",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
}
"""The names of a chat completion's fields that have others here."""


class Tool(WireModel):
    """``input_schema``: the JSON schema of its arguments."""

    type: Literal["custom"] | None = None
    name: FunctionName
    description: str | None = None
    input_schema: BoundedSchema
    strict: bool | None = None
    allowed_callers: Annotated[Any, Only(["direct"])] = None
    cache_control: Ignored = None
    defer_loading: Annotated[Any, Only(False)] = None
    eager_input_streaming: Ignored = None
    input_examples: Ignored = None

    def chat_tool(self) -> dict[str, Any]:
        stated = {"description": self.description, "strict": self.strict}
        known = {name: value for name, value in stated.items() if value is not None}
        return {"type": "function", "function": {"name": self.name, "parameters": self.input_schema, **known}}


class ToolChoice(WireModel):
    """``any``: one of the tools must be called; ``tool``: the one that is named."""

    type: Literal["auto", "any", "tool", "none"]
    name: FunctionName | None = None
    disable_parallel_tool_use: bool | None = None

    def chat_choice(self) -> Any:
        if self.name is not None:
            return {"type": "function", "function": {"name": self.name}}
        return {"any": "required", "tool": "required"}.get(self.type, self.type)


class Thinking(WireModel):
    """Whether the model may think. Its thoughts are shown unless they are ``omitted``."""

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: Ignored = None
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(WireModel):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")

    def chat_format(self) -> dict[str, Any]:
        return {"type": "json_schema", "json_schema": {"name": "reply", "schema": self.schema_}}


class OutputConfig(WireModel):
    format: OutputFormat | None = None
    effort: Annotated[Any, Only()] = None


class MetadataParam(WireModel):
    user_id: Ignored = None


class MessagesRequest(BodyModel):
    """A message as Anthropic's clients ask for it. ``redraft``: fields of Redraft's own request; the bounds of the
    others are those of its fields too."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "scripted:refine",
                    "max_tokens": 200,
                    "messages": [{"role": "user", "content": "Why is the sky blue?"}],
                }
            ]
        }
    )

    model: str
    messages: Annotated[tuple[MessageParam, ...], FAIL_FAST]
    max_tokens: int
    system: SystemText | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop_sequences: Annotated[tuple[str, ...], FAIL_FAST] | None = None
    stream: bool | None = None
    tools: Annotated[tuple[Tool, ...], FAIL_FAST] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    redraft: dict[str, Any] | None = None

    cache_control: Ignored = None
    diagnostics: Ignored = None
    inference_geo: Ignored = None
    metadata: Annotated[MetadataParam | None, Field(description="Ignored.")] = None
    service_tier: Ignored = None
    user_profile_id: Ignored = None
    workspace_id: Ignored = None

    container: Annotated[Any, Only()] = None
    speed: Annotated[Any, Only("standard")] = None
    top_k: Annotated[Any, Only(hint="top_p is followed")] = None

    @property
    def shows_thoughts(self) -> bool:
        return self.thinking is not None and self.thinking.type != "disabled" and self.thinking.display != "omitted"

    def chat_fields(self, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The chat completion that it amounts to."""
        form = self.output_config.format if self.output_config else None
        choice = self.tool_choice
        parallel = choice.disable_parallel_tool_use if choice else None
        fields = {
            "model": self.model,
            "messages": messages,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_completion_tokens": self.max_tokens,
            "stop": self.stop_sequences,
            "tools": [tool.chat_tool() for tool in self.tools] if self.tools else None,
            "tool_choice": None if choice is None or not self.tools else choice.chat_choice(),
            "parallel_tool_calls": None if parallel is None else not parallel,
            "response_format": form
            and {"type": "json_schema", "json_schema": {"name": "reply", "schema": form.schema_}},
            "reasoning_effort": "none" if self.thinking and self.thinking.type == "disabled" else None,
            "include_reasoning": self.shows_thoughts,
            "stream": self.stream,
            "redraft": self.redraft,
        }
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True)
class StatedMessage:
    """A Messages request, and the chat completion that it amounts to. ``messages``: those of the chat."""

    request: MessagesRequest
    chat: Chat
    messages: ChatMessages

    @classmethod
    def from_request(cls, request: MessagesRequest, served: Sequence[str]) -> "StatedMessage":
        """Raises ModelNotFound, and InvalidRequest, which names the caller's fields."""
        messages = ChatMessages(request.system, request.messages)
        body = json.dumps(request.chat_fields(messages.messages)).encode()
        with rename_fields(lambda error: _name_as_caller(messages, error)):
            return cls(request, Chat.from_request(decode(ChatRequest, body, None), served), messages)

    def name_as_caller(self, error: FieldError) -> FieldError:
        """The error with the caller's name for a field of the chat completion."""
        return _name_as_caller(self.messages, error)


def _name_as_caller(messages: ChatMessages, error: FieldError) -> FieldError:
    field = error.field
    if f"{field}.".startswith("messages."):
        return FieldError(messages.name_of(field), error.message)
    if field.startswith("tools."):
        named = field.replace(".function.parameters", ".input_schema", 1).replace(".function", "", 1)
        return FieldError(named, error.message)
    return FieldError(NAMES.get(field, field), error.message)
