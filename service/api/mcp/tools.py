"""The tools that agents may call, each an endpoint of Redraft's under its own name."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp_types import TextContent, Tool, ToolAnnotations
from pydantic import BaseModel

from service.wire.requests import CritiqueRequest, GenerateRequest, NativeRequest, RefineRequest
from service.wire.responses import CritiqueResponse, GenerateResponse, RefineResponse

NOT_FOR_AGENTS = frozenset({"stream", "deltas", "reasoning"})
"""Fields of requests that a tool's arguments lack: the answer comes whole, with progress before it."""
EVALUATOR = "An evaluator: its type, and the fields that the resource redraft://evaluators/{type} describes."


@dataclass(frozen=True)
class Endpoint:
    """An endpoint as a tool. ``text``: the field of the answer that a reader without its schema needs."""

    name: str
    title: str
    description: str
    request: type[NativeRequest]
    response: type[BaseModel]

    def tool(self) -> Tool:
        """What is listed. An evaluator's own fields are left out: they would take more than all else."""
        return Tool(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=_arguments(self.request),
            output_schema=self.response.model_json_schema(mode="serialization"),
            annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
        )


ENDPOINTS: Mapping[str, Endpoint] = {
    endpoint.name: endpoint
    for endpoint in (
        Endpoint(
            "refine",
            "Write a text and improve it",
            "Draft a text for a prompt, evaluate it, feed the result back, revise it, and return the best version with "
            "an account of all rounds. State rules that code can verify in `evaluators`. A text that you have already "
            "goes into `draft`.",
            RefineRequest,
            RefineResponse,
        ),
        Endpoint(
            "critique",
            "Evaluate a text",
            "Score the text in `candidate` as an answer to a prompt, verify the rules in `evaluators`, and say what "
            "should change.",
            CritiqueRequest,
            CritiqueResponse,
        ),
        Endpoint(
            "generate",
            "Write a text once",
            "Write one or more texts for a prompt, without feedback.",
            GenerateRequest,
            GenerateResponse,
        ),
    )
}


def text_of(answer: BaseModel) -> TextContent:
    """The answer for clients that read no structured content."""
    match answer:
        case RefineResponse(text=text):
            return TextContent(text=text)
        case GenerateResponse(choices=choices):
            return TextContent(text="\n\n".join(choice.text for choice in choices))
        case _:
            return TextContent(text=answer.model_dump_json())


def evaluator_schemas() -> Mapping[str, dict[str, Any]]:
    """The JSON schema of each kind of evaluator that a request may hold, by its type."""
    whole = RefineRequest.model_json_schema()
    items = whole["properties"]["evaluators"]["items"]
    found = {}
    for kind, reference in items["discriminator"]["mapping"].items():
        name = reference.rpartition("/")[2]
        schema = dict(whole["$defs"][name])
        if nested := _referenced(schema, whole["$defs"]):
            schema["$defs"] = nested
        found[kind] = schema
    return found


def _arguments(request: type[NativeRequest]) -> dict[str, Any]:
    """The schema of a tool's arguments."""
    schema = request.model_json_schema()
    definitions = schema.pop("$defs", {})
    schema.pop("examples", None)
    properties = {name: value for name, value in schema["properties"].items() if name not in NOT_FOR_AGENTS}
    if (evaluators := properties.get("evaluators")) is not None:
        kinds = list(evaluators["items"]["discriminator"]["mapping"])
        of_a_type = {"type": {"type": "string", "enum": kinds}}
        item = {"type": "object", "properties": of_a_type, "required": ["type"], "description": EVALUATOR}
        properties["evaluators"] = {**evaluators, "items": item}
    made = {**schema, "properties": properties}
    if nested := _referenced(made, definitions):
        made["$defs"] = nested
    return made


def _referenced(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """The definitions that a schema refers to, directly or through others."""
    found: dict[str, Any] = {}
    waiting = [json.dumps(schema)]
    while waiting:
        text = waiting.pop()
        for name, definition in definitions.items():
            if name not in found and f'"#/$defs/{name}"' in text:
                found[name] = definition
                waiting.append(json.dumps(definition))
    return found
