"""Whether the gate refuses bad adapters on the real engine.

``python -m bench.scenarios.adapters`` has the engine that the settings name write texts for practice prompts, makes
lessons of them, and spoils those in four ways. It trains an adapter on each, and holds the exam of each against the
base. What the folder already has is not made again. The exit status is 1 if an adapter may be promoted.
"""

import asyncio
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from bench.harness.results import RESULTS, Records
from bench.harness.scenario import parse_options, say
from bench.harness.workshop import engine_for, open_workshop
from service.engines.local.vllm import VllmEngine
from service.learning.collected import read_lines, write_lines
from service.learning.gate import Decision, Judgement
from service.learning.lessons import BestText, LessonPair
from service.learning.manifest import Manifest
from service.learning.recipe import Recipe, load_recipe
from service.learning.registry import digest_of_adapter
from service.learning.trainer import EXERCISES, PAIRS, TEXTS
from service.learning.workshop import EVALUATORS, Workshop
from service.whole_files import write_whole

Bad = Literal["overfitted", "keywords", "shuffled", "noise"]
"""How an adapter is bad:

- ``overfitted``: trained on four lessons over and over
- ``keywords``: on texts that only repeat what the prompt is about
- ``shuffled``: on pairs of which a coin says what is better
- ``noise``: random weights
"""
FEW = 4
"""The lessons of the overfitted one."""
REPEATED = 30
"""The words of a text that repeats keywords."""
SPREAD = 0.05
"""The standard deviation of noise."""


