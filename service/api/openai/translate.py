"""OpenAI's chat completion requests in Redraft's terms: what is followed, what is ignored and what is refused.

The model's name says what is wanted: that of the served model alone generates, with ``:refine`` after it refines with
the task's own search, with ``:`` and a preset with that preset.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from service.api.body import decode
from service.api.openai.fields import Ignored, Metadata, Only, rename_fields
from service.errors import FieldError, ModelNotFound, wrong_field
from service.evaluators.base import RefusedField
from service.fail_fast import FAIL_FAST
from service.refinement.program import PRESETS
from service.wire.model import BodyModel, WireModel
from service.wire.parts import Content, TextPart
from service.wire.requests import GenerateRequest, RefineRequest
from service.wire.tools import NamedTool, ToolCall, ToolChoice, ToolRequest, Tools

MODES: Mapping[str, str | None] = MappingProxyType(
    {"refine": None, **{preset.replace("_", "-"): preset for preset in PRESETS}}
)
"""What may follow the served model's name, and the preset that it stands for."""

_ROLES = {"developer": "system"}
_FORMS = '{"type": "text", "text": "…"} and {"type": "image_url", "image_url": {"url": "…"}}'

GENERATE_FIELDS = frozenset({"task", "parameters"})
_OTHERWISE_NAMED = {"prompt", "messages", "model", "sampling", "stream", "deltas", "reasoning", "store"}
REFINE_FIELDS = RefineRequest.model_fields.keys() - _OTHERWISE_NAMED
"""What ``redraft`` may hold. OpenAI has its own names for the other fields of Redraft's requests, or none
that fits."""


def _join_texts(content: Any) -> Any:
    """The texts of a message's parts as one, unless there are images among them; no content is an empty text."""
    if content is None:
        return ""
    if not isinstance(content, list) or any(_type_of(part) == "image_url" for part in content):
        return content
    texts = []
    for index, part in enumerate(content):
        try:
            texts.append(TextPart.model_validate(part).text)
        except ValidationError:
            raise RefusedField(str(index), f"only parts of these forms are taken: {_FORMS}") from None
    return "".join(texts)


def _type_of(part: Any) -> Any:
    return part.get("type") if isinstance(part, dict) else None


class ChatMessage(WireModel):
    """A message as a request states it; an assistant's as an earlier answer had it, a tool's to one of its calls."""

    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: Annotated[Any, BeforeValidator(_join_texts, json_schema_input_type=Content | None)] = ""
    name: Ignored = None
    annotations: Ignored = None
    parsed: Ignored = None
    refusal: Annotated[Any, Only()] = None
    audio: Annotated[Any, Only()] = None
    tool_calls: Annotated[tuple[ToolCall, ...], FAIL_FAST] | None = None
    tool_call_id: str | None = None
    function_call: Annotated[Any, Only()] = None
    reasoning_content: str | None = None
    reasoning: Ignored = None

    @property
    def engine_role(self) -> str:
        return _ROLES.get(self.role, self.role)

    def relayed(self) -> dict[str, Any]:
        """The message for a server that knows tools."""
        made: dict[str, Any] = {"role": self.engine_role, "content": self.content}
        if self.tool_calls:
            made |= {"content": self.content or None, "tool_calls": [call.model_dump() for call in self.tool_calls]}
        if self.tool_call_id is not None:
            made["tool_call_id"] = self.tool_call_id
        if self.reasoning_content:
            made["reasoning_content"] = self.reasoning_content  # models go on thinking between their calls
        return made


class NamedSchema(WireModel):
    name: str
    description: Ignored = None
    strict: Ignored = None
    schema_: dict[str, Any] = Field(alias="schema")


class TextFormat(WireModel):
    type: Literal["text"]


class JsonFormat(WireModel):
    type: Literal["json_object"]


class SchemaFormat(WireModel):
    type: Literal["json_schema"]
    json_schema: NamedSchema


class StreamOptions(WireModel):
    include_usage: bool | None = None
    include_obfuscation: Ignored = None


