"""Tools in OpenAI's chat completions: what a request may say of them, and the body in which a server is asked.

The body is built again from what was validated, so that nothing passes that Redraft does not know.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import Field

from service.engines.base import Sampling
from service.engines.relay import ChatBody
from service.errors import InvalidRequest, wrong_field
from service.evaluators.base import RefusedField
from service.evaluators.text.patterns import MAX_WORK, TooMuchToCompile, limit_compiling
from service.evaluators.text.schema import FollowsSchema
from service.fail_fast import FAIL_FAST
from service.tasks.overrides import SamplingOverrides
from service.wire.model import WireModel
from service.wire.requests import SCHEMA_WORK, BoundedSchema, FormFields, Message, form_of

FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]

NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
MOST_FORCED = 40
"""The most functions of which a call can be forced: each has a schema that is compiled for one request."""

OfTheClient = Annotated[Any, Field(exclude=True)]
"""What OpenAI's SDK adds to a call that was streamed, and sends back."""


class Function(WireModel):
    """``parameters``: the JSON schema of its arguments."""

    name: FunctionName
    description: str | None = None
    parameters: BoundedSchema | None = None
    strict: bool | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The schema of the arguments, which are always an object."""
        return {"type": "object", **(self.parameters or NO_ARGUMENTS)}


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
    def forced(self) -> Mapping[int, Function]:
        """The functions of which the model has to call one, by their places; none where it may also answer."""
        offered = {index: tool.function for index, tool in enumerate(self.tools)}
        if isinstance(self.tool_choice, NamedTool):
            named = self.tool_choice.function.name
            places = [index for index, function in offered.items() if function.name == named]
            return {index: offered[index] for index in places[:1]}
        return offered if self.tool_choice == "required" else {}

    def forced_forms(self) -> Sequence[FollowsSchema]:
        """What holds the arguments of each forced function against their schema. It takes long: call it in a thread.

        Raises InvalidRequest, which names a schema that no grammar holds a text to.
        """
        if len(self.forced) > MOST_FORCED:
            raise wrong_field("tools", f"the engine here can be made to call one of at most {MOST_FORCED} functions")
        try:
            with limit_compiling(MOST_FORCED * SCHEMA_WORK + MAX_WORK):
                return [
                    form_of(function.arguments, f"tools.{index}.function.parameters")
                    for index, function in self.forced.items()
                ]
        except RefusedField as error:
            raise wrong_field(error.field, str(error)) from None
        except TooMuchToCompile:
            raise InvalidRequest("the patterns and schemas of the request take too long to compile") from None

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
