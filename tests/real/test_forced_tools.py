"""The real engine, which knows no tools, makes the calls that it is made to make."""

import json
from typing import Any

import jsonschema
import pytest

from tests.real.conftest import Service

PARAMETERS = {
    "type": "object",
    "properties": {"warm": {"type": "boolean"}, "degrees": {"type": "integer", "minimum": 0, "maximum": 40}},
    "required": ["warm", "degrees"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "It tells.", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "time"}},
]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
async def test_a_call_that_is_insisted_on_fits_its_schema(service: Service, choice: Any) -> None:
    request = {
        "model": service.engine.model,
        "messages": [{"role": "user", "content": "How warm is Oslo?"}],
        "tools": TOOLS,
        "tool_choice": choice,
        "temperature": 1.2,
        "seed": 11,
    }
    response = await service.client.post("/v1/chat/completions", json=request)

    assert response.status_code == 200, response.text
    [call] = response.json()["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] in ("weather", "time")
    schema = PARAMETERS if call["function"]["name"] == "weather" else {"const": {}}
    jsonschema.Draft202012Validator(schema).validate(json.loads(call["function"]["arguments"]))