class ChatRequest(BodyModel):
    """A chat completion as OpenAI's clients ask for it. ``redraft``: fields of Redraft's own request; the bounds of the
    others are those of its fields too."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "scripted", "messages": [{"role": "user", "content": "Why is the sky blue?"}]},
                {
                    "model": "scripted:refine",
                    "messages": [{"role": "user", "content": "Why is the sky blue?"}],
                    "redraft": {"evaluators": [{"type": "length", "unit": "words", "max": 40}]},
                },
            ],
        }
    )

    model: str
    messages: Annotated[tuple[ChatMessage, ...], FAIL_FAST]
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | Annotated[tuple[str, ...], FAIL_FAST] | None = None
    seed: int | None = None
    n: int | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: Annotated[TextFormat | JsonFormat | SchemaFormat, Field(discriminator="type")] | None = None
    include_reasoning: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    redraft: dict[str, Any] | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "default", "flex", "priority", "scale"] | None = None

    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None
    safety_identifier: Ignored = None
    store: Ignored = None
    user: Ignored = None

    audio: Annotated[Any, Only()] = None
    frequency_penalty: Annotated[Any, Only(0)] = None
    function_call: Annotated[Any, Only("none")] = None
    functions: Annotated[Any, Only([])] = None
    logit_bias: Annotated[Any, Only({})] = None
    logprobs: Annotated[Any, Only(False)] = None
    modalities: Annotated[Any, Only(["text"])] = None
    moderation: Annotated[Any, Only()] = None
    prediction: Annotated[Any, Only()] = None
    presence_penalty: Annotated[Any, Only(0)] = None
    reasoning_effort: Annotated[Any, Only("none")] = None
    top_logprobs: Annotated[Any, Only(0)] = None
    verbosity: Annotated[Any, Only()] = None
    web_search_options: Annotated[Any, Only()] = None

    @property
    def is_flex(self) -> bool:
        """Whether the request may wait behind others, as the lines of batches do."""
        return self.service_tier == "flex"

    @property
    def tools_field(self) -> str | None:
        """The first field that makes this a chat with tools, if any."""
        if self.tools:
            return "tools"
        for index, message in enumerate(self.messages):
            if message.role == "tool":
                return f"messages.{index}.role"
            if message.tool_calls:
                return f"messages.{index}.tool_calls"
        return None


def model_names(served: Sequence[str]) -> list[str]:
    """What a request may name as its model."""
    return [name for model in served for name in (model, *(f"{model}:{mode}" for mode in MODES))]


def parse_model_name(name: str, served: Sequence[str]) -> tuple[str, str | None]:
    """The served model that a request names, and the key of MODES after its name, if any. Raises ModelNotFound."""
    if name in served:
        return name, None
    model, _, mode = name.rpartition(":")
    mode = mode.replace("_", "-")
    if model in served and mode in MODES:
        return model, mode
    raise ModelNotFound(f"there is no such model; there are {', '.join(model_names(served))}")


@dataclass(frozen=True)
class Chat:
    """A request for a chat completion, and Redraft's request that it amounts to.

    ``names``: the caller's names for fields of ``translated``; the others are in ``redraft``.
    """

    request: ChatRequest
    translated: GenerateRequest | RefineRequest | ToolRequest
    names: Mapping[str, str]

    @classmethod
    def from_request(cls, request: ChatRequest, served: Sequence[str]) -> "Chat":
        """Raises ModelNotFound, and InvalidRequest, which names the caller's fields."""
        model, mode = parse_model_name(request.model, served)
        _refuse_strays(request, mode)
        _refuse_stray_tools(request, mode)
        kind = _kind(request, mode)
        fields, names = _translate(request, model, mode, kind)
        body = json.dumps(fields).encode()
        with name_callers_fields(names):
            return cls(request, decode(kind, body, None), names)


def _kind(request: ChatRequest, mode: str | None) -> type[GenerateRequest] | type[RefineRequest] | type[ToolRequest]:
    if mode is not None:
        return RefineRequest
    return ToolRequest if request.tools_field else GenerateRequest


def name_callers_fields(names: Mapping[str, str]) -> AbstractContextManager[None]:
    """Let an InvalidRequest name the fields as the caller did."""
    return rename_fields(partial(_name_as_caller, names))


def _name_as_caller(names: Mapping[str, str], error: FieldError) -> FieldError:
    """``response_format`` is named as a whole, as OpenAI's own errors name it."""
    named, _, inner = _callers_name(error.field, names).partition("response_format.")
    return FieldError("response_format", f"{inner}: {error.message}") if inner else FieldError(named, error.message)


def _callers_name(field: str, names: Mapping[str, str]) -> str:
    for ours, theirs in names.items():
        if f"{field}.".startswith(f"{ours}."):
            return theirs + field.removeprefix(ours)
    return f"redraft.{field}"


