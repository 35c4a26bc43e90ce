"""One program, run by a client: draft a text, then twice criticise and revise it.

The client loops use the very texts with which Redraft asks for a critique and for a revision, and like Redraft they
know of a rule that no text meets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import httpx

from bench.performance.lengths import NEVER, Lengths
from service.evaluators.text.keywords import Keywords
from service.refinement.critic import ISSUES_SCHEMA
from service.refinement.critic import SAMPLING as CRITIC_SAMPLING
from service.tasks.task import load_tasks

ROUNDS = 2
CONTRADICTION = Keywords(include=("harbour",), exclude=("harbour",))
"""No text passes it, so no program ends before its last round."""

CUT = ("budget", "deadline", "evaluators_failed", "engine_failed")
"""Stop reasons of programs that did not do all of their work."""


class ProgramCut(Exception):
    """The service did not finish a program; the message is its stop reason."""


@dataclass(frozen=True)
class Exchange:
    """A chat completion as its client sees it."""

    messages: Sequence[Mapping[str, str]]
    reply: str
    prompt_tokens: int


@dataclass(frozen=True)
class Job:
    """One program to run. ``banned``: the ids of the tokens that end a reply."""

    prompt: str
    lengths: Lengths
    seed: int
    banned: Sequence[int] = ()


class Program(Protocol):
    """A way to run a job. It gives a client loop's exchanges; the service's calls are recorded where it runs."""

    async def __call__(self, client: httpx.AsyncClient, job: Job) -> Sequence[Exchange]: ...


@dataclass(frozen=True)
class Manner:
    """How texts are sampled, and what is said to ask for a critique and for a revision."""

    temperature: float
    top_p: float
    critique: str
    revise: str


@cache
def manner_of_redraft() -> Manner:
    """That of the task ``general``, about a text that lacks CONTRADICTION's word."""
    task = load_tasks()["general"]
    [check, *_] = CONTRADICTION.check("")
    return Manner(
        temperature=task.sampling.temperature,
        top_p=task.sampling.top_p,
        critique=task.prompts.render(
            "critique", issues=(check.message,), principles=(), verifications={}, criteria={}, departures=()
        ),
        revise=task.prompts.render("edit", instructions=(check.instruction,), remarks=(), memory=()),
    )


@dataclass(frozen=True)
class ChatLoop:
    """A client's own loop over a chat API, in which every call sends the whole history.

    ``systems``: the system prompt of each role, draft, critique and revise. Without any, each call's messages extend
    those of the call before. ``feedback``: how a critique of natural length is asked for, in free text; without it
    Redraft's words and Redraft's schema are used.
    """

    systems: Mapping[str, str] | None = None
    feedback: str | None = None

    async def __call__(self, client: httpx.AsyncClient, job: Job) -> Sequence[Exchange]:
        history: list[Mapping[str, str]] = []
        exchanges: list[Exchange] = []

        async def ask(role: str, text: str, sampling: Mapping[str, Any]) -> None:
            history.append({"role": "user", "content": text})
            system = [{"role": "system", "content": self.systems[role]}] if self.systems else []
            exchanges.append(await complete(client, [*system, *history], sampling))
            history.append({"role": "assistant", "content": exchanges[-1].reply})

        manner = manner_of_redraft()
        await ask("draft", job.prompt, text_sampling(job, 0))
        for number in range(1, ROUNDS + 1):
            if self.feedback is None or job.lengths.fixed:
                await ask("critique", manner.critique, critique_sampling(job))
            else:
                await ask("critique", self.feedback, free_critique_sampling(job))
            await ask("revise", manner.revise, text_sampling(job, number))
        return exchanges


@dataclass(frozen=True)
class Refine:
    """One refine request. ``fields``: its fields apart from the prompt and the length of its texts.

    How these are sampled it leaves to the task, of which the client loops take it too.
    """

    fields: Mapping[str, Any]

    async def __call__(self, client: httpx.AsyncClient, job: Job) -> Sequence[Exchange]:
        sampling = {"max_tokens": job.lengths.text, "seed": job.seed}
        body = {"prompt": job.prompt, "sampling": sampling, "trace": False, **self.fields}
        answer = (await client.post("/v1/refine", json=body)).raise_for_status().json()
        if answer["stop_reason"] in CUT:
            raise ProgramCut(answer["stop_reason"])
        return ()


async def complete(
    client: httpx.AsyncClient, messages: Sequence[Mapping[str, str]], sampling: Mapping[str, Any]
) -> Exchange:
    """Ask vLLM's OpenAI server for a reply."""
    response = await client.post("/v1/chat/completions", json={"model": "model", "messages": messages, **sampling})
    answer = response.raise_for_status().json()
    [choice] = answer["choices"]
    return Exchange(list(messages), choice["message"]["content"], answer["usage"]["prompt_tokens"])


def text_sampling(job: Job, number: int) -> Mapping[str, Any]:
    """How the program's ``number``-th text is sampled, in Redraft as here."""
    manner = manner_of_redraft()
    sampling = {
        "temperature": manner.temperature,
        "top_p": manner.top_p,
        "max_tokens": job.lengths.text,
        "seed": job.seed + number,
    }
    return {**sampling, **unending(job.banned)} if job.lengths.fixed else sampling


def critique_sampling(job: Job) -> Mapping[str, Any]:
    """Greedy, as in Redraft; and by Redraft's schema, but free text where the length is fixed."""
    sampling = free_critique_sampling(job)
    if job.lengths.fixed:
        return {**sampling, **unending(job.banned)}
    schema = {"name": "critique", "schema": ISSUES_SCHEMA}
    return {**sampling, "response_format": {"type": "json_schema", "json_schema": schema}}


def free_critique_sampling(job: Job) -> Mapping[str, Any]:
    return {"temperature": CRITIC_SAMPLING.temperature, "max_tokens": job.lengths.critique}


def unending(banned: Sequence[int]) -> Mapping[str, Any]:
    """Sampling in which a reply ends at ``max_tokens`` and never before."""
    return {"logit_bias": {str(token): NEVER for token in banned}}
