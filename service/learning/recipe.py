"""A recipe: how much is collected, how an adapter is trained, and how it is examined. One TOML file each."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from service.learning.practice import all_kinds

Count = Annotated[int, Ge(1)]
Rate = Annotated[float, Gt(0.0), Le(1.0)]
Share = Annotated[float, Gt(0.0), Lt(1.0)]


class RecipeError(ValueError):
    """A recipe that cannot be used. The message names the file and what is wrong."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Practice(_Part):
    """Which prompts are practised.

    prompts: how many are made; a quarter of them goes to the exam. seed: of the prompts and of their samples.
    kept_out: kinds of rules that no lesson has, so that the exam can show whether learning harms them.
    """

    prompts: Count
    seed: Annotated[int, Ge(0)] = 0
    kept_out: Annotated[tuple[str, ...], Len(1)]

    @field_validator("kept_out")
    @classmethod
    def _refuse_unknown_kinds(cls, kept_out: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(kept_out) - set(all_kinds()):
            raise ValueError(f"unknown kinds of rules: {', '.join(sorted(unknown))}")
        return kept_out


class Collecting(_Part):
    """samples: free ones for each prompt. constrained: under a grammar, for prompts of which no free one passes.
    seconds: after which no further prompt is begun; None for no limit."""

    samples: Count
    constrained: Annotated[int, Ge(0)]
    temperature: Annotated[float, Gt(0.0), Le(2.0)]
    max_tokens: Count
    seconds: Annotated[float, Gt(0.0)] | None = None


class Trying(_Part):
    """Reinforcement learning on exercises, after texts and pairs.

    steps: at most. exercises: tried in each step. samples: for each exercise; they are compared with each other.
    kl: the weight of the distance to the model as texts and pairs have left it; 0 lets it go anywhere.
    """

    steps: Count
    exercises: Count
    samples: Annotated[int, Ge(2)]
    temperature: Annotated[float, Gt(0.0), Le(2.0)]
    max_tokens: Count
    rate: Rate
    kl: Annotated[float, Ge(0.0), Le(1.0)]


class Training(_Part):
    """rank, alpha: of the adapter. texts_epochs, pairs_epochs: 0 leaves a stage out. trying: None leaves it out.

    beta: how far preferences may move the model from where the texts have led it; smaller is farther.
    imitation: the weight of the chosen text's own likelihood, without which preferences lower it.
    seconds: after which training stops with what it has.
    strength: by which what was learned is multiplied in the end. An adapter at less than its full strength gains less
    and forgets less (Wortsman et al. 2022, arXiv 2109.01903).
    temperature: at which the texts were sampled, if the model wrote them. Their loss is that of the model at this
    temperature, so that what it would have written anyway teaches nothing.
    """

    rank: Annotated[int, Ge(1), Le(512)]
    alpha: Count
    max_length: Count
    batch: Count
    texts_epochs: Annotated[int, Ge(0)]
    texts_rate: Rate
    pairs_epochs: Annotated[int, Ge(0)]
    pairs_rate: Rate
    beta: Rate
    imitation: Annotated[float, Ge(0.0), Le(10.0)]
    seed: Annotated[int, Ge(0)] = 0
    seconds: Annotated[float, Gt(0.0)]
    least_texts: Count
    """Fewer lessons than this are refused."""
    strength: Rate = 1.0
    temperature: Annotated[float, Gt(0.0), Le(2.0)] = 1.0
    trying: Trying | None = None


class HiddenRules(_Part):
    """Rules that no lesson checked (hidden.py), one for each prompt with trained kinds of rules."""

    margin: Share


class PlainTexts(_Part):
    """The part in which given texts without rules are weighed (plain.toml). margin: in nats a token."""

    texts: Count
    margin: Annotated[float, Gt(0.0)]


class Refining(_Part):
    """The part in which the service's loop refines texts. tokens: the budget for each prompt, its tokens included."""

    prompts: Count
    tokens: Count
    margin: Share


class Examining(_Part):
    """prompts: with trained kinds of rules, at most, and as many with other kinds. samples: for each prompt.
    margin: by how much the candidate may be worse, for other kinds of rules here and for each further part there.
    look: after how many prompts the gate is asked whether more are needed. hidden, plain, refine: None leaves the part
    out, and the verdict says that it was not examined."""

    prompts: Count
    samples: Count
    temperature: Annotated[float, Gt(0.0), Le(2.0)]
    max_tokens: Count
    margin: Share
    look: Count
    seed: Annotated[int, Ge(0)] = 1_000
    hidden: HiddenRules | None = None
    plain: PlainTexts | None = None
    refine: Refining | None = None

    @property
    def margins(self) -> Mapping[str, float]:
        """By the names of the parts that the recipe has and in which the candidate must not be worse."""
        further = {"hidden": self.hidden, "plain": self.plain, "refine": self.refine}
        return {"other": self.margin, **{name: part.margin for name, part in further.items() if part}}


class Recipe(_Part):
    name: str
    practice: Practice
    collecting: Collecting
    training: Training
    examining: Examining

    def with_seed(self, seed: int) -> "Recipe":
        """The same recipe with other practice prompts, other samples and another training."""
        practice, training = (part.model_copy(update={"seed": seed}) for part in (self.practice, self.training))
        return self.model_copy(update={"practice": practice, "training": training})


def load_recipe(name: str) -> Recipe:
    """A built-in recipe by its name, or one of a file by its path. Raises RecipeError."""
    try:
        if name in built_in_recipes():
            text = files(__package__).joinpath("recipes", f"{name}.toml").read_text(encoding="utf-8")
        else:
            text = Path(name).read_text(encoding="utf-8")
        stated = tomllib.loads(text)
        return Recipe.model_validate_json(json.dumps({"name": Path(name).stem, **stated}))
    except OSError as error:
        known = ", ".join(built_in_recipes())
        raise RecipeError(f"{name} is neither a recipe ({known}) nor a file that can be read") from error
    except ValidationError as error:
        [first, *_] = error.errors(include_url=False, include_input=False)
        where = ".".join(map(str, first["loc"]))
        raise RecipeError(f"{name}: {where + ': ' if where else ''}{first['msg']}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{name} is not TOML: {error}") from error


def built_in_recipes() -> Sequence[str]:
    """The names of the recipes that come with the service."""
    folder = files(__package__).joinpath("recipes")
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml"))
