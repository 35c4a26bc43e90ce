"""``learn run`` with a scripted engine as the model and no training: ``fake_learn.py HOW RECIPE ARGUMENT …``."""

import sys

import pytest

from service.cli import main
from service.engines.scripted import Script
from service.learning.recipe import load_recipe
from service.settings import Settings
from tests.cli.test_learn import AdaptableEngine, reply
from tests.learning.test_trainer import fake


async def start(settings: Settings) -> AdaptableEngine:
    return AdaptableEngine(Script(reply=reply))


if __name__ == "__main__":
    _, how, recipe, *arguments = sys.argv
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr("service.cli.learn.start_engine", start)
        patches.setattr("service.cli.learn.load_recipe", lambda name: load_recipe(recipe))
        patches.setattr("service.learning.workshop.Trainer", lambda: fake(how))
        patches.setattr("sys.argv", ["redraft", "learn", "run", *arguments])
        sys.exit(main.main())
