"""Has a running service criticise every labelled reply by ``POST /v1/critique``, and keeps what it answers.

Replies that the file of results already has are not asked about again, so an interrupted benchmark resumes.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.critic.labels import KINDS, Labels, Message
from bench.harness.results import Results
from bench.harness.scenario import say
from redraft import AsyncRedraft, CritiqueResult


@dataclass(frozen=True)
class Origin:
    """What the answers of a file have in common."""

    model: str
    split: str
    commit: str

    def __str__(self) -> str:
        return f"{self.model}, {self.split} split, commit {self.commit}"


@dataclass(frozen=True)
class Reply:
    """A labelled reply. ``kind``: ``right``, ``subtle`` or ``plain``; of a pair, ``a`` or ``b``."""

    id: str
    kind: str
    task: str
    parameters: Mapping[str, str]
    messages: Sequence[Message]
    text: str

    @property
    def request(self) -> dict[str, Any]:
        messages = [{"role": message.role, "content": message.content} for message in self.messages]
        return {"task": self.task, "parameters": self.parameters, "messages": messages, "candidate": self.text}


@dataclass(frozen=True)
class Answer:
    """What the service says of one reply.

    score, stderr: the judge's, None if it abstained.
    fault_probability, remarks, criteria: the critic's, and the criteria that its remarks name.
    calls, prompt_tokens, cached_tokens, completion_tokens: of judge and critic together.
    """

    id: str
    kind: str
    score: float | None
    stderr: float | None
    fault_probability: float | None
    remarks: Sequence[str]
    criteria: Sequence[str | None]
    calls: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


def replies(labels: Labels) -> Iterator[Reply]:
    """All replies, item by item, so that what an interruption leaves is balanced."""
    for item in labels.items:
        for kind in KINDS:
            yield Reply(item.id, kind, item.task, item.parameters, item.messages, item.text(kind))
    for pair in labels.pairs:
        for name, reply in (("a", pair.a), ("b", pair.b)):
            yield Reply(pair.id, name, pair.task, pair.parameters, pair.messages, reply.text)


def open_results(file: Any) -> Results[Origin, Answer]:
    return Results(file, Origin, Answer)


async def ask_about(
    wanted: Sequence[Reply], client: AsyncRedraft, results: Results[Origin, Answer], *, at_once: int
) -> None:
    """Ask about every reply that is not in the results yet."""
    known = {(answer.id, answer.kind) for answer in results.read()}
    missing = [reply for reply in wanted if (reply.id, reply.kind) not in known]
    slots = asyncio.Semaphore(at_once)
    done = 0

    async def ask(reply: Reply) -> None:
        nonlocal done
        async with slots:
            results.append(read_answer(reply, await client.critique(**reply.request)))
        done += 1
        say(f"{done} of {len(missing)}")

    async with asyncio.TaskGroup() as group:
        for reply in missing:
            group.create_task(ask(reply))


def read_answer(reply: Reply, result: CritiqueResult) -> Answer:
    """What counts of a result."""
    [judge] = [evaluation for evaluation in result.evaluations if evaluation.evaluator == "judge"]
    return Answer(
        id=reply.id,
        kind=reply.kind,
        score=judge.score,
        stderr=judge.stderr,
        fault_probability=result.fault_probability,
        remarks=[remark.message for remark in result.remarks],
        criteria=[remark.criterion for remark in result.remarks],
        calls=result.usage.calls,
        prompt_tokens=result.usage.prompt_tokens,
        cached_tokens=result.usage.cached_tokens,
        completion_tokens=result.usage.completion_tokens,
    )