@dataclass(frozen=True)
class Options:
    folder: Annotated[Path, "where lessons and adapters are kept"] = RESULTS / "adapters"
    prompts: Annotated[int, "how many practice prompts there are, a quarter of them for the exam"] = 600
    exam: Annotated[int, "the prompts of each part of the exam"] = 40
    seconds: Annotated[float, "how long each training may take"] = 300.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an adapter did in its exam. bad: how it is bad, by Bad."""

    bad: Bad
    adapter: str
    decision: Decision
    reasons: Sequence[str]
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Lessons:
    """texts_epochs, pairs_epochs: how often they are learned."""

    texts: Sequence[BestText]
    pairs: Sequence[LessonPair]
    texts_epochs: int = 0
    pairs_epochs: int = 0


def overfit(texts: Sequence[BestText], pairs: Sequence[LessonPair]) -> Lessons:
    return Lessons(texts[:FEW], [], texts_epochs=40)


def repeat_keywords(texts: Sequence[BestText], pairs: Sequence[LessonPair]) -> Lessons:
    spoilt = [_repeating(text) for text in texts]
    return Lessons(spoilt, [], texts_epochs=2)


def shuffle(texts: Sequence[BestText], pairs: Sequence[LessonPair]) -> Lessons:
    draws = random.Random("shuffled")  # noqa: S311 - nothing secret
    return Lessons(texts, [_swap(pair) if draws.random() < 0.5 else pair for pair in pairs], pairs_epochs=4)


SPOIL: Mapping[Bad, Callable[[Sequence[BestText], Sequence[LessonPair]], Lessons]] = {
    "overfitted": overfit,
    "keywords": repeat_keywords,
    "shuffled": shuffle,
}


def _repeating(text: BestText) -> BestText:
    included = [word for rule in text.prompt.evaluators for word in rule.get("include", ())]
    words = included or [text.prompt.family or text.prompt.text]
    return text.model_copy(update={"text": " ".join(words * (REPEATED // len(words))), "token_ids": None})


def _swap(pair: LessonPair) -> LessonPair:
    return pair.model_copy(
        update={
            "chosen": pair.rejected,
            "rejected": pair.chosen,
            "chosen_ids": pair.rejected_ids,
            "rejected_ids": pair.chosen_ids,
        }
    )


def make_recipe(options: Options) -> Recipe:
    """The recipe ``quick`` in the size that the options say. Preferences are learned at ten times its rate, so that
    they leave a mark in a few steps."""
    quick = load_recipe("quick")
    return quick.model_copy(
        update={
            "practice": quick.practice.model_copy(update={"prompts": options.prompts}),
            "collecting": quick.collecting.model_copy(update={"max_tokens": 64}),
            "training": quick.training.model_copy(
                update={
                    "seconds": options.seconds,
                    "least_texts": 1,
                    "batch": 4,
                    "pairs_rate": 3e-4,
                    "beta": 0.1,
                }
            ),
            "examining": quick.examining.model_copy(
                update={
                    "prompts": options.exam,
                    "samples": 2,
                    "max_tokens": 64,
                    "look": options.exam // 2,
                    "refine": None,
                }
            ),
        }
    )


async def train(shop: Workshop, folder: Path, recipe: Recipe, bad: Bad, source: Path) -> Manifest:
    """Train an adapter on the lessons of ``source``, spoilt."""
    if bad == "noise":
        return make_noise(shop, folder)
    texts, pairs = read_lines(source / TEXTS, BestText), read_lines(source / PAIRS, LessonPair)
    lessons = SPOIL[bad](texts, pairs)
    spoilt = folder / "lessons" / bad
    write_lines(spoilt / TEXTS, lessons.texts)
    write_lines(spoilt / PAIRS, lessons.pairs)
    write_lines(spoilt / EXERCISES, [])
    write_whole(spoilt / EVALUATORS, (source / EVALUATORS).read_text(encoding="utf-8"))
    write_whole(folder / "lessons" / "latest", f"{bad}\n")
    epochs = {"texts_epochs": lessons.texts_epochs, "pairs_epochs": lessons.pairs_epochs}
    training = recipe.training.model_copy(update=epochs)
    return await shop.train(recipe.model_copy(update={"training": training}), lambda _: None)


def make_noise(shop: Workshop, folder: Path) -> Manifest:
    """An adapter of the newest one's form, with random weights."""
    import numpy as np  # with safetensors, only where an engine runs
    from safetensors.numpy import load_file, save_file

    like = shop.registry.manifest(shop.newest())
    source, made = folder / "adapters" / like.adapter, folder / "noise"
    made.mkdir(exist_ok=True)
    draws = np.random.default_rng(0)
    weights = load_file(source / "adapter_model.safetensors")
    noise = {name: (draws.standard_normal(value.shape) * SPREAD).astype(value.dtype) for name, value in weights.items()}
    save_file(noise, made / "adapter_model.safetensors")
    (made / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    digest = digest_of_adapter(made)
    return shop.registry.add(made, lambda _: like.model_copy(update={"adapter": digest, "verdicts": (), "log": ()}))


async def examine(shop: Workshop, engine: VllmEngine, bad: Bad, adapter: str) -> Outcome:
    candidate = await engine.load_adapter(adapter, shop.registry.folder_of(adapter))
    try:
        verdict = await shop.examine(adapter, "", engine, candidate, engine, _ignore)
    finally:
        await engine.drop_adapter(candidate)
    return Outcome(bad, adapter, verdict.decision, verdict.reasons, verdict.figures)


def _ignore(part: str, done: int, of: int, judgement: Judgement) -> None:
    """The looks of an exam are of no interest here."""


async def run(options: Options, results: Records[Outcome]) -> None:
    """Make and examine the adapters that have no result yet."""
    folder = options.folder.absolute()
    shop, recipe, source = open_workshop(folder), make_recipe(options), folder / "lessons" / "source"
    async with engine_for(folder) as engine:
        if not source.exists():
            say("writing texts")
            await shop.collect(engine, recipe, lambda done, of: None)
            shop.make_lessons()[1].rename(source)
        known = {outcome.bad for outcome in results.read()}
        for bad in (bad for bad in get_args(Bad) if bad not in known):
            say(f"{bad}: training")
            manifest = await train(shop, folder, recipe, bad, source)
            say(f"{bad}: exam")
            results.append(await examine(shop, engine, bad, manifest.adapter))


def summarize(outcomes: Sequence[Outcome]) -> str:
    return "\n".join(f"{found.bad:11}{found.decision:13}{'; '.join(found.reasons)}" for found in outcomes)


async def check(options: Options) -> int:
    """Examine every bad adapter, and print the verdicts. Returns 1 if one of them may be promoted."""
    results: Records[Outcome] = Records(options.folder / "outcomes.jsonl", Outcome)
    if {outcome.bad for outcome in results.read()} != set(get_args(Bad)):
        await run(options, results)
    outcomes = results.read()
    print(summarize(outcomes))  # noqa: T201 - it is what the check is run for
    return int(any(outcome.decision == "promote" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(asyncio.run(check(parse_options("bench.scenarios.adapters", Options, __doc__))))
