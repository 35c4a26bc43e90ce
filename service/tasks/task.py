"""Tasks: the kinds of text that can be requested, each in one TOML file. The built-in ones are next to this module.

Prompts and criteria that a file leaves out come from the built-in task ``general``. The folder ``rubrics`` has
additional criteria for texts of any task, again each rubric in one TOML file.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeVar

from annotated_types import Len
from pydantic import BaseModel, ConfigDict, ValidationError

from service.engines.base import Sampling
from service.evaluators.base import Evaluator, RefusedField
from service.evaluators.catalogue import AnyEvaluator
from service.evaluators.model.judge import Criterion
from service.evaluators.toolbox import Toolbox
from service.fail_fast import FAIL_FAST
from service.refinement.program import Search, Stop
from service.refinement.prompts import PromptError, Prompts
from service.tasks.overrides import Preset, SamplingOverrides, SearchOverrides, StopOverrides


class TaskError(ValueError):
    """A file of a task or a rubric that cannot be used. The message names the file and what is wrong."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Parameter(_Strict):
    """A value that a request gives in addition to its prompt. Without a default it is required."""

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
    criteria: Annotated[tuple[Criterion, ...], FAIL_FAST] = ()
    evaluators: Annotated[tuple[AnyEvaluator, ...], FAIL_FAST] = ()
    principles: Annotated[tuple[str, ...], FAIL_FAST] = ()
    rubrics: Annotated[tuple[str, ...], FAIL_FAST] = ()
    defaults: _Defaults = _Defaults()
    example: dict[str, Any]


class _RubricFile(_Strict):
    description: Annotated[str, Len(1)]
    principles: Annotated[tuple[Annotated[str, Len(1)], ...], Len(1), FAIL_FAST]
    criteria: Annotated[tuple[Criterion, ...], Len(1, 16), FAIL_FAST]


_File = TypeVar("_File", _TaskFile, _RubricFile)


@dataclass(frozen=True)
class Rubric:
    """Additional requirements for texts of any task: principles for the critic, and criteria for the judge."""

    name: str
    description: str
    principles: Sequence[str]
    criteria: Sequence[Criterion]


@dataclass(frozen=True)
class Task:
    """A kind of text: its prompts, evaluators and defaults. ``example``: a complete refine request without ``task``."""

    name: str
    description: str
    parameters: Mapping[str, Parameter]
    prompts: Prompts
    criteria: Sequence[Criterion]
    evaluators: Sequence[Evaluator]
    principles: Sequence[str]
    rubrics: Sequence[Rubric]
    sampling: Sampling
    preset: Preset | None
    search: Search
    stop: Stop
    example: Mapping[str, Any]


def load_tasks(
    folder: Path | None = None, *, rubrics: Mapping[str, Rubric] | None = None, tools: Toolbox | None = None
) -> Mapping[str, Task]:
    """Load the built-in tasks and those in a folder, by name. Raises TaskError if a file cannot be used.

    folder: has TOML files; one with the name of a built-in task replaces it.
    rubrics: those that tasks may name, by default the result of ``load_rubrics``.
    tools: what their evaluators may need.

    >>> load_tasks()["translate"].parameters.keys()
    dict_keys(['target_language'])
    """
    tools = tools or Toolbox()
    rubrics = load_rubrics(folder) if rubrics is None else rubrics
    built_in = _read_built_in("")
    general = _parse(_TaskFile, "general.toml", built_in["general.toml"])
    sources = built_in | _read_folder(folder, "")
    parsed = {file: _parse(_TaskFile, file, source) for file, source in sorted(sources.items())}
    return {_name(file): _make_task(file, content, general, rubrics, tools) for file, content in parsed.items()}


def load_rubrics(folder: Path | None = None) -> Mapping[str, Rubric]:
    """Load the built-in rubrics and those in the folder's subfolder ``rubrics``, by name. A file there replaces the
    built-in rubric of its name. Raises TaskError if a file cannot be used."""
    sources = _read_built_in("rubrics") | _read_folder(folder, "rubrics")
    parsed = {file: _parse(_RubricFile, f"rubrics/{file}", source) for file, source in sorted(sources.items())}
    return {
        _name(file): Rubric(_name(file), content.description, content.principles, content.criteria)
        for file, content in parsed.items()
    }


def _read_built_in(part: str) -> dict[str, bytes]:
    entries = files(__package__).joinpath(part).iterdir()
    return {entry.name: entry.read_bytes() for entry in entries if entry.name.endswith(".toml")}


def _read_folder(folder: Path | None, part: str) -> dict[str, bytes]:
    if folder is None:
        return {}
    if not folder.is_dir():
        raise TaskError(f"{folder} is not a folder")
    return {path.name: _read(path) for path in folder.joinpath(part).glob("*.toml")}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:  # a folder, a broken link, a file that may not be read
        raise TaskError(f"{path}: it cannot be read: {error.strerror}") from error


def _name(file: str) -> str:
    return file.removesuffix(".toml")


def _parse(model: type[_File], file: str, source: bytes) -> _File:
    try:
        # Through JSON, because a strict model takes an array of JSON as a tuple.
        return model.model_validate_json(json.dumps(tomllib.loads(source.decode())))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        raise TaskError(f"{file}: {problems}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError) as error:
        raise TaskError(f"{file}: {error}") from error
    except RecursionError as error:
        raise TaskError(f"{file}: nested too deeply") from error


def _make_task(
    file: str, content: _TaskFile, general: _TaskFile, rubrics: Mapping[str, Rubric], tools: Toolbox
) -> Task:
    try:
        prompts = Prompts.compile({**general.prompts, **content.prompts}, content.parameters)
        evaluators = tuple(evaluator.resolve(tools) for evaluator in content.evaluators)
    except (PromptError, RefusedField) as error:
        raise TaskError(f"{file}: {error}") from error
    if unknown := [name for name in content.rubrics if name not in rubrics]:
        raise TaskError(f"{file}: rubrics: unknown: {', '.join(unknown)}; known: {', '.join(rubrics)}")
    return Task(
        name=_name(file),
        description=content.description,
        parameters=content.parameters,
        prompts=prompts,
        criteria=content.criteria or general.criteria,
        evaluators=evaluators,
        principles=content.principles or general.principles,
        rubrics=[rubrics[name] for name in content.rubrics],
        sampling=content.defaults.sampling.apply_to(Sampling()),
        preset=content.defaults.search.preset,
        search=content.defaults.search.apply_to(Search()),
        stop=content.defaults.stop.apply_to(Stop()),
        example=content.example,
    )
