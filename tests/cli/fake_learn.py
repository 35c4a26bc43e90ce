"""``learn run`` with a scripted engine as the model and no training: ``fake_learn.py HOW RECIPE ARGUMENT …``."""

import sys
from functools import partial

from service.cli import learn, main
from service.engines.scripted import Script
from service.learning import workshop
from service.learning.recipe import load_recipe
from service.settings import Settings
from tests.cli.test_learn import AdaptableEngine, reply
from tests.learning.test_trainer import fake


async def start(settings: Settings) -> AdaptableEngine:
    return AdaptableEngine(Script(reply=reply))


if __name__ == "__main__":
    _, how, recipe, *arguments = sys.argv
    learn.start_engine = start  # type: ignore[assignment]
    learn.load_recipe = lambda name: load_recipe(recipe)
    workshop.Trainer = partial(fake, how)  # type: ignore[assignment, misc]
    sys.argv = ["redraft", "learn", "run", *arguments]
    sys.exit(main.main())
