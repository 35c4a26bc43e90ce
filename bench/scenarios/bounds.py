"""Whether budgets, deadlines and accounts hold on the real engine: ``python -m bench.scenarios.bounds``.

It starts the service as ``python -m service serve`` does and sends it waves of random refines over every preset.

- *budget*: with 300 to 2,500 tokens. No request may spend more, and none may fail.
- *deadline*: with 0.5 to 10 seconds. Only a request of which no token was written may answer 503.
- *abort*: with rules that most texts break early, so that they are given up while they are written.

Nothing else runs on the server. So after each wave the accounts of its answers must add up to what the engine's own
counters have grown by, prompts and texts each. That also shows that no request that failed had written a token.

How late the answers come, and how long the engine takes to become idle, is printed and decides nothing. What the file
of results already has is not run again. The exit status is 1 if anything else does not hold.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import aiohttp

from bench.harness.open_loop import Answer, post, unlimited_client
from bench.harness.results import RESULTS, Records
from bench.harness.scenario import parse_options, say
from bench.harness.servers import Server, redraft
from service.refinement.program import PRESETS

Kind = Literal["budget", "deadline", "abort"]
KINDS: Sequence[Kind] = get_args(Kind)

AT_ONCE: Mapping[Kind, int] = {"budget": 10, "deadline": 20, "abort": 10}
"""The requests of a wave."""
TOKENS = (300, 2_500)
SECONDS = (0.5, 10.0)
IDLE_SECONDS = 30.0
"""After which an engine that still has work is wedged."""
TOPICS = ("the sea", "bread", "winter in the north", "how rain forms", "a lighthouse", "a lost key", "soil")
ASKED = ("Explain {} to a child.", "Write a short story about {}.", "Describe {} in one long sentence.", "Praise {}.")
RULES: Sequence[Mapping[str, Any]] = (
    {"type": "length", "unit": "words", "max": 60},
    {"type": "length", "unit": "sentences", "min": 2, "max": 4},
    {"type": "format", "kind": "no_commas"},
    {"type": "format", "kind": "lowercase"},
    {"type": "format", "kind": "bullet_list", "min": 2, "max": 4},
    {"type": "keywords", "include": ["water", "light"]},
    {"type": "keywords", "exclude": ["the", "and"]},
    {"type": "keywords", "letters": {"z": {"max": 0}}},
    {"type": "starts_with", "text": "Well"},
    {"type": "ends_with", "text": "The end."},
)
BROKEN_EARLY: Sequence[Mapping[str, Any]] = (
    {"type": "keywords", "letters": {"e": {"max": 0}}},
    {"type": "keywords", "exclude": ["a", "of", "the", "and", "to"]},
    {"type": "keywords", "letters": {"t": {"max": 0}, "s": {"max": 0}}},
)
"""Nothing that code can repair."""


@dataclass(frozen=True)
class Options:
    refines: Annotated[int, "how many with a budget, and as many with a deadline"] = 500
    aborted: Annotated[int, "how many texts to give up"] = 1_000
    minutes: Annotated[float, "after which no wave begins; run it again to go on"] = 10.0
    results: Annotated[Path, "the file of results"] = RESULTS / "bounds.jsonl"


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a request. ``limit``: its tokens or seconds, if it had any. ``tokens``: what it spent. ``late``: how
    many seconds after its deadline the answer came. ``code``: of the error."""

    preset: str
    limit: float | None
    status: int | None
    code: str | None
    stop_reason: str | None
    tokens: int
    late: float | None
    lost: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of prompts and of texts."""

    prompt: int
    completion: int


@dataclass(frozen=True, slots=True)
class Wave:
    """``account``: what the answers say; ``counted``: what the engine counted. ``idle_seconds``: from the last answer
    until the engine had no request; None if it never came to that."""

    kind: Kind
    number: int
    ended: Sequence[Ended]
    account: Tokens
    counted: Tokens
    idle_seconds: float | None


def make_request(kind: Kind, draws: random.Random) -> dict[str, Any]:
    """A random refine."""
    preset = draws.choice(list(PRESETS))
    request: dict[str, Any] = {
        "prompt": draws.choice(ASKED).format(draws.choice(TOPICS)),
        "search": {"preset": preset, "rounds": draws.choice((0, 1, 2))},
        "sampling": {"temperature": 1.0, "seed": draws.getrandbits(32), "max_tokens": draws.choice((24, 60, 120))},
        "evaluators": draws.sample(RULES, draws.choice((0, 1, 2))),
    }
    if request["evaluators"] and draws.random() < 0.5:  # without either the service refuses to revise
        request["judge"] = False
    if preset == "constitutional":
        request["principles"] = ["Be brief.", "Be kind."]
    match kind:
        case "budget":
            request["budget"] = {"tokens": draws.randint(*TOKENS)}
        case "deadline":
            request["budget"] = {"seconds": round(draws.uniform(*SECONDS), 2)}
            request["search"]["critic"] = draws.choice(("auto", "factored"))
        case "abort":
            request["search"] = {"preset": "best_of_n", "drafts": draws.choice((4, 8)), "constraints": "off"}
            request["evaluators"] = [draws.choice(BROKEN_EARLY)]
            request["judge"] = False
            request["sampling"]["max_tokens"] = draws.choice((16, 40))
    return request


async def run_wave(server: Server, client: aiohttp.ClientSession, kind: Kind, number: int) -> Wave:
    draws = random.Random(f"{kind} {number}")  # noqa: S311 - nothing secret is drawn
    requests = [make_request(kind, draws) for _ in range(AT_ONCE[kind])]
    before = await server.counters()
    answers = await asyncio.gather(*(post(client, "/v1/refine", request, 0.0) for request in requests))
    idle_seconds = await _until_idle(server)
    after = await server.counters()
    bodies = [_body(answer) for answer in answers]
    usages = [body["usage"]["total"] for body in bodies if "usage" in body]
    return Wave(
        kind,
        number,
        [_ended(*found) for found in zip(requests, answers, bodies, strict=True)],
        Tokens(*(sum(usage[name] for usage in usages) for name in ("prompt_tokens", "completion_tokens"))),
        Tokens(
            *(
                round(after.get(name, 0.0) - before.get(name, 0.0))
                for name in ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
            )
        ),
        idle_seconds,
    )


async def _until_idle(server: Server) -> float | None:
    """How long it takes until the engine has nothing to do."""
    began = time.monotonic()
    while time.monotonic() - began < IDLE_SECONDS:
        found = await server.counters()
        if not found["vllm:num_requests_running"] + found["vllm:num_requests_waiting"]:
            return time.monotonic() - began
        await asyncio.sleep(0.05)
    return None


def _body(answer: Answer) -> dict[str, Any]:
    try:
        body: dict[str, Any] = json.loads(answer.body)
    except ValueError:
        return {}
    return body


def _ended(request: Mapping[str, Any], answer: Answer, body: Mapping[str, Any]) -> Ended:
    budget = request.get("budget", {})
    seconds = budget.get("seconds")
    usage = body.get("usage", {}).get("total", {})
    return Ended(
        request["search"]["preset"],
        budget.get("tokens", seconds),
        answer.status,
        body.get("code"),
        body.get("stop_reason"),
        usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0),
        None if seconds is None else answer.ended - answer.sent - seconds,
        sum(len(round_["lost"]) for round_ in body.get("rounds", ()) if "lost" in round_),
    )


def find_faults(wave: Wave) -> Sequence[str]:
    """What does not hold in a wave, other than times."""
    faults = []
    if wave.account != wave.counted:
        faults.append(f"the answers account for {wave.account}, and the engine counted {wave.counted}")
    if wave.idle_seconds is None:
        faults.append(f"the engine still had work after {IDLE_SECONDS:g} s")
    for one in wave.ended:
        if one.status != HTTPStatus.OK and (wave.kind != "deadline" or one.code != "deadline_exceeded"):
            faults.append(f"{one.preset} with {one.limit}: {one.status} {one.code}")
        if wave.kind == "budget" and one.limit is not None and one.tokens > one.limit:
            faults.append(f"{one.preset} spent {one.tokens} of {one.limit:g} tokens")
    return [f"{wave.kind} {wave.number}: {fault}" for fault in faults]


def summarize(waves: Sequence[Wave]) -> str:
    """What was run, the distributions, and what does not hold."""
    lines = []
    for kind in KINDS:
        found = [wave for wave in waves if wave.kind == kind]
        ended = [one for wave in found for one in wave.ended]
        if not ended:
            continue
        idle = [wave.idle_seconds for wave in found if wave.idle_seconds is not None]
        spent = sum(wave.counted.prompt + wave.counted.completion for wave in found)
        failed = sum(one.status != HTTPStatus.OK for one in ended)
        lines.append(f"{kind}: {len(ended)} refines, {spent} tokens, {failed} without an answer")
        lines.append(f"  the engine is idle after {_spread(idle)} s")
        match kind:
            case "budget":
                shares = [one.tokens / one.limit for one in ended if one.limit]
                cut = sum(one.stop_reason == "budget" for one in ended)
                lines.append(f"  {cut} ended by their budget; spent of it: {_spread(shares)}")
            case "deadline":
                cut = sum(one.stop_reason == "deadline" for one in ended)
                late = [one.late for one in ended if one.late is not None and one.stop_reason in ("deadline", None)]
                lines.append(f"  {cut} ended by their deadline; seconds after it: {_spread(late)}")
                lines.append(f"  later than 0.5 s: {sum(seconds > 0.5 for seconds in late)}")
            case "abort":
                lines.append(f"  {sum(one.lost for one in ended)} texts were given up")
    faults = [fault for wave in waves for fault in find_faults(wave)]
    return "\n".join([*lines, *(faults or ["everything holds"])])


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "unknown"
    ordered = sorted(values)
    shares = {"median": 0.5, "90 %": 0.9, "99 %": 0.99, "most": 1.0}
    return ", ".join(f"{name} {ordered[int(share * (len(ordered) - 1))]:.2f}" for name, share in shares.items())


class Check:
    """The waves so far, and those that are missing."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._records: Records[Wave] = Records(options.results, Wave)
        self.waves = list(self._records.read())
        self._end = time.monotonic() + 60 * options.minutes

    def next_wave(self) -> tuple[Kind, int] | None:
        """The kind that has come least far, and its wave; None if all are there, or the time is over."""
        if time.monotonic() >= self._end:
            return None
        share, kind = min((self._share_done(kind), kind) for kind in KINDS)
        return (kind, sum(wave.kind == kind for wave in self.waves)) if share < 1 else None

    def _share_done(self, kind: Kind) -> float:
        ended = [one for wave in self.waves if wave.kind == kind for one in wave.ended]
        if kind == "abort":
            return sum(one.lost for one in ended) / self._options.aborted
        return len(ended) / self._options.refines

    def add(self, wave: Wave) -> None:
        self._records.append(wave)
        self.waves.append(wave)
        for fault in find_faults(wave):
            say(fault)


@asynccontextmanager
async def _serving() -> AsyncIterator[tuple[Server, aiohttp.ClientSession]]:
    settings = {"REDRAFT_MAX_PROGRAMS": "256", "VLLM_CPU_KVCACHE_SPACE": "1"}  # GiB: the texts are short
    async with redraft(settings) as server, unlimited_client(server.url) as client:
        yield server, client


async def check(options: Options) -> int:
    """Run what is missing, and print what came of all. Returns 1 if something does not hold."""
    checked = Check(options)
    if checked.next_wave() is not None:
        async with _serving() as (server, client):
            while (following := checked.next_wave()) is not None:
                checked.add(await run_wave(server, client, *following))
                say(f"{following[0]} {following[1]} done")
    print(summarize(checked.waves))  # noqa: T201 - it is what the check is run for
    return int(any(find_faults(wave) for wave in checked.waves))


if __name__ == "__main__":
    sys.exit(asyncio.run(check(parse_options("bench.scenarios.bounds", Options, __doc__))))
