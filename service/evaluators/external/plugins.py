"""Evaluators from other packages, found by their entry points (docs/guide/evaluators.md).

An entry point of the group ``redraft.evaluators`` names a frozen dataclass, whose fields are the settings that a
request can give. It subclasses Verifier, or implements the protocol Evaluator or EvaluatorSpec. Its results are
checked, because ranking and stopping rely on them.
"""

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Len
from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from service.evaluators.base import (
    STRICT,
    Authority,
    Evaluation,
    Evaluator,
    Issue,
    RefusedField,
    Submission,
    Weight,
    resolve_hard,
)
from service.evaluators.toolbox import Toolbox

GROUP = "redraft.evaluators"
RESERVED = ("type", "hard", "weight")
"""Fields of Verifier that are not settings: a request gives them next to the settings, or not at all."""


class PluginError(ValueError):
    """An entry point that cannot be used. The message names the entry point, its package and what is wrong."""


@dataclass(frozen=True)
class Plugin:
    """An evaluator from another package. ``settings`` validates the settings of a request and makes an evaluator."""

    name: str
    settings: TypeAdapter[Any] = field(repr=False)

    def make_evaluator(self, settings: Mapping[str, Any], tools: Toolbox) -> Evaluator:
        """Raises RefusedField, which names the first setting that is wrong."""
        if reserved := [name for name in RESERVED if name in settings]:
            raise RefusedField(f"settings.{reserved[0]}", "not a setting")
        try:
            # Through JSON, like all other evaluators: a strict type takes an array of JSON as a tuple, but not a list.
            made = self.settings.validate_json(json.dumps(settings, allow_nan=False), strict=True, extra="forbid")
            evaluator: Evaluator = made.resolve(tools) if hasattr(made, "resolve") else made
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            cause = first.get("ctx", {}).get("error")
            path = ["settings", *first["loc"], *([cause.field] if isinstance(cause, RefusedField) else [])]
            reason = str(cause) if isinstance(cause, Exception) else first["msg"]
            raise RefusedField(".".join(map(str, path)), reason) from None
        except RefusedField as error:
            raise RefusedField(f"settings.{error.field}", str(error)) from None
        except ValueError as error:
            raise RefusedField("settings", str(error)) from None
        return evaluator


class Plugins(dict[str, Plugin]):
    """The evaluators from other packages that are installed, by name."""


@dataclass(frozen=True, kw_only=True)
class Custom:
    """An evaluator from another package, by the name of its entry point. ``hard``: true by default for a verifier."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    type: Literal["custom"] = "custom"
    name: Annotated[str, Len(1, 64)]
    settings: dict[str, Any] = field(default_factory=dict)
    hard: bool | None = None
    weight: Weight = 1.0

    def resolve(self, tools: Toolbox) -> "CustomEvaluator":
        installed = tools.find(Plugins) or Plugins()
        plugin = installed.get(self.name)
        if plugin is None:
            raise RefusedField("name", f"not one of the evaluators installed here: {', '.join(installed) or 'none'}")
        evaluator = plugin.make_evaluator(self.settings, tools)
        return CustomEvaluator(self.name, resolve_hard(self.hard, evaluator.authority), self.weight, evaluator)


@dataclass(frozen=True)
class CustomEvaluator:
    """Another package's evaluator, under the name of its entry point. Its results are checked."""

    type: str
    hard: bool
    weight: float
    evaluator: Evaluator

    @property
    def authority(self) -> Authority:
        return self.evaluator.authority

    async def evaluate(self, submission: Submission) -> Evaluation:
        found = await self.evaluator.evaluate(submission)
        if not isinstance(found, Evaluation):
            raise TypeError(f"{self.type} did not return an Evaluation")
        issues = tuple(found.issues)
        if not all(isinstance(issue, Issue) for issue in issues):
            raise TypeError(f"{self.type} returned an issue that is not an Issue")
        if any(value is not None and not 0.0 <= value <= 1.0 for value in (found.score, found.stderr)):
            raise ValueError(f"{self.type} returned a score or a standard error outside [0, 1]")
        return Evaluation.from_evaluator(
            self, found.score, issues=issues, criteria=found.criteria, stderr=found.stderr, error=found.error
        )


def load_plugins() -> Plugins:
    """The evaluators of the installed packages, by name. Raises PluginError if one of them cannot be used."""
    points: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        other = points.setdefault(point.name, point)
        if other is not point:
            raise PluginError(f"{_describe(point)}: there is also {_describe(other)}")
    return Plugins({name: Plugin(name, _load_settings(point)) for name, point in sorted(points.items())})


def _load_settings(point: EntryPoint) -> TypeAdapter[Any]:
    try:
        kind = point.load()
    except Exception as error:
        raise PluginError(f"{_describe(point)}: {type(error).__name__}: {error}") from error
    frozen = inspect.isclass(kind) and getattr(getattr(kind, "__dataclass_params__", None), "frozen", False)
    evaluates = hasattr(kind, "resolve") or (hasattr(kind, "authority") and hasattr(kind, "evaluate"))
    if not (frozen and evaluates) or inspect.isabstract(kind):
        raise PluginError(f"{_describe(point)}: not a frozen dataclass that is an evaluator")
    try:
        settings = TypeAdapter[Any](kind)
        settings.rebuild(raise_errors=True)  # else an undefined name in an annotation fails only at the first request
    except (PydanticUserError, NameError) as error:
        raise PluginError(f"{_describe(point)}: {error}") from error
    return settings


def _describe(point: EntryPoint) -> str:
    package = point.dist.name if point.dist else "an unnamed package"
    return f"the evaluator {point.name} of {package} ({GROUP}: {point.value})"
