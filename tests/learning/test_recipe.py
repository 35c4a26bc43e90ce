"""A recipe that cannot be used names its file and what is wrong."""

from importlib.resources import files
from pathlib import Path

import pytest

from service.learning.recipe import RecipeError, built_in_recipes, load_recipe

QUICK = files("service.learning").joinpath("recipes", "quick.toml").read_text(encoding="utf-8")


def test_all_built_in_recipes_can_be_used() -> None:
    assert [load_recipe(name).name for name in built_in_recipes()] == ["full", "grpo", "quick"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"sections"', '"section"', "practice.kept_out: Value error, unknown kinds of rules: section"),
        ("samples = 4", "samples = 0", "collecting.samples: Input should be greater than or equal to 1"),
        ("rank = 8", "ranks = 8", "training.rank: Field required"),
        ("[training]", "[training", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in QUICK
    path = tmp_path / "own.toml"
    path.write_text(QUICK.replace(old, new, 1), encoding="utf-8")

    with pytest.raises(RecipeError) as raised:
        load_recipe(str(path))
    assert str(path) in str(raised.value)
    assert says in str(raised.value)
