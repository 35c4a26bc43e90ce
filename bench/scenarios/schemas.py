"""Whether texts that the engine writes under a JSON Schema fit it: thousands of random schemas.

``python -m bench.scenarios.schemas`` loads the engine that the settings name and asks for one text under each schema.
Each complete text is checked against its schema by two validators that share nothing with the service's own grammar.
What the file of results already has is not run again. The exit status is 1 if any text does not fit.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema_rs

from bench.harness.results import RESULTS, Records
from bench.harness.scenario import parse_options, say
from bench.scenarios.made_schemas import make_schema
from service.concurrency import gather
from service.engines.base import Engine, Sample, Sampling, grammar
from service.engines.conversation import Conversation, Turn
from service.errors import InvalidRequest
from service.evaluators.text.schema import FollowsSchema
from service.fleet import start_engine
from service.settings import Settings

AT_ONCE = 48
TOKENS = 64
ASKED = Conversation(Turn("user", "Make up an example."))
REFUSED_BY_FORM = "invalid"
"""The word for a schema that is not valid, or that the verifier refuses."""


@dataclass(frozen=True)
class Options:
    first: Annotated[int, "the first seed"] = 0
    count: Annotated[int, "how many schemas"] = 3000
    results: Annotated[Path, "the file of results"] = RESULTS / "schemas.jsonl"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a seed's schema. ``note``: the keyword that was refused, or what does not fit."""

    seed: int
    kind: Literal["refused", "cut", "fits", "misfit"]
    note: str = ""


async def try_seed(engine: Engine, seed: int) -> Outcome:
    """Ask for one text under the schema of a seed."""
    schema = make_schema(seed)
    try:
        form = FollowsSchema(schema=schema)
    except ValueError as error:
        return Outcome(seed, "refused", REFUSED_BY_FORM if str(error).startswith("$") else str(error)[:80])
    try:
        await asyncio.to_thread(grammar, schema)
        sampling = Sampling(1.2, max_tokens=TOKENS, seed=seed)
        completion = await engine.call(Sample(ASKED, sampling, schema))
    except InvalidRequest as error:
        return Outcome(seed, "refused", error.errors[0].message.partition(":")[0] if error.errors else "unnamed")
    if completion.finish_reason == "length":
        return Outcome(seed, "cut")
    fault = find_misfit(schema, completion.text) or form.misfit(completion.text)
    return Outcome(seed, "misfit", f"{completion.text}: {fault}") if fault else Outcome(seed, "fits")


def find_misfit(schema: dict[str, Any], text: str) -> str | None:
    """Why a text does not fit, by a validator that is not the service's own."""
    try:
        document = json.loads(text)
    except ValueError as error:
        return f"not JSON: {error}"
    validator = jsonschema_rs.validator_for(schema, offline=True, validate_formats=False)
    return next((error.message for error in validator.iter_errors(document)), None)


async def run(engine: Engine, seeds: Sequence[int], results: Records[Outcome]) -> None:
    """Add the outcomes of the seeds to the results, in the order in which they finish."""
    places = asyncio.Semaphore(AT_ONCE)
    done = 0

    async def one(seed: int) -> None:
        nonlocal done
        async with places:
            results.append(await try_seed(engine, seed))
        done += 1
        if done % 250 == 0:
            say(f"{done} of {len(seeds)} schemas")

    await gather(one(seed) for seed in seeds)


def summarize(outcomes: Sequence[Outcome]) -> str:
    """The counts, and why schemas were refused."""
    kinds = Counter(found.kind for found in outcomes)
    notes = Counter(found.note for found in outcomes if found.kind == "refused")
    accepted = len(outcomes) - kinds["refused"]
    lines = [
        f"{len(outcomes)} schemas: {accepted} accepted, {kinds['refused']} refused",
        f"of the accepted: {kinds['fits'] + kinds['misfit']} texts finished, {kinds['cut']} cut at {TOKENS} tokens",
        f"of the finished: {kinds['fits']} fit, {kinds['misfit']} do not",
        "refused for: " + ", ".join(f"{note} {count}" for note, count in notes.most_common()),
    ]
    lines += [f"seed {found.seed} does not fit: {found.note}" for found in outcomes if found.kind == "misfit"]
    return "\n".join(lines)


async def check(options: Options) -> int:
    """Try the seeds that have no result yet, and print what came of all. Returns 1 if a text does not fit."""
    results: Records[Outcome] = Records(options.results, Outcome)
    seeds = range(options.first, options.first + options.count)
    known = {outcome.seed for outcome in results.read()}
    missing = [seed for seed in seeds if seed not in known]
    if missing:
        engine = await start_engine(Settings())
        try:
            await run(engine, missing, results)
        finally:
            await engine.close()
    found = {outcome.seed: outcome for outcome in results.read()}
    outcomes = [found[seed] for seed in sorted(found) if seed in seeds]
    print(summarize(outcomes))  # noqa: T201 - it is what the check is run for
    return int(any(outcome.kind == "misfit" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(asyncio.run(check(parse_options("bench.scenarios.schemas", Options, __doc__))))
