"""Texts that were collected for prompts: the material of lessons, as lines of a file."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from service.engines.base import FinishReason
from service.learning.prompts import Prompt
from service.whole_files import write_whole

Source = Literal["free", "constrained", "repair", "revision", "edit", "given"]
"""How a text was made: sampled freely, sampled under a grammar, repaired by code, revised by a model that was shown
more than the prompt, edited by a person, or given as it is, by a file or by a request."""

Rating = Literal["up", "down"]

M = TypeVar("M", bound=BaseModel)


class DamagedFile(ValueError):
    """A file that cannot be used. The message names the file and the line."""


class Text(BaseModel):
    """A text for a prompt.

    parent: the position, among the prompt's texts, of the one that it was made from.
    token_ids: as sampled, without the end token; None for a text that was not sampled, or by another model.
    rating: a person's thumb.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    source: Source
    finish_reason: FinishReason = "stop"
    parent: int | None = None
    token_ids: tuple[int, ...] | None = None
    rating: Rating | None = None


class Preference(BaseModel):
    """A person's word that one text is better than another."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chosen: int
    rejected: int


class Collected(BaseModel):
    """A prompt with its texts, and what people said of them.

    trace: the id of the stored trace that has them; empty if none has.
    client: the caller whose trace it is, by the name of a key; empty for practice, for the operator's own files, and
    for callers whom the operator trusts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Prompt
    texts: tuple[Text, ...]
    preferences: tuple[Preference, ...] = ()
    trace: str = ""
    client: str = ""


def read_lines(path: Path, kind: type[M]) -> Sequence[M]:
    """The values of a file, one for each line of JSON. Raises DamagedFile."""
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # texts may hold other line ends
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedFile(f"{path} cannot be read: {type(error).__name__}") from error
    return list(_parse(path, lines if lines != [""] else [], kind))


def write_lines(path: Path, values: Iterable[BaseModel]) -> None:
    """Write a file of lines of JSON; it appears whole or not at all. OSError if it cannot be written."""
    write_whole(path, "".join(f"{json.dumps(value.model_dump(mode='json'), ensure_ascii=False)}\n" for value in values))


def _parse(path: Path, lines: Sequence[str], kind: type[M]) -> Iterator[M]:
    for number, line in enumerate(lines, 1):
        try:
            yield kind.model_validate_json(line)
        except ValidationError as error:
            [first, *_] = error.errors(include_url=False, include_input=False)
            where = ".".join(map(str, first["loc"]))
            raise DamagedFile(f"{path}, line {number}: {where + ': ' if where else ''}{first['msg']}") from error
