"""Whether texts that the engine writes under rules follow them: thousands of random sets of rules.

``python -m bench.scenarios.rules`` loads the engine that the settings name and drafts one text under each set, with
nothing but the grammar: no repairs, no aborts, no landing. A set either compiles, or its rules are left out by name, or
it is refused as a contradiction. A text that ends must pass every rule that was enforced, and no text may be empty.
What the file of results already has is not run again. The exit status is 1 if a text breaks an enforced rule, if one is
empty, or if the engine fails.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from bench.harness.results import RESULTS, Records
from bench.harness.scenario import parse_options, say
from bench.scenarios.made_rules import make_rules
from service.concurrency import gather
from service.engines.base import Engine
from service.errors import InvalidRequest
from service.fleet import start_engine
from service.programs.compile import Programs, RequestLimits
from service.programs.models import ServedModels
from service.refinement.events import ConstraintFailed, Refined
from service.refinement.loop import refine
from service.refinement.roles import Roles
from service.settings import Settings
from service.tasks.task import load_tasks
from service.wire.requests import RefineRequest

AT_ONCE = 48
TOKENS = 64
LIMITS = RequestLimits(candidates=1, rounds=0, tokens=TOKENS, seconds=3_600.0)
PROMPTS = (
    "Write about the sea.",
    "Describe a market in the morning.",
    "Tell a friend about your holiday.",
    "Explain how bread is made.",
)


@dataclass(frozen=True)
class Options:
    first: Annotated[int, "the first seed"] = 0
    count: Annotated[int, "how many sets of rules"] = 2000
    results: Annotated[Path, "the file of results"] = RESULTS / "rules.jsonl"


Kind = Literal["contradiction", "free", "cut", "kept", "broken", "decoder", "empty", "failed"]
FAULTS: Sequence[Kind] = ("broken", "decoder", "empty", "failed")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a seed's rules.

    - ``contradiction``: no text can follow them; ``free``: nothing could be enforced
    - ``cut``: the text did not end within its tokens; ``kept``: it ended, and follows what was enforced
    - ``broken``: it ended, and breaks that; ``decoder``: the decoder failed at the grammar; ``empty``: there is nothing
    - ``failed``: the engine could not serve

    enforced: the names of the rules that were. left_out: the reasons why others were not. note: what went wrong.
    """

    seed: int
    kind: Kind
    enforced: Sequence[str] = ()
    left_out: Sequence[str] = ()
    note: str = ""


async def try_seed(engine: Engine, programs: Programs, seed: int) -> Outcome:
    """Draft one text under the rules of a seed."""
    body = {
        "prompt": PROMPTS[seed % len(PROMPTS)],
        "evaluators": make_rules(seed),
        "judge": False,
        "search": {"rounds": 0, "constraints": "always", "repairs": False, "aborts": False},
        "sampling": {"max_tokens": TOKENS, "seed": seed, "temperature": 0.9},
    }
    try:
        program = programs.compile_refine(RefineRequest.model_validate_json(json.dumps(body)))
    except InvalidRequest as error:
        return Outcome(seed, "contradiction", note=str(error))
    failures: list[ConstraintFailed] = []
    done: Refined | None = None
    async for event in refine(program, Roles.single(engine)):
        match event:
            case ConstraintFailed():
                failures.append(event)
            case Refined():
                done = event
    return _outcome(seed, done, failures)


def _outcome(seed: int, done: Refined | None, failures: Sequence[ConstraintFailed]) -> Outcome:
    if done is None or done.stop_reason == "engine_failed":
        return Outcome(seed, "failed")
    text, under = done.selected.text, done.selected.under
    enforced = under.enforced_rules if under is not None else ()
    left_out = [reason for _, reason in under.left_out_rules] if under is not None else []
    broken = next((failure for failure in failures if failure.cause == "grammar"), None)
    kind: Kind
    if not text.strip():
        kind = "empty"
    elif broken is not None:
        kind = "broken"
    elif failures:
        kind = "decoder"
    elif not enforced:
        kind = "free"
    else:
        kind = "kept" if done.selected.completion.finish_reason == "stop" else "cut"
    note = f"{', '.join(failure.cause + ' ' + ' '.join(failure.rules) for failure in failures)}: {text}"
    return Outcome(seed, kind, enforced, left_out, note if kind in FAULTS else "")


async def run(engine: Engine, programs: Programs, seeds: Sequence[int], results: Records[Outcome]) -> None:
    """Add the outcomes of the seeds to the results, in the order in which they finish."""
    places = asyncio.Semaphore(AT_ONCE)
    done = 0

    async def one(seed: int) -> None:
        nonlocal done
        async with places:
            results.append(await try_seed(engine, programs, seed))
        done += 1
        if done % 200 == 0:
            say(f"{done} of {len(seeds)} sets of rules")

    await gather(one(seed) for seed in seeds)


def summarize(outcomes: Sequence[Outcome]) -> str:
    """The counts, why rules were left out, and every fault."""
    kinds = Counter(found.kind for found in outcomes)
    reasons = Counter(reason for found in outcomes for reason in found.left_out)
    under = [found for found in outcomes if found.enforced]
    rules = sum(len(found.enforced) for found in under)
    lines = [
        f"{len(outcomes)} sets of rules: {kinds['contradiction']} contradictions, {kinds['free']} not enforced",
        f"{len(under)} texts under {rules} rules: {kinds['kept']} ended and follow them, {kinds['cut']} were cut",
        ", ".join(f"{kinds[kind]} {kind}" for kind in FAULTS),
        "left out: " + ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()),
    ]
    lines += [f"seed {found.seed} {found.kind}: {found.note}" for found in outcomes if found.kind in FAULTS]
    return "\n".join(lines)


async def check(options: Options) -> int:
    """Try the seeds that have no result yet, and print what came of all. Returns 1 if there is a fault."""
    results: Records[Outcome] = Records(options.results, Outcome)
    seeds = range(options.first, options.first + options.count)
    known = {outcome.seed for outcome in results.read()}
    missing = [seed for seed in seeds if seed not in known]
    if missing:
        engine = await start_engine(Settings())
        try:
            programs = Programs(load_tasks(), LIMITS, ServedModels((engine.model,)))
            await run(engine, programs, missing, results)
        finally:
            await engine.close()
    found = {outcome.seed: outcome for outcome in results.read()}
    outcomes = [found[seed] for seed in sorted(found) if seed in seeds]
    print(summarize(outcomes))  # noqa: T201 - it is what the check is run for
    return int(any(outcome.kind in FAULTS for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(asyncio.run(check(parse_options("bench.scenarios.rules", Options, __doc__))))
