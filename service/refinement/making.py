"""The texts of one round: what each is to be, how the model is asked for it, and who writes it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from service.constraints.algebra import Compiled
from service.engines.base import Completion, Usage
from service.engines.conversation import Conversation
from service.errors import Cancelled, PromptTooLong
from service.refinement import voices
from service.refinement.accounting import Emit, LimitReached
from service.refinement.branching import Expansion
from service.refinement.candidate import Lost
from service.refinement.constraining import enforced_on
from service.refinement.events import CandidateFailed, ConstraintFailed
from service.refinement.program import Refine
from service.refinement.roles import CallRole, Models
from service.refinement.showing import show_text
from service.refinement.steps import EngineSteps, Guidance
from service.refinement.watched import Watch
from service.refinement.writing import Show

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """Texts to make: ``count`` of the same expansion, and what their prompts say.

    ``first``: the number of the first of them in the program. ``candidate``: whether the candidate for the writer's
    place writes them.
    """

    expansion: Expansion
    guidance: Guidance
    count: int
    first: int
    candidate: bool = False


@dataclass(frozen=True)
class Text:
    """A finished text, what it replies to, and the model that wrote it; None for the caller."""

    expansion: Expansion
    asked: Conversation
    completion: Completion
    under: Compiled | None = None
    model: str | None = None


@dataclass
class Making:
    """Makes the texts of one round.

    ``round``, ``first``: the round's number, and that of its first text in the program. ``texts``: those that are
    finished, by their numbers. ``lost``: those that were stopped.
    """

    program: Refine
    models: Models
    steps: EngineSteps
    emit: Emit
    round: int
    first: int
    texts: dict[int, Text] = field(default_factory=dict)
    lost: list[Lost] = field(default_factory=list)

    def take(self, draft: str) -> None:
        """Have a text of the caller's for the first."""
        self.texts[self.first] = Text(Expansion("draft"), self.program.request, Completion(draft, "stop", Usage()))

    def share(self, plan: Plan) -> Sequence[Plan]:
        """A plan for drafts as one plan for each, every second of them the candidate's; itself where there is none."""
        if self.models.candidate is None:
            return [plan]
        numbers = range(plan.first, plan.first + plan.count)
        turns = [voices.is_candidates(self.program.id, number) for number in numbers]
        return [
            replace(plan, count=1, first=number, candidate=turn) for number, turn in zip(numbers, turns, strict=True)
        ]

    async def make(self, plan: Plan) -> None:
        """Write the texts of a plan. The writer writes what its candidate cannot."""
        if not plan.candidate:
            await self._make(plan)
            return
        try:
            await self._make(plan)
        except (LimitReached, PromptTooLong, Cancelled):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the writer may do better
            await self._make(replace(plan, candidate=False))
            self.emit(CandidateFailed(self.models.candidate or "", self.models.writer, voices.describe(error)))

    async def _make(self, plan: Plan) -> None:
        sampling = self.program.sampling.sibling(plan.first)
        asked = await self._ask(plan, sampling.max_tokens)
        under = await self.steps.constraining.of(plan.expansion)
        role: CallRole = "draft" if plan.expansion.form == "draft" else "revise"
        engine = self.steps.writer(role, candidate=plan.candidate)

        def keep(number: int, text: Completion) -> None:
            if under is not None and text.breaks_grammar:
                self.steps.constraining.forget()
                report(ConstraintFailed("decoder", under.enforced_rules), self.program, self.emit)
            self.texts[plan.first + number] = Text(plan.expansion, asked, text, enforced_on(text, under), engine.model)

        search = self.program.search
        watch = Watch(self.program.evaluators, search.repairs, self.lost.append, self.emit) if search.aborts else None
        begin = partial(self._show, plan) if self.program.deltas else None
        await self.steps.write(engine, asked, sampling, plan.count, keep, watch, under, begin)

    async def _ask(self, plan: Plan, tokens: int) -> Conversation:
        form, parent = plan.expansion.form, plan.expansion.parent
        if form == "edit" and parent is not None:
            return await self.steps.edit(parent, plan.guidance, tokens)
        return self.program.request if form == "draft" else self.steps.redraft(plan.guidance)

    def _show(self, plan: Plan, number: int) -> Show:
        """What a text of a plan is shown to, while it is written."""
        index = plan.first + number - self.first
        return show_text(self.emit, self.round, index, plan.expansion.form, shown_parent(plan.expansion))


def shown_parent(expansion: Expansion) -> str | None:
    """The id of the candidate that the model sees while it writes, if any."""
    return expansion.parent.id if expansion.form == "edit" and expansion.parent else None


def report(failed: ConstraintFailed, program: Refine, emit: Emit) -> None:
    """Tell the operator of a fault in the service or in its engine; no caller can cause one."""
    log.warning(
        "a constraint was not kept",
        extra={"program": program.id, "cause": failed.cause, "rules": list(failed.rules)},
    )
    emit(failed)