def _refuse_strays(request: ChatRequest, mode: str | None) -> None:
    """Refuse what the model does not take."""
    takes = GENERATE_FIELDS if mode is None else REFINE_FIELDS
    for name in request.redraft or {}:
        if name not in takes:
            hint = f"only a model that refines takes it, such as {request.model}:refine"
            reason = hint if name in REFINE_FIELDS else "there is no such field here"
            raise wrong_field(f"redraft.{name}", reason)
    if mode is not None and request.n not in (None, 1):
        raise wrong_field("n", "a model that refines answers with one text")
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise wrong_field("max_tokens", "max_completion_tokens is given too and means the same")


def _refuse_stray_tools(request: ChatRequest, mode: str | None) -> None:
    """Refuse what does not belong to tools, or tools where there are none."""
    for index, message in enumerate(request.messages):
        if "content" not in message.model_fields_set and not message.tool_calls:
            raise wrong_field(f"messages.{index}.content", "only an assistant that calls tools may leave it out")
        if message.tool_calls and message.role != "assistant":
            raise wrong_field(f"messages.{index}.tool_calls", "only an assistant's message has tool calls")
        if (message.tool_call_id is not None) != (message.role == "tool"):
            raise wrong_field(f"messages.{index}.tool_call_id", "a tool's message has it, and no other")
    if request.tool_choice not in (None, "none"):
        offered = {tool.function.name for tool in request.tools or ()}
        if not offered:
            raise wrong_field("tool_choice", "there are no tools to choose from")
        if isinstance(request.tool_choice, NamedTool) and request.tool_choice.function.name not in offered:
            raise wrong_field("tool_choice.function.name", "there is no such tool")
    if (field := request.tools_field) is None:
        return
    if mode is not None:
        raise wrong_field(field, "a model that refines calls no tools: name the model alone")
    for index, message in enumerate(request.messages):
        if not isinstance(message.content, str):
            raise wrong_field(f"messages.{index}.content", "with tools it holds texts only")
    if request.n not in (None, 1):
        raise wrong_field("n", "with tools there is one answer")
    for name in request.redraft or {}:
        raise wrong_field(f"redraft.{name}", "with tools the messages go to the model as they are")


def _translate(
    request: ChatRequest, model: str, mode: str | None, kind: type[WireModel]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields of Redraft's request, and the caller's names for them."""
    limit = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    sampling = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": getattr(request, limit),
        "stop": (request.stop,) if isinstance(request.stop, str) else request.stop,
        "seed": request.seed,
        "thinking": False if request.reasoning_effort == "none" else None,
    }
    names = {f"sampling.{name}": name for name in sampling}
    names |= {name: name for name in ("model", "messages", "n")}
    names |= {"sampling.max_tokens": limit, "response_schema": "response_format"}
    fields = {
        "model": model,
        "messages": _messages(request.messages),
        "sampling": sampling,
        "stream": bool(request.stream),
        "reasoning": bool(request.include_reasoning),
    }
    own, schema = request.redraft or {}, _schema(request)
    if kind is ToolRequest:
        stated = request.model_dump(include={"tools", "tool_choice", "parallel_tool_calls"}, exclude_none=True)
        if not any(message.tool_calls or message.role == "tool" for message in request.messages):
            fields["turns"] = _messages(request.messages)
        fields |= {**stated, "messages": [message.relayed() for message in request.messages], "response_schema": schema}
        return fields, names | {name: name for name in stated}
    if mode is None:
        return {**fields, **own, "n": 1 if request.n is None else request.n, "response_schema": schema}, names
    search, evaluators = own.get("search", {}), own.get("evaluators", [])
    if isinstance(search, dict):
        search = {"preset": MODES[mode], **search}
    if isinstance(evaluators, list) and schema is not None:
        names[f"evaluators.{len(evaluators)}.schema"] = "response_format"
        evaluators = [*evaluators, {"type": "json_schema", "schema": schema}]
    return {**fields, "trace": False, **own, "search": search, "evaluators": evaluators}, names


def _messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Messages as chat apps send them, for templates that do not take them all.

    Those of one role in a row are one, joined by a blank line. What the system says later than at the start is the
    user's: then its place is kept.
    """
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = message.engine_role
        if role == "system" and turns and turns[-1]["role"] != "system":
            role = "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] = _join(turns[-1]["content"], message.content)
        else:
            turns.append({"role": role, "content": message.content})
    return turns


def _join(first: Any, second: Any) -> Any:
    """Two contents as one, in parts if one of them is."""
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*_parts(first), *_parts("\n\n"), *_parts(second)]


def _parts(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _schema(request: ChatRequest) -> dict[str, Any] | None:
    match request.response_format:
        case SchemaFormat(json_schema=named):
            return named.schema_
        case JsonFormat():
            return {"type": "object"}
        case _:
            return None
