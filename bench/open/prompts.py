"""The open requests: nothing that they say can be checked by a rule, but whether the answer is right can.

The keys are kept from the service while it refines. The license of the prompts is the project's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Gt, Le, Len
from pydantic import TypeAdapter

FILE = Path(__file__).with_name("prompts.jsonl")

Key = Mapping[str, Any]
"""A verifier as a request states it: docs/reference/api.md, "Evaluators"."""


@dataclass(frozen=True, kw_only=True)
class OpenPrompt:
    """One request. key: the verifiers that a right answer passes. solution: a text written by hand that passes them."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    id: Annotated[str, Len(1)]
    task: Annotated[str, Len(1)]
    prompt: Annotated[str, Len(1)]
    parameters: Mapping[str, str] = field(default_factory=dict)
    key: Annotated[tuple[Key, ...], Len(1)]
    max_tokens: Annotated[int, Gt(0), Le(200)]
    solution: Annotated[str, Len(1)]

    def request(self) -> dict[str, Any]:
        """What the service may see."""
        return {"task": self.task, "prompt": self.prompt, "parameters": dict(self.parameters)}


_LINE = TypeAdapter(OpenPrompt)


def load_prompts(file: Path = FILE) -> Sequence[OpenPrompt]:
    """Pydantic's ValidationError if a line is not a prompt."""
    return [_LINE.validate_json(line) for line in file.read_text(encoding="utf-8").splitlines()]
