"""OpenAI's Responses requests: what is followed, what is ignored and what is refused.

A request amounts to a chat completion, which translate.py puts in Redraft's terms.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from service.api.body import decode
from service.api.openai.fields import Ignored, Metadata, Only, rename_fields
from service.api.openai.response_items import NOT_STORED, ChatMessages, Input
from service.api.openai.translate import Chat, ChatRequest, JsonFormat, StreamOptions, TextFormat
from service.errors import FieldError
from service.fail_fast import FAIL_FAST
from service.wire.model import BodyModel, WireModel
from service.wire.requests import BoundedSchema
from service.wire.tools import FunctionName

NAMES: Mapping[str, str] = {
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "tool_choice.function.name": "tool_choice.name",
}
"""The names of a chat completion's fields that have others here."""


class FunctionTool(WireModel):
    """``parameters``: the JSON schema of its arguments."""

    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: BoundedSchema | None = None
    strict: bool | None = None
    allowed_callers: Annotated[Any, Only(["direct"])] = None
    async_: Annotated[Any, Only(False)] = Field(None, alias="async")
    defer_loading: Annotated[Any, Only(False)] = None
    output_schema: Ignored = None

    def chat_tool(self) -> dict[str, Any]:
        stated = self.model_dump(include={"name", "description", "parameters", "strict"}, exclude_none=True)
        return {"type": "function", "function": stated}


class FunctionChoice(WireModel):
    type: Literal["function"]
    name: FunctionName


class SchemaTextFormat(WireModel):
    type: Literal["json_schema"]
    name: str
    schema_: dict[str, Any] = Field(alias="schema")
    description: Ignored = None
    strict: Ignored = None


class TextOptions(WireModel):
    format: Annotated[TextFormat | JsonFormat | SchemaTextFormat, Field(discriminator="type")] | None = None
    verbosity: Annotated[Any, Only("medium")] = None

    def chat_format(self) -> dict[str, Any] | None:
        match self.format:
            case SchemaTextFormat(name=name, schema_=schema):
                return {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}
            case None:
                return None
            case plain:
                return plain.model_dump()


class ReasoningOptions(WireModel):
    """An answer has the model's thoughts as they are, whatever is asked for."""

    effort: Annotated[Any, Only("none")] = None
    context: Ignored = None
    generate_summary: Ignored = None
    mode: Annotated[Any, Only("standard")] = None
    summary: Ignored = None


class ResponseRequest(BodyModel):
    """A response as OpenAI's clients ask for it. ``redraft``: fields of Redraft's own request; the bounds of the others
    are those of its fields too."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "scripted:refine", "input": "Why is the sky blue?"}]}
    )

    model: str
    input: Input
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    tools: Annotated[tuple[FunctionTool, ...], FAIL_FAST] | None = None
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice | None = None
    parallel_tool_calls: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    redraft: dict[str, Any] | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "default", "flex", "priority", "scale"] | None = None

    include: Annotated[tuple[Literal["reasoning.encrypted_content"], ...], FAIL_FAST] | None = Field(
        None, description="Ignored."
    )
    max_tool_calls: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None
    safety_identifier: Ignored = None
    store: Ignored = None
    user: Ignored = None

    access_programs: Annotated[Any, Only()] = None
    background_options: Annotated[Any, Only()] = None
    context_management: Annotated[Any, Only([])] = None
    conversation: Annotated[Any, Only(hint=NOT_STORED)] = None
    image: Annotated[Any, Only()] = None
    moderation: Annotated[Any, Only()] = None
    previous_response_id: Annotated[Any, Only(hint=NOT_STORED)] = None
    prompt: Annotated[Any, Only()] = None
    top_logprobs: Annotated[Any, Only(0)] = None
    truncation: Annotated[Any, Only("disabled")] = None

    def chat_fields(self, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The chat completion that it amounts to."""
        fields = {
            "model": self.model,
            "messages": messages,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_completion_tokens": self.max_output_tokens,
            "tools": [tool.chat_tool() for tool in self.tools] if self.tools else None,
            "tool_choice": self._chat_tool_choice(),
            "parallel_tool_calls": self.parallel_tool_calls,
            "response_format": self.text.chat_format() if self.text else None,
            "reasoning_effort": self.reasoning.effort if self.reasoning else None,
            "include_reasoning": True,
            "stream": self.stream,
            "redraft": self.redraft,
            "metadata": self.metadata,
            "service_tier": self.service_tier,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def stated_format(self) -> dict[str, Any]:
        """The text's form, as an answer repeats it."""
        stated = self.text.format if self.text else None
        return {"type": "text"} if stated is None else stated.model_dump(by_alias=True, exclude_none=True)

    def stated_tool_choice(self) -> Any:
        """The same for the choice of a tool."""
        choice = self.tool_choice
        return choice.model_dump() if isinstance(choice, FunctionChoice) else choice or "auto"

    def _chat_tool_choice(self) -> Any:
        if isinstance(self.tool_choice, FunctionChoice):
            return {"type": "function", "function": {"name": self.tool_choice.name}}
        return None if self.tool_choice == "auto" and not self.tools else self.tool_choice


@dataclass(frozen=True)
class StatedResponse:
    """A Responses request, and the chat completion that it amounts to. ``messages``: those of the chat."""

    request: ResponseRequest
    chat: Chat
    messages: ChatMessages

    @classmethod
    def from_request(cls, request: ResponseRequest, served: Sequence[str]) -> "StatedResponse":
        """Raises ModelNotFound, and InvalidRequest, which names the caller's fields."""
        messages = ChatMessages(request.instructions, request.input)
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
        return FieldError(field.replace(".function", "", 1), error.message)
    return FieldError(NAMES.get(field, field), error.message)
