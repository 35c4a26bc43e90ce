"""Whether texts that the engine writes under a JSON Schema fit it: thousands of schemas made by chance.

``python -m bench.schemas`` loads the engine that the settings name and asks for one text under each schema. Each that
is whole is held against its schema by two validators that share nothing with the service's own grammar. What the file
of results has already is not run again. The exit status is 1 if any text does not fit.
"""

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jsonschema_rs
from rich.console import Console

from bench.made_schemas import made
from service.app import start_engine
from service.concurrency import gather
from service.engines.base import Engine, Sample, Sampling, grammar
from service.engines.conversation import Conversation, Turn
from service.errors import InvalidRequest
from service.evaluators.text.schema import JsonSchema
from service.settings import Settings

AT_ONCE = 48
TOKENS = 64
ASKED = Conversation(Turn("user", "Make up an example."))
REFUSED_BY_FORM = "invalid"
"""The word for a schema that is no valid one, or one that the verifier refuses."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a seed's schema. ``note``: the keyword that was refused, or what does not fit."""

    seed: int
    kind: Literal["refused", "cut", "fits", "misfit"]
    note: str = ""


async def outcome(engine: Engine, seed: int) -> Outcome:
    """Ask for one text under the schema of a seed."""
    schema = made(seed)
    try:
        form = JsonSchema(schema=schema)
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
    fault = misfit(schema, completion.text) or form.misfit(completion.text)
    return Outcome(seed, "misfit", f"{completion.text}: {fault}") if fault else Outcome(seed, "fits")


def misfit(schema: dict[str, Any], text: str) -> str | None:
    """Why a text does not fit, by a validator that is not the service's own."""
    try:
        document = json.loads(text)
    except ValueError as error:
        return f"not JSON: {error}"
    validator = jsonschema_rs.validator_for(schema, offline=True, validate_formats=False)
    return next((error.message for error in validator.iter_errors(document)), None)


async def run(engine: Engine, seeds: Sequence[int], results: Path, console: Console) -> None:
    """Add the outcomes of the seeds to the file of results, in whatever order they are finished."""
    places = asyncio.Semaphore(AT_ONCE)
    done = 0

    async def one(seed: int) -> None:
        nonlocal done
        async with places:
            found = await outcome(engine, seed)
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(found)) + "\n")
        done += 1
        if done % 250 == 0:
            console.print(f"{done} of {len(seeds)} schemas")

    await gather(one(seed) for seed in seeds)


def read(results: Path) -> dict[int, Outcome]:
    if not results.exists():
        return {}
    lines = results.read_text(encoding="utf-8").splitlines()
    return {found.seed: found for found in (Outcome(**json.loads(line)) for line in lines)}


def summary(outcomes: Sequence[Outcome]) -> str:
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


async def _main(options: argparse.Namespace, console: Console) -> int:
    known = read(options.results)
    seeds = range(options.first, options.first + options.count)
    missing = [seed for seed in seeds if seed not in known]
    if missing:
        options.results.parent.mkdir(parents=True, exist_ok=True)
        engine = await start_engine(Settings())
        try:
            await run(engine, missing, options.results, console)
        finally:
            await engine.close()
    outcomes = [found for seed, found in sorted(read(options.results).items()) if seed in seeds]
    console.print(summary(outcomes), markup=False, highlight=False)
    return int(any(found.kind == "misfit" for found in outcomes))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.schemas", description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=3000, help="how many schemas")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "schemas.jsonl")
    return asyncio.run(_main(parser.parse_args(), Console()))


if __name__ == "__main__":
    sys.exit(main())
