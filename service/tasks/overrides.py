"""Settings of a program in a request or a task file: only those that differ from the default."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Len
from pydantic import BaseModel, ConfigDict

from service.engines.base import Sampling, engine_seed
from service.fail_fast import FAIL_FAST
from service.refinement.program import PRESETS, Carry, Constraints, Critic, Search, Select, Stop

Preset = Literal["self_refine", "best_of_n", "vote", "beam", "reflexion", "constitutional", "adaptive"]
Share = Annotated[float, Ge(0.0), Le(1.0)]


class Overrides(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    def given_fields(self) -> dict[str, Any]:
        """The fields that were given and are not null."""
        return self.model_dump(exclude_none=True)


class SamplingOverrides(Overrides):
    """How the texts are sampled. Fields that are left out come from the task."""

    temperature: Annotated[float, Ge(0.0), Le(2.0)] | None = None
    top_p: Annotated[float, Gt(0.0), Le(1.0)] | None = None
    max_tokens: Annotated[int, Ge(1)] | None = None
    stop: Annotated[tuple[Annotated[str, Len(1, 100)], ...], Len(0, 8), FAIL_FAST] | None = None
    seed: Annotated[int, Ge(-(2**63)), Le(2**64 - 1)] | None = None
    choices: Annotated[tuple[Annotated[str, Len(1, 200)], ...], Len(2, 50), FAIL_FAST] | None = None
    thinking: bool | None = None
    landing: bool | None = None

    def apply_to(self, sampling: Sampling) -> Sampling:
        applied = Sampling(**{**_fields(sampling), **self.given_fields()})
        return applied if applied.seed is None else replace(applied, seed=engine_seed(applied.seed))


class SearchOverrides(Overrides):
    """How the loop searches: a preset, and fields that override it. A preset says nothing of repairs and aborts."""

    preset: Preset | None = None
    drafts: Annotated[int, Ge(1)] | None = None
    beam: Annotated[int, Ge(1)] | None = None
    branches: Annotated[int, Ge(1)] | None = None
    rounds: Annotated[int, Ge(0)] | None = None
    carry: Carry | None = None
    memory: Annotated[int, Ge(0), Le(10)] | None = None
    critic: Critic | None = None
    select: Select | None = None
    constraints: Constraints | None = None
    repairs: bool | None = None
    aborts: bool | None = None

    def apply_to(self, search: Search) -> Search:
        stated = self.given_fields()
        preset = stated.pop("preset", None)
        base = replace(PRESETS[preset], repairs=search.repairs, aborts=search.aborts) if preset else search
        return Search(**{**_fields(base), **stated})


class StopOverrides(Overrides):
    """When a result is good enough, or not worth more work. Scores are in [0, 1]."""

    target: Share | None = None
    patience: Annotated[int, Ge(1)] | None = None
    min_gain: Share | None = None

    def apply_to(self, stop: Stop) -> Stop:
        return Stop(**{**_fields(stop), **self.given_fields()})


def _fields(value: Sampling | Search | Stop) -> dict[str, Any]:
    return {name: getattr(value, name) for name in type(value).__dataclass_fields__}
