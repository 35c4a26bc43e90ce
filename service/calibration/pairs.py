"""Pairs of a right and a wrong reply to the same request, on which a judge is measured.

A file of pairs is JSON lines. A line has ``request`` (a text) or ``messages`` (a conversation), ``right`` and
``wrong``, and may have ``task`` and ``parameters``. The lines of ``bench/critic/data`` are read too: each of them has
two wrong replies, ``subtle`` and ``plain``, and gives two pairs.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

NonBlank = Annotated[str, Field(pattern=r"\S")]


class PairsError(ValueError):
    """A file of pairs that cannot be used. The message names the line and what is wrong."""


class _Lenient(BaseModel):
    """Other members are left alone: a line may have notes for people."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class Said(_Lenient):
    role: Literal["system", "user", "assistant"]
    content: str


class _Asked(_Lenient):
    request: NonBlank | None = None
    messages: Annotated[list[Said], Field(min_length=1)] | None = None
    task: str = "general"
    parameters: dict[str, str] = {}

    @model_validator(mode="after")
    def _require_one_request(self) -> "_Asked":
        if (self.request is None) == (self.messages is None):
            raise ValueError("give exactly one of request and messages")
        return self


class LabelledPair(_Asked):
    """A request with a right and a wrong reply."""

    right: str
    wrong: str

    @property
    def asked(self) -> Mapping[str, Any]:
        """The fields of a critique request that say what was asked."""
        turns = [turn.model_dump() for turn in self.messages or ()]
        asked: Mapping[str, Any] = {"messages": turns} if turns else {"prompt": self.request}
        return {**asked, "task": self.task, "parameters": self.parameters}


class _Reply(_Lenient):
    text: str


class _LabelledReplies(_Asked):
    right: _Reply
    subtle: _Reply
    plain: _Reply

    def pairs(self) -> Iterator[LabelledPair]:
        for wrong in (self.subtle, self.plain):
            yield LabelledPair(
                request=self.request,
                messages=self.messages,
                task=self.task,
                parameters=self.parameters,
                right=self.right.text,
                wrong=wrong.text,
            )


def read_pairs(text: str) -> Sequence[LabelledPair]:
    """Read the pairs of a file. Raises PairsError."""
    pairs = [
        pair for number, line in enumerate(text.split("\n"), 1) if line.strip() for pair in _read_line(number, line)
    ]
    if not pairs:
        raise PairsError("there is no pair")
    return pairs


def _read_line(number: int, line: str) -> Sequence[LabelledPair]:
    try:
        stated = json.loads(line)
        if isinstance(stated, dict) and "plain" in stated and "wrong" not in stated:
            return list(_LabelledReplies.model_validate(stated).pairs())
        return [LabelledPair.model_validate(stated)]
    except ValidationError as error:
        [first, *_] = error.errors(include_url=False, include_input=False)
        where = ".".join(map(str, first["loc"]))
        problem = first["msg"].removeprefix("Value error, ")
        raise PairsError(f"line {number}: {where + ': ' if where else ''}{problem}") from error
    except ValueError as error:
        raise PairsError(f"line {number} is not JSON: {error}") from error


def built_in_source() -> str:
    """The file of the built-in pairs, as a text."""
    return files(__package__).joinpath("built_in.jsonl").read_text(encoding="utf-8")
