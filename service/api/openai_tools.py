"""Tools in OpenAI's chat completions: what a request may say of them, and the body in which a server is asked.

The body is made anew of what was validated, so that nothing passes that Redraft does not know.
"""

from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import Field

from service.api.requests import BoundedSchema, FormFields, Message
from service.api.wire import WireModel
from service.engines.base import Sampling
from service.engines.relay import ChatBody
from service.fail_fast import FAIL_FAST
from service.tasks.overrides import SamplingOverrides

FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]

OfTheClient = Annotated[Any, Field(exclude=True)]
"""What OpenAI's SDK adds to a call that was streamed, and sends back."""


class Function(WireModel):
    """``parameters``: the JSON schema of its arguments."""

    name: FunctionName
    description: str | None = None
    parameters: BoundedSchema | None = None
    strict: bool | None = None


class Tool(WireModel):
    type: Literal["function"]
    function: Function


class FunctionReference(WireModel):
    name: FunctionName


class NamedTool(WireModel):
    type: Literal["function"]
    function: FunctionReference


Tools = Annotated[tuple[Tool, ...], Len(0, 128), FAIL_FAST]
ToolChoice = Literal["none", "auto", "required"] | NamedTool


class FunctionCall(WireModel):
    """``arguments``: JSON as the model wrote it, which need not be valid."""

    name: FunctionName
    arguments: str
    parsed_arguments: OfTheClient = None


class ToolCall(WireModel):
    """A call that an earlier answer made."""

    index: OfTheClient = None
    id: Annotated[str, Len(1, 200)]
    type: Literal["function"]
    function: FunctionCall


class ToolRequest(FormFields):
    """A chat with tools. ``messages`` are in OpenAI's words, made of validated ones, in whatever order they came.

    ``turns``: the same for engines that know no tools, unless there are calls among them.
    """

    model: str
    messages: Annotated[tuple[dict[str, Any], ...], Len(1, 256), FAIL_FAST]
    turns: Annotated[tuple[Message, ...], FAIL_FAST] = ()
    tools: Tools = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    sampling: SamplingOverrides = SamplingOverrides()
    reasoning: bool = False
    stream: bool = False

    @property
    def forced(self) -> tuple[Function, ...]:
        """The functions of which the model has to call one; none where it may also answer."""
        offered = tuple(tool.function for tool in self.tools)
        if isinstance(self.tool_choice, NamedTool):
            named = self.tool_choice.function.name
            return tuple(function for function in offered if function.name == named)[:1]
        return offered if self.tool_choice == "required" else ()

    def body(self, sampling: Sampling) -> ChatBody:
        schema = {"name": "reply", "schema": self.response_schema}
        stated = self.model_dump(include={"messages", "tool_choice", "parallel_tool_calls"})
        body = {
            **stated,
            "tools": [tool.model_dump(exclude_none=True) for tool in self.tools] or None,
            "response_format": None if self.response_schema is None else {"type": "json_schema", "json_schema": schema},
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.stated_tokens,
            "stop": sampling.stop or None,
            "seed": sampling.seed,
            "reasoning_effort": None if sampling.thinking else "none",
        }
        return {name: value for name, value in body.items() if value is not None}
