"""The loop: draft, evaluate, then round by round choose parents, critique, revise, evaluate, accept or not.

The rules that it obeys are in policy.py, and the engine work that it asks for is in steps.py.
"""

import asyncio
import itertools
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from service.concurrency import settle
from service.errors import Cancelled, DeadlineExceeded, EngineUnavailable, InvalidRequest, PromptTooLong, RedraftError
from service.refinement import policy, telemetry, voices
from service.refinement.accounting import BudgetSpent, Emit, Ledger, LimitReached, TimeIsUp
from service.refinement.archive import Archive
from service.refinement.branching import Expansion
from service.refinement.candidate import Assessment, Candidate, Critique
from service.refinement.constraining import broken_rules
from service.refinement.critic import critique_by_evaluators
from service.refinement.events import (
    CandidateAdded,
    CandidateEvaluated,
    ConstraintFailed,
    Critiqued,
    Event,
    Refined,
    Round,
    RoundEnded,
    Started,
)
from service.refinement.making import Making, Plan, report, shown_parent
from service.refinement.policy import RoundFacts, StopReason
from service.refinement.program import Refine
from service.refinement.roles import Roles
from service.refinement.steps import MOST_VOTED_ON, EngineSteps, Guidance
from service.refinement.stream import events_of

log = logging.getLogger(__name__)

T = TypeVar("T")

LAST_SECONDS = 0.25
"""For verifiers, after the deadline. A judge has none: what it asks the engine ends at the deadline."""


def refine(program: Refine, roles: Roles) -> AsyncGenerator[Event, None]:
    """Run a refine program and yield its events; the last one is Refined.

    Once anything has been drafted the program ends with Refined, whatever stops it. Before that it raises
    DeadlineExceeded, EngineUnavailable, PromptTooLong or what else kept the engine from drafting. Closing the
    generator cancels the engine's work.
    """

    async def work(emit: Emit) -> None:
        with telemetry.program("refine", program):
            await _Loop(program, roles, emit).run()

    return events_of(work)


@dataclass
class _OpenRound:
    making: Making
    candidates: list[Candidate] = field(default_factory=list)
    critiques: dict[int, Critique] = field(default_factory=dict)
    """By the place of their candidate among the round's parents."""
    critic_satisfied: bool = False
    only_repeats: bool = False
    stopped: Exception | None = None
    """What kept it from making all texts that it was to make. It is raised when those that were made are evaluated."""


