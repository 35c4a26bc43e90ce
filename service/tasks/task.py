"""Tasks: what kind of text is wanted, each in one TOML file. The built-in ones lie beside this module.

A file may leave out prompts and criteria; they are then those of the built-in ``general``.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Len
from pydantic import BaseModel, ConfigDict, ValidationError

from service.engines.base import Sampling
from service.evaluators.catalogue import AnyEvaluator
from service.evaluators.judge import Criterion
from service.refinement.program import Search, Stop
from service.refinement.prompts import PromptError, Prompts
from service.tasks.overrides import Preset, SamplingOverrides, SearchOverrides, StopOverrides


class TaskError(ValueError):
    """A task file that cannot be used; the message names the file and what is wrong in it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Parameter(_Strict):
    """A value that a request gives beside its prompt; one without a default must be given."""

    description: str
    default: str | None = None


class _Defaults(_Strict):
    sampling: SamplingOverrides = SamplingOverrides()
    search: SearchOverrides = SearchOverrides()
    stop: StopOverrides = StopOverrides()


class _TaskFile(_Strict):
    description: Annotated[str, Len(1)]
    parameters: dict[str, Parameter] = {}
    prompts: dict[str, str] = {}
    criteria: tuple[Criterion, ...] = ()
    evaluators: tuple[AnyEvaluator, ...] = ()
    principles: tuple[str, ...] = ()
    defaults: _Defaults = _Defaults()
    example: dict[str, Any]


@dataclass(frozen=True)
class Task:
    """``example``: a refine request without its ``task``, that works as it stands."""

    name: str
    description: str
    parameters: Mapping[str, Parameter]
    prompts: Prompts
    criteria: Sequence[Criterion]
    evaluators: Sequence[AnyEvaluator]
    principles: Sequence[str]
    sampling: Sampling
    preset: Preset | None
    search: Search
    stop: Stop
    example: Mapping[str, Any]


def load_tasks(folder: Path | None = None) -> Mapping[str, Task]:
    """The built-in tasks and those of ``folder``, by name; a file there replaces a built-in task of its name."""
    entries = files(__package__).iterdir()
    sources = {entry.name: entry.read_bytes() for entry in entries if entry.name.endswith(".toml")}
    general = _parsed("general.toml", sources["general.toml"])
    if folder is not None:
        if not folder.is_dir():
            raise TaskError(f"{folder} is not a folder")
        sources |= {path.name: path.read_bytes() for path in sorted(folder.glob("*.toml"))}
    parsed = {file: _parsed(file, source) for file, source in sorted(sources.items())}
    return {file.removesuffix(".toml"): _task(file, content, general) for file, content in parsed.items()}


def _parsed(file: str, source: bytes) -> _TaskFile:
    try:
        # By way of JSON, whose arrays are tuples even to a strict model.
        return _TaskFile.model_validate_json(json.dumps(tomllib.loads(source.decode())))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        raise TaskError(f"{file}: {problems}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError) as error:
        raise TaskError(f"{file}: {error}") from error


def _task(file: str, content: _TaskFile, general: _TaskFile) -> Task:
    try:
        prompts = Prompts.compiled({**general.prompts, **content.prompts})
    except PromptError as error:
        raise TaskError(f"{file}: {error}") from error
    if undeclared := prompts.parameters - content.parameters.keys():
        raise TaskError(f"{file}: the template 'draft' uses undeclared parameters: {', '.join(sorted(undeclared))}")
    return Task(
        name=file.removesuffix(".toml"),
        description=content.description,
        parameters=content.parameters,
        prompts=prompts,
        criteria=content.criteria or general.criteria,
        evaluators=content.evaluators,
        principles=content.principles or general.principles,
        sampling=content.defaults.sampling.applied_to(Sampling()),
        preset=content.defaults.search.preset,
        search=content.defaults.search.applied_to(Search()),
        stop=content.defaults.stop.applied_to(Stop()),
        example=content.example,
    )
