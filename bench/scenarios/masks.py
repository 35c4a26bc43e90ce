"""What grammars cost in decode throughput: ``python -m bench.scenarios.masks``.

The engine writes 32 texts at once, freely or under rules, and all arms take turns. A text counts with the tokens that
it has, whether or not it ends by itself. Grammars are tried out before the clock starts.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from bench.harness.page import markdown_table
from bench.harness.scenario import Report, run_scenario, say, take_turns
from bench.harness.spread import Spread, compare_pairs
from service.concurrency import gather
from service.constraints.algebra import Case, Constraint, Counter, Demand, Excluded, Forbidden, Included
from service.constraints.compile import compile_constraints
from service.engines.base import Engine, Sample, Sampling
from service.engines.conversation import Conversation, Turn
from service.fleet import start_engine
from service.settings import Settings

FREE = "free"
RULES: Mapping[str, Sequence[Demand]] = {
    "no commas": (Forbidden(","),),
    "lower case": (Case("lower"),),
    "five words excluded": (Excluded(("very", "water", "beautiful", "good", "people")),),
    "at most 100 words": (Counter("words", most=100),),
    "two keywords, two to six sentences": (Included(("light", "time")), Counter("sentences", 2, 6)),
}
BAR = 0.9
"""Of the throughput without grammars."""


@dataclass(frozen=True)
class Options:
    at_once: Annotated[int, "texts"] = 32
    tokens: Annotated[int, "the most of each text"] = 80
    repetitions: Annotated[int, "of each arm"] = 3


@dataclass(frozen=True)
class Wave:
    tokens: int
    seconds: float


def rate(waves: Sequence[Wave]) -> float:
    return sum(wave.tokens for wave in waves) / sum(wave.seconds for wave in waves)


def grammar_of(demands: Sequence[Demand]) -> str | None:
    stated = [Constraint(f"rule{number}", demand) for number, demand in enumerate(demands)]
    return compile_constraints(stated).grammar


async def run_wave(engine: Engine, grammar: str | None, options: Options, first_seed: int) -> Wave:
    asked = Conversation(Turn("user", "Write a long story about a lighthouse, its keeper and a storm."))
    sampling = Sampling(temperature=0.7, max_tokens=options.tokens, seed=first_seed)
    began = time.perf_counter()
    texts = await gather(
        engine.call(Sample(asked, sampling.sibling(number), grammar=grammar)) for number in range(options.at_once)
    )
    return Wave(sum(text.usage.completion_tokens for text in texts), time.perf_counter() - began)


async def measure(options: Options) -> Report:
    engine = await start_engine(Settings())
    try:
        grammars = {FREE: None, **{name: grammar_of(demands) for name, demands in RULES.items()}}
        for grammar in grammars.values():
            if grammar is not None:
                await engine.prove(grammar)
            await run_wave(engine, grammar, options, 0)
        waves: dict[str, list[Wave]] = {name: [] for name in grammars}
        for repetition, name in take_turns(list(grammars), options.repetitions):
            wave = await run_wave(engine, grammars[name], options, 1_000 * repetition)
            waves[name].append(wave)
            say(f"{name}: {wave.tokens / wave.seconds:.0f} tokens/s")
    finally:
        await engine.close()
    setup = (
        f"{options.at_once} texts at once of at most {options.tokens} tokens, {options.repetitions} times each. "
        f"The bar is {BAR} of the throughput without a grammar. In brackets: the extremes of single repetitions."
    )
    return Report(Settings().model_name, setup, [summarize(waves)])


def summarize(waves: Mapping[str, Sequence[Wave]]) -> str:
    """The throughput of each arm, as a Markdown table."""
    rows = []
    for name, of_arm in waves.items():
        ratio: Spread | None = None if name == FREE else compare_pairs(of_arm, waves[FREE], rate)
        met = "" if ratio is None else "yes" if ratio.value >= BAR else "**no**"
        rows.append([name, f"{rate(of_arm):.0f}", "" if ratio is None else f"{ratio:.2f}", met])
    return markdown_table(("texts", "tokens/s", "of the free ones", "bar met"), rows)


if __name__ == "__main__":
    sys.exit(run_scenario("masks", Options, measure))
