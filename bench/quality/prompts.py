"""The prompts of the quality benchmark: one JSON object a line, one file a task, in the folder ``prompts``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Gt, Le, Len
from pydantic import TypeAdapter

_STRICT: dict[str, Any] = {"extra": "forbid", "strict": True}
_FOLDER = Path(__file__).parent / "prompts"

StatedVerifier = Mapping[str, Any]
"""A verifier as a request states it: docs/reference/api.md, "Evaluators"."""


@dataclass(frozen=True, kw_only=True)
class Message:
    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Len(1)]


@dataclass(frozen=True, kw_only=True)
class BenchPrompt:
    """A request whose answer can be verified.

    ``evaluators`` are shown to the service. ``hidden`` are not: their rules are stated to the writer in words, as those
    of the others are, so a text that follows the prompt passes them, and one that only pleases the shown ones may not.
    ``reveals_answer``: a shown verifier is the answer key itself, so its feedback gives the answer away.
    ``solution``: a text written by hand that passes them all.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    id: Annotated[str, Len(1)]
    task: Annotated[str, Len(1)]
    prompt: Annotated[str, Len(1)] | None = None
    messages: Annotated[tuple[Message, ...], Len(1)] | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    evaluators: Annotated[tuple[StatedVerifier, ...], Len(1)]
    hidden: tuple[StatedVerifier, ...] = ()
    max_tokens: Annotated[int, Gt(0), Le(200)]
    reveals_answer: bool = False
    solution: Annotated[str, Len(1)]

    def __post_init__(self) -> None:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give exactly one of prompt and messages")

    def request(self) -> dict[str, Any]:
        """The body of a refine request: what the service may see."""
        if self.messages is None:
            asked: dict[str, Any] = {"prompt": self.prompt}
        else:
            asked = {"messages": [{"role": message.role, "content": message.content} for message in self.messages]}
        return {
            "task": self.task,
            **asked,
            "parameters": dict(self.parameters),
            "evaluators": [dict(verifier) for verifier in self.evaluators],
            "sampling": {"max_tokens": self.max_tokens},
        }


_LINE = TypeAdapter(BenchPrompt)


def load_prompts(folder: Path = _FOLDER) -> Sequence[BenchPrompt]:
    """Every prompt, by task and in the order of its file. Pydantic's ValidationError if a line is not a prompt."""
    return [
        _LINE.validate_json(line)
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
