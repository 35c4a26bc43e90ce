"""Asking again with the errors: the loop that validation libraries offer and applications write themselves.

The last reply and what is wrong with it go back to the model until a reply passes. Only the last one is shown, so that
prompts do not grow, and the errors are the verifiers' instructions without an introduction, which this model follows
best (docs/results/log.md). Both make it cheaper and better than the loop as libraries have it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from service.engines.base import Completion, Engine, Sample
from service.engines.conversation import Conversation
from service.errors import PromptTooLong
from service.refinement.candidate import Assessment
from service.refinement.program import Refine


@dataclass(frozen=True)
class Reply:
    """A reply and what its verifiers found. ``reason``: why it is the last one; None if it is not."""

    completion: Completion
    assessment: Assessment
    reason: str | None


async def ask_again(
    program: Refine, engine: Engine, assess: Callable[[str], Awaitable[Assessment]]
) -> AsyncIterator[Reply]:
    """Ask until a reply passes, or until another call might pass the budget in tokens. There is at least one reply.

    assess: evaluates a text by the verifiers of the program.
    """
    spent, asked, number = 0, program.request, 0
    while True:
        completion = await engine.call(Sample(asked, program.sampling.sibling(number)))
        spent += completion.usage.tokens
        number += 1
        assessment = await assess(completion.text)
        wrong = "\n".join(dict.fromkeys(issue.instruction for issue in assessment.issues))
        asked = program.request.with_reply(completion).with_user(wrong)
        reason = None if wrong else "target"
        if reason is None and not await _fits(engine, asked, program, spent):
            reason = "budget"
        yield Reply(completion, assessment, reason)
        if reason is not None:
            return


async def _fits(engine: Engine, asked: Conversation, program: Refine, spent: int) -> bool:
    try:
        bound = await engine.upper_bound(Sample(asked, program.sampling))
    except PromptTooLong:
        return False
    return program.budget.tokens is None or spent + bound.tokens <= program.budget.tokens