class _Loop:
    """One program's search. All it learns is in the archive, the rounds and the findings."""

    def __init__(self, program: Refine, roles: Roles, emit: Emit) -> None:
        self._program = program
        self._search = program.search
        self._models = roles.models
        self._trust = program.judge_trust
        self._emit = emit
        self._ledger = Ledger(program.budget, emit, program.arrival, program.lane)
        self._steps = EngineSteps(program, roles, self._ledger, emit)
        self._random = random.Random(_seed(program))  # noqa: S311 - nothing secret is drawn
        self._archive = Archive(program.judge_trust)
        self._rounds: list[Round] = []
        self._critiques: dict[tuple[str, ...], Critique] = {}
        self._revisions: Counter[str] = Counter()
        self._findings: list[Sequence[Guidance]] = []

    async def run(self) -> None:
        await self._steps.fit()
        if self._program.draft is None:
            await self._steps.fit_budget(self._program.sampling)
        self._emit(Started(self._program.id, self._models, self._program.task, self._trust))
        reason, cause = await self._until_stopped()
        if cause is not None and not self._archive:
            raise cause
        if self._search.select == "vote" and (leader := policy.leader(self._voted_on())):
            self._archive.elect(leader)
        done = Refined(
            program=self._program.id,
            models=self._models,
            judge_trust=self._trust,
            task=self._program.task,
            selected=self._archive.incumbent,
            first=self._archive.first,
            assessments=self._archive.assessments,
            rounds=tuple(self._rounds),
            stop_reason=reason,
            usage=self._ledger.usage,
        )
        telemetry.refined(done)
        self._emit(done)

    async def _until_stopped(self) -> tuple[StopReason, RedraftError | None]:
        """Search until something ends it: why, and the error to raise should there be no draft."""
        try:
            async with asyncio.timeout_at(self._program.budget.deadline + LAST_SECONDS) as time_left:
                reason = await self._until_ruled_out()
                if self._search.select == "vote":
                    await self._vote()
                return reason, None
        except (TimeIsUp, TimeoutError) as error:
            if isinstance(error, TimeoutError) and not time_left.expired():
                raise
            return "deadline", DeadlineExceeded("the time ran out before anything was written")
        except BudgetSpent:
            return "budget", None
        except PromptTooLong as error:
            return "budget", error
        except Cancelled as error:
            return "cancelled", error
        except (EngineUnavailable, InvalidRequest) as error:
            return "engine_failed", error

    async def _until_ruled_out(self) -> StopReason:
        for number in itertools.count():
            facts = await self._round(number)
            if reason := policy.stop_reason(facts, self._search, self._program.stop, self._trust):
                return reason
        raise AssertionError("counting never ends")

    async def _round(self, number: int) -> RoundFacts:
        """One round. However it ends, its candidates challenge the incumbent and it enters the account."""
        first = len(self._archive.written)
        current = _OpenRound(Making(self._program, self._models, self._steps, self._emit, number, first))
        started = time.perf_counter()
        with telemetry.one_round(number, expected=(LimitReached, PromptTooLong)):
            try:
                await (self._improve(current) if number else self._draft(current))
                await self._repair(current)
            finally:
                if self._archive:
                    self._close(current, time.perf_counter() - started)
            if current.stopped is not None and not self._reached_target(current):
                raise current.stopped
        return self._facts(current)

    def _reached_target(self, current: _OpenRound) -> bool:
        """Whether a round that the budget cut short has reached the target."""
        if not self._archive or not isinstance(current.stopped, BudgetSpent | PromptTooLong):
            return False
        return policy.stop_reason(self._facts(current), self._search, self._program.stop) == "target"

    def _facts(self, current: _OpenRound) -> RoundFacts:
        return RoundFacts(
            number=current.making.round,
            incumbent=self._open_faults(self._archive.incumbent),
            new=[self._archive.assessments[candidate.id] for candidate in current.candidates],
            critic_satisfied=current.critic_satisfied,
            only_repeats=current.only_repeats,
            rounds_without_gain=self._rounds_without_gain(),
            incumbent_is_whole=not self._archive.incumbent.completion.is_unfinished,
        )

    async def _draft(self, current: _OpenRound) -> None:
        plans: list[Plan] = []
        if self._program.draft is not None:
            current.making.take(self._program.draft)
        else:
            bound = self._search.drafts > 1 and await self._steps.constraining.offers_bound_drafts()
            first = 0
            for expansion, count in policy.drafts(self._search.drafts, bound=bound).items():
                plans += current.making.share(Plan(expansion, Guidance(), count, first))
                first += count
        await self._evaluate(await self._write(current, plans))
        if tried := voices.compare(self._models, current.candidates, self._archive.assessments):
            self._emit(tried)

    async def _improve(self, current: _OpenRound) -> None:
        """Choose what to make, have the parents criticised, make what is wanted and evaluate what is new."""
        expansions = await self._expansions()
        parents = list(dict.fromkeys(expansion.parent for expansion in expansions if expansion.parent))
        at_fault = await self._criticised(current, parents)
        if self._search.carry == "adaptive":  # where there is nothing to change there may still be a better draft
            expansions = [e if e.parent is None or e.parent in at_fault else Expansion("draft") for e in expansions]
        plans: list[Plan] = []
        first = current.making.first
        for expansion, count in Counter(expansions).items():
            if expansion.parent is None or expansion.parent in at_fault:
                guidance = self._guidance(expansion, at_fault.get(expansion.parent))
                plans.append(Plan(expansion, guidance, count, first))
                first += count
        current.critic_satisfied = not plans
        self._findings.append([plan.guidance for plan in plans])
        new = await self._write(current, plans)
        current.only_repeats = (
            bool(new) and all(map(self._archive.twin, new)) and not any(map(self._next_differs, plans))
        )
        await self._evaluate(new)

    async def _expansions(self) -> Sequence[Expansion]:
        archive, search = self._archive, self._search
        if search.carry == "adaptive":
            written = archive.written
            chosen = policy.expansions(
                written,
                archive.assessments,
                search,
                self._random,
                constrained=await self._steps.constraining.offers_choice(),
                drafts_too=await self._steps.constraining.offers_bound_drafts(),
            )
            first = {candidate.text: candidate for candidate in reversed(written)}
            return [replace(e, parent=first[e.parent.text]) if e.parent else e for e in chosen]
        originals = [c for c in archive.candidates if archive.twin(c) is None and archive.repaired(c) is c]
        return [
            expansion
            for parent in policy.parents(originals, archive.assessments, archive.incumbent, search)
            for expansion in self._revisions_of(parent)
        ]

    async def _criticised(
        self, current: _OpenRound, parents: Sequence[Candidate]
    ) -> Mapping[Candidate | None, Critique | None]:
        """The parents that need work, each with its critique if there is a critic; not those the budget left out."""
        if self._search.critic == "none":
            return dict.fromkeys(parents)
        principles = [self._random.choice(self._program.principles)] if self._program.principles else []
        critiques = await settle(
            self._within_budget(current, self._critique(current, place, parent, principles))
            for place, parent in enumerate(parents)
        )
        found = zip(parents, critiques, strict=True)
        return {parent: critique for parent, critique in found if critique and not self._satisfied(parent, critique)}

    async def _critique(
        self, current: _OpenRound, place: int, parent: Candidate, principles: Sequence[str]
    ) -> Critique:
        """What is wrong with a parent. The model is greedy, so the same question again has the same answer."""
        known = (parent.id, *principles)
        assessment = self._open_faults(parent)
        factored, opinion = self._search.critic == "factored", self._opinion(assessment)
        if known not in self._critiques and policy.asks_model(
            self._search.critic, assessment, principles, opinion, self._trust
        ):
            self._critiques[known] = await self._steps.critique(
                parent, assessment, principles, factored=factored, doubted=opinion == "doubts"
            )
        critique = self._critiques.get(known) or critique_by_evaluators(parent, self._archive.assessment(parent))
        current.critiques[place] = critique
        self._emit(Critiqued(current.making.round, critique))
        return critique

    def _opinion(self, assessment: Assessment | None) -> policy.Opinion:
        return policy.judges_opinion(assessment, self._program.calibration, self._trust)

    def _satisfied(self, parent: Candidate, critique: Critique) -> bool:
        """Whether nobody finds fault with the parent: no verifier, no judge, and not the critic."""
        assessment = self._open_faults(parent)
        doubted = self._opinion(assessment) == "doubts"
        return policy.faultless(assessment) and not doubted and critique.answered and not critique.remarks

    def _open_faults(self, candidate: Candidate) -> Assessment | None:
        """What is known of a candidate, of which it no longer counts that it was cut once it has been revised."""
        assessment = self._archive.assessment(candidate)
        if assessment is None or not self._revisions[candidate.id]:
            return assessment
        return replace(assessment, complete=True)

    def _guidance(self, expansion: Expansion, critique: Critique | None) -> Guidance:
        """The faults that a candidate should avoid: its parent's, or without one those of all, most frequent first."""
        if expansion.form == "draft":
            return Guidance()
        about = [expansion.parent] if expansion.parent else self._archive.written
        found = map(self._open_faults, about if self._search.critic != "none" else ())
        known = [assessment for assessment in found if assessment is not None]
        broken = Counter(issue.instruction for assessment in known for issue in assessment.issues)
        instructions = tuple(instruction for instruction, _ in broken.most_common())
        shorten = not instructions and not all(assessment.complete for assessment in known)
        remarks = tuple(remark.message for remark in critique.remarks) if critique is not None else ()
        past = self._findings[-self._search.memory :] if self._search.memory else []
        lessons = [lesson for told in past for finding in told for lesson in (*finding.instructions, *finding.remarks)]
        memory = tuple(lesson for lesson in dict.fromkeys(lessons) if lesson not in (*instructions, *remarks))
        return Guidance(instructions, remarks, memory, shorten)

    async def _write(self, current: _OpenRound, plans: Sequence[Plan]) -> Sequence[Candidate]:
        """Write what the plans say, and take all texts in that were written, be it in part, whatever ended it."""
        for plan in plans:
            if plan.expansion.parent is not None:
                self._revisions[plan.expansion.parent.id] += plan.count
        try:
            await settle(self._within_budget(current, current.making.make(plan)) for plan in plans)
        except (TimeIsUp, EngineUnavailable) as error:
            current.stopped = error
        finally:
            new = self._added(current)
        if any(candidate.completion.finish_reason == "budget" for candidate in new):
            current.stopped = current.stopped or BudgetSpent()
        return new

    def _next_differs(self, plan: Plan) -> bool:
        parent = plan.expansion.parent
        following = self._revisions_of(parent) if parent is not None else ()
        told = plan.guidance != Guidance()
        return policy.differs_from_next(plan.expansion, following, self._search, told=told)

    def _revisions_of(self, parent: Candidate) -> Sequence[Expansion]:
        return policy.revisions(parent, self._archive.assessment(parent), self._revisions[parent.id], self._search)

    async def _within_budget(self, current: _OpenRound, call: Coroutine[Any, Any, T]) -> T | None:
        """What the call gives; None where the budget or the context refuses it, and then the round is the last."""
        try:
            return await call
        except (BudgetSpent, PromptTooLong) as error:
            current.stopped = error
            return None

    def _added(self, current: _OpenRound) -> Sequence[Candidate]:
        """Take the texts into the archive and the round, as candidates."""
        making = current.making
        for number in policy.whole_first({number: text.completion for number, text in making.texts.items()}):
            text = making.texts[number]
            form, parent = text.expansion.form, shown_parent(text.expansion)
            candidate = self._archive.add(
                making.round, form, parent, text.asked, text.completion, text.under, text.model
            )
            current.candidates.append(candidate)
            self._emit(CandidateAdded(candidate, number - making.first if self._program.deltas else None))
        return current.candidates

    async def _evaluate(self, candidates: Sequence[Candidate]) -> None:
        """Evaluate the candidates that say something new; the others share what evaluators found in their twin."""
        await asyncio.sleep(0)  # once the time is over, it ends here
        await settle(self._assess(candidate) for candidate in candidates if self._archive.twin(candidate) is None)
        for candidate in candidates:
            if twin := self._archive.twin(candidate):
                known = replace(self._archive.assessments[twin.id], complete=candidate.is_complete)
                self._archive.assessments[candidate.id] = known
                self._emit(CandidateEvaluated(candidate, known, self._ledger.tokens))
        if self._search.select == "pairwise":
            await self._compare([candidate for candidate in candidates if self._archive.twin(candidate) is None])

    async def _repair(self, current: _OpenRound) -> None:
        """Repair the round's texts as far as code can. The repairs join the round and are evaluated like all others."""
        repairs: list[Candidate] = []
        for candidate in current.candidates if self._search.repairs else ():
            assessment = self._archive.assessment(candidate)
            if assessment is None or not assessment.issues or self._archive.twin(candidate):
                continue
            text = await self._steps.repair(candidate.completion)
            if text is not None and (repair := self._archive.add_repair(candidate, text)):
                repairs.append(repair)
                self._emit(CandidateAdded(repair))
        if repairs:
            current.candidates += repairs
            await self._evaluate(repairs)

    async def _compare(self, challengers: Sequence[Candidate]) -> None:
        """Let each challenger in turn meet the incumbent. Where nothing else tells them apart, the model decides."""
        archive = self._archive
        for challenger in challengers:
            new, old = archive.assessment(challenger), archive.assessment(archive.incumbent)
            wins = policy.displaces(new, old, min_gain=0.0)
            if policy.comparable(new, old) and challenger.text != archive.incumbent.text:
                wins = await self._steps.prefers(challenger.text, archive.incumbent.text)
            if wins:
                archive.elect(challenger)

    async def _assess(self, candidate: Candidate) -> None:
        """Evaluate a candidate. What is known by then counts and is reported, even when this is cut short."""

        def keep(assessment: Assessment) -> None:
            self._archive.assessments[candidate.id] = assessment

        try:
            await self._steps.assess(candidate.text, keep, complete=candidate.is_complete)
        finally:
            if known := self._archive.assessment(candidate):
                self._emit(CandidateEvaluated(candidate, known, self._ledger.tokens))
                if rules := broken_rules(candidate, known, self._program.sampling):
                    report(ConstraintFailed("grammar", tuple(rules)), self._program, self._emit)

    def _close(self, current: _OpenRound, seconds: float) -> None:
        before = self._rounds[-1].incumbent if self._rounds else None
        self._archive.challenge(current.candidates, self._program.stop.min_gain)
        incumbent = self._archive.incumbent
        ended = Round(
            number=current.making.round,
            candidates=tuple(current.candidates),
            critiques=tuple(current.critiques[place] for place in sorted(current.critiques)),
            incumbent=incumbent.id,
            accepted=incumbent.id != before,
            gain=self._gain(before or self._archive.first.id, incumbent.id),
            seconds=seconds,
            lost=tuple(current.making.lost),
        )
        telemetry.round_ended(ended)
        self._rounds.append(ended)
        self._emit(RoundEnded(ended, self._ledger.tokens))

    def _gain(self, before: str, after: str) -> float | None:
        old, new = (self._archive.assessments.get(candidate) for candidate in (before, after))
        if old is None or new is None or old.score is None or new.score is None:
            return None
        return new.score - old.score

    def _rounds_without_gain(self) -> int:
        """How many of the last rounds in a row did not change the incumbent."""
        return sum(1 for _ in itertools.takewhile(lambda ended: not ended.accepted, reversed(self._rounds)))

    async def _vote(self) -> None:
        """Where no text leads, let the model choose the one that agrees best with the others: universal
        self-consistency (Chen et al. 2023, arXiv 2311.17311)."""
        groups = self._voted_on()
        if policy.leader(groups) is None:
            distinct = sorted((group[0] for group in groups), key=self._archive.candidates.index)[:MOST_VOTED_ON]
            self._archive.elect(distinct[await self._steps.vote([candidate.text for candidate in distinct])])

    def _voted_on(self) -> Sequence[Sequence[Candidate]]:
        archive = self._archive
        voters = [archive.repaired(candidate) for candidate in archive.written]
        return policy.by_content(policy.peers(voters, archive.assessments, archive.incumbent))


def _seed(program: Refine) -> str | None:
    """What the search draws from: by the seed, but not alike for every request that states the same one."""
    if program.sampling.seed is None:
        return None
    seen = "".join(f"{image.digest} " for image in program.request.images())
    return f"{program.sampling.seed} {seen}{program.request.turn.text}"
