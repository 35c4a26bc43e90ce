"""The engine work of a program: draft, evaluate, critique, revise, vote. Each is metered under its role.

Prompts extend the program's request and put the role's instruction last, so that every step shares the
request's tokens. An edit extends the conversation in which its text was written.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from service.concurrency import SerialThread, settle
from service.constraints.algebra import Compiled
from service.engines.base import Choose, Completion, Engine, Sample, Sampling
from service.engines.conversation import Conversation, Turn
from service.engines.siblings import fan_out
from service.errors import EngineUnavailable, PromptTooLong, wrong_field
from service.evaluators.base import Authority, Evaluation, EvaluationFailed, Evaluator, Issue, Submission
from service.evaluators.text.script import instruction_language
from service.refinement import repairs, telemetry
from service.refinement.accounting import Emit, Ledger, LimitReached, MeteredEngine
from service.refinement.candidate import Assessment, Candidate, Critique
from service.refinement.constraining import Constraining, sample_under, will_have_spaces
from service.refinement.critic import OWN_SAMPLING, SAMPLING, SCHEMAS, ModelCritic
from service.refinement.departures import Departure, is_long, largest, weigh
from service.refinement.events import EvaluatorEnded, RepairEnded
from service.refinement.landing import Rules
from service.refinement.program import EvaluatedProgram, Refine, Review
from service.refinement.prompts import Prompts
from service.refinement.roles import CallRole, Roles
from service.refinement.watched import Watch, write_landing, write_watched
from service.refinement.writing import Show

log = logging.getLogger(__name__)

Keep = Callable[[int, Completion], None]
"""Called with the index and the completion of each sibling, finished or cut."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST_VOTED_ON = len(LETTERS)


@dataclass(frozen=True, slots=True)
class Guidance:
    """What a revision should do: follow the instructions of failed rules, and fix what the critic remarked.

    ``memory``: findings of earlier rounds, repeated. ``shorten``: be shorter than the last one, which was cut.
    """

    instructions: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    memory: tuple[str, ...] = ()
    shorten: bool = False


class CachedJudgePrompt:
    """A JudgePrompt that renders each question once for all candidates of a program."""

    def __init__(self, prompts: Prompts) -> None:
        self._prompts = prompts
        self._questions: dict[tuple[str, str], str] = {}

    def question(self, question: str) -> str:
        return self._render("rate", question)

    def reversed_question(self, question: str) -> str:
        return self._render("rate_reversed", question)

    def _render(self, template: str, question: str) -> str:
        if (template, question) not in self._questions:
            self._questions[template, question] = self._prompts.render(template, question=question)
        return self._questions[template, question]

    @cached_property
    def prefill(self) -> str:
        return self._prompts.render("rate_prefill")


async def warm(engine: Engine) -> None:
    """Make the calls that most programs make, so that the first program does not pay for work that an engine does once:
    compiling a grammar takes a second, and so does the first choice."""
    request = Conversation(Turn("user", "Say yes."))
    for schema in SCHEMAS:
        await engine.call(Sample(request, replace(SAMPLING, max_tokens=1), schema))
    await engine.call(Choose(request, tuple(LETTERS[:2])))


class EngineSteps:
    """What a program can ask of its engines and of its evaluators."""

    def __init__(self, brief: EvaluatedProgram, roles: Roles, ledger: Ledger, emit: Emit) -> None:
        self._brief = brief
        self._roles = roles
        self._ledger = ledger
        self._emit = emit
        self._judge_prompt = CachedJudgePrompt(brief.prompts)
        self._thread = SerialThread(brief.threads)
        self._departures: dict[tuple[str, str], Sequence[Departure] | None] = {}
        self._weighing: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    def engine(self, role: CallRole) -> MeteredEngine:
        """The engine that plays a role in this program."""
        return MeteredEngine(self._roles.of(role), role, self._ledger, as_text=self._roles.apart(role))

    def writer(self, role: CallRole, *, candidate: bool = False) -> MeteredEngine:
        """The engine that writes texts. ``candidate``: the one that may come in the writer's place, if there is one."""
        if not candidate or self._roles.candidate is None:
            return self.engine(role)
        return MeteredEngine(self._roles.candidate, role, self._ledger)

    @cached_property
    def _rules(self) -> Rules:
        return Rules(self._brief.evaluators)

    @cached_property
    def _language(self) -> str:
        return instruction_language(self._brief.request.turn.text)

    @cached_property
    def constraining(self) -> Constraining:
        brief = self._brief
        if not isinstance(brief, Refine):
            raise TypeError("only the texts of a refine are constrained")
        return Constraining(
            brief.evaluators,
            brief.search.constraints,
            brief.sampling,
            self.engine("draft"),
            self._thread,
            spaced=will_have_spaces(brief.request.turn.text, brief.evaluators),
        )

    async def fit(self) -> None:
        """Raise PromptTooLong if the request alone fills the writer's context."""
        await self.engine("draft").fit(self._brief.request)

    async def fit_budget(self, sampling: Sampling) -> None:
        """Raise InvalidRequest if the budget's tokens are too few for the request and one token of an answer."""
        tokens = self._ledger.budget.tokens
        if tokens is None:
            return
        bound = await self.engine("draft").upper_bound(Sample(self._brief.request, sampling))
        if bound.prompt_tokens >= tokens:
            least = f"the prompt may take up to {bound.prompt_tokens} tokens, so at least {bound.prompt_tokens + 1}"
            raise wrong_field("budget.tokens", f"{least} are needed for a text to begin")

    async def write(
        self,
        engine: MeteredEngine,
        conversation: Conversation,
        sampling: Sampling,
        count: int,
        keep: Keep,
        watch: Watch | None = None,
        under: Compiled | None = None,
        begin: Callable[[int], Show] | None = None,
    ) -> None:
        """Sample ``count`` replies side by side, and keep each as soon as it is finished, or cut.

        As many are at work as surely fit the budget; each that ends early makes room for the next. What is raised, such
        as BudgetSpent for those that found no room, is raised after the others have finished.

        - ``engine``: writes them
        - ``watch``: how texts are watched, if they are
        - ``under``: what constrains them. If the decoder fails at that and writes nothing, the reply is sampled freely.
        - ``begin``: called with a reply's number before each text that is tried for it, if they are to be shown
        """

        async def write_one(index: int, sample: Sample, keep_one: Callable[[Completion], None]) -> None:
            begin_one = None if begin is None else partial(begin, index)
            if watch is None:
                await write_landing(engine, sample, keep_one, self._rules, begin=begin_one)
            else:
                await write_watched(engine, sample, keep_one, self._rules, watch, begin_one)

        async def write(index: int, sibling: Sample) -> None:
            lost: list[Completion] = []

            def keep_unless_lost(text: Completion) -> None:
                (lost.append if text.breaks_grammar and not text.text.strip() else partial(keep, index))(text)

            await write_one(index, sibling, keep_unless_lost)
            if lost:
                free = Sample(conversation, sibling.sampling)
                await write_one(index, free, lambda text: keep(index, replace(text, breaks_grammar=True)))

        await fan_out(sample_under(conversation, sampling, under), count, write, settle)

    async def assess(self, text: str, keep: Callable[[Assessment], None], *, complete: bool = True) -> None:
        """Evaluate a text, and call ``keep`` with the results so far after each evaluator, so at least once.

        ``complete``: whether the text came to its end.

        Verifiers run first, so that their results are known if the time runs out among the judges. An evaluator that
        fails loses only its own result, which then has an error. The same holds if the judge's engine is gone, unless
        it is also the writer's.
        """
        evaluators = self._brief.evaluators
        submission = Submission(
            text=text,
            request=self._brief.request,
            shown=self._brief.show(text, self._brief.fence),
            judge_prompt=self._judge_prompt,
            engine=self.engine("judge"),
            thread=self._thread,
            language=self._language,
            evaluators=len(evaluators),
            reversed_question=self._judge_prompt.reversed_question if self._brief.both_directions else None,
            departure=partial(self._departure, text),
        )

        # Every evaluator begins without a result, in case the time runs out.
        results = [_failed_evaluation(evaluator, "not evaluated") for evaluator in evaluators]
        if not results:
            keep(Assessment((), complete))

        async def evaluate(index: int) -> None:
            with telemetry.evaluator(evaluators[index], expected=(LimitReached,)):
                results[index] = await self._evaluate(evaluators[index], submission)
                telemetry.evaluated(results[index])
            keep(Assessment(tuple(results), complete))

        # Verifiers first, then judges; within each group all run side by side.
        authorities: tuple[Authority, ...] = ("verifier", "judge")
        for authority in authorities:
            await settle(
                evaluate(index) for index, evaluator in enumerate(evaluators) if evaluator.authority == authority
            )

    async def _departure(self, text: str) -> float | None:
        """The largest departure of a word from what the judge's model would have written, in nats."""
        departures = await self._departures_of(self.engine("judge"), text)
        return None if departures is None else largest([each for each in departures if each.is_of_words])

    async def _departures_of(self, engine: MeteredEngine, text: str) -> Sequence[Departure] | None:
        """Where the text departs from what a model would have written; None if that is not known. Judges and critic
        share it if they are one model, because the cache of prompts does not serve it."""
        if is_long(self._brief.request, text):
            return None
        known = engine.model, text
        async with self._weighing[known]:
            if known not in self._departures:
                self._departures[known] = await weigh(engine, self._brief.request, text)
        return self._departures[known]

    async def repair(self, completion: Completion) -> str | None:
        """Repair a text as far as code can; None if its verifiers like nothing better."""
        verifiers = repairs.local_verifiers(self._brief.evaluators)
        if not verifiers:
            return None
        try:
            repair = partial(repairs.repair, completion.text, verifiers, unfinished=completion.finish_reason != "stop")
            done = await self._thread.run(repair) if repairs.is_slow(completion.text, verifiers) else repair()
        except Exception as error:
            log.warning("a repair failed", exc_info=error)
            return None
        for rule in sorted(done.tried):
            self._emit(RepairEnded(rule, kept=rule in done.kept))
        return done.text

    async def _evaluate(self, evaluator: Evaluator, submission: Submission) -> Evaluation:
        started = time.perf_counter()
        try:
            evaluation = _sanitize(await evaluator.evaluate(submission))
        except LimitReached:
            raise
        except EngineUnavailable as error:
            if not self._roles.apart("judge"):
                raise
            judge = self._roles.judge.model
            log.warning("the judge cannot serve", extra={"model": judge, "reason": str(error)})
            evaluation = _failed_evaluation(evaluator, f"{judge} cannot serve: {error}")
        except EvaluationFailed as error:
            reason = str(error) if error.loggable else type(error).__name__
            log.info("no evaluation", extra={"evaluator": evaluator.type, "reason": reason})
            evaluation = _failed_evaluation(evaluator, str(error))
        except Exception as error:
            log.warning("an evaluator failed", extra={"evaluator": evaluator.type}, exc_info=error)
            evaluation = _failed_evaluation(evaluator, f"{type(error).__name__}: {error}")
        seconds = time.perf_counter() - started
        self._emit(EvaluatorEnded(evaluator.type, seconds, failed=evaluation.error is not None))
        return evaluation

    async def critique(
        self,
        candidate: Candidate,
        assessment: Assessment | None,
        principles: Sequence[str],
        *,
        factored: bool = False,
        doubted: bool = False,
    ) -> Critique:
        """Ask the model what should change in a candidate; the parameters are those of ModelCritic.criticise."""
        engine = self.engine("critique")
        own = await self._own_answer(engine, candidate.text)
        critic = ModelCritic(self._brief, engine, self._ledger, partial(self._departures_of, engine), own)
        try:
            return await critic.criticise(candidate, assessment, principles, factored=factored, doubted=doubted)
        except PromptTooLong:
            if own is None:
                raise
        alone = replace(critic, own=None)
        return await alone.criticise(candidate, assessment, principles, factored=factored, doubted=doubted)

    async def _own_answer(self, engine: MeteredEngine, text: str) -> Completion | None:
        """What a critic answers itself, to compare a caller's text with; None if there is nothing to compare.

        The texts of a refine are mostly the model's own answers, so one more of them says little. A model that is not
        trusted as a judge gains nothing from its answer.
        """
        brief = self._brief
        if not isinstance(brief, Review) or brief.critic_trust.level == "none" or is_long(brief.request, text):
            return None
        own = await engine.call(Sample(brief.request, OWN_SAMPLING))
        return own if own.text.strip() else None

    async def edit(self, candidate: Candidate, guidance: Guidance, tokens: int) -> Conversation:
        """The conversation that asks for a better version of a candidate, of up to ``tokens``.

        The critique is part of the prompt and not a separate turn, after which small models go on answering as the
        critic.
        """
        return await self._append(candidate, self._render_guidance("edit", guidance), "revise", tokens)

    def redraft(self, guidance: Guidance) -> Conversation:
        """The conversation that asks for a new answer, given what failed before.

        The guidance comes after the request, so that the request is computed once for all drafts and redrafts.
        """
        prompt = self._render_guidance("redraft", guidance)
        return self._brief.request.with_user(prompt) if prompt.strip() else self._brief.request

    def _render_guidance(self, template: str, guidance: Guidance) -> str:
        prompts, instructions = self._brief.prompts, guidance.instructions
        if guidance.shorten:
            instructions = (*instructions, prompts.render("shorten", language=self._language).strip())
        return prompts.render(template, instructions=instructions, remarks=guidance.remarks, memory=guidance.memory)

    async def vote(self, texts: Sequence[str]) -> int:
        """The index of the text that agrees best with the others, by the model's choice among their letters.

        At most MOST_VOTED_ON texts.
        """
        choice = await self.engine("judge").call(self._letters("vote", texts))
        return max(range(len(texts)), key=choice.logprobs.__getitem__)

    async def prefers(self, challenger: str, incumbent: str) -> bool:
        """Whether the model finds the challenger better in both orders of the two: models favour a position."""
        orders = [
            self._letters("compare", [challenger, incumbent]),
            self._letters("compare", [incumbent, challenger]),
        ]
        one, other = await self.engine("judge").call_together(orders)
        return one.logprobs[0] > one.logprobs[1] and other.logprobs[1] > other.logprobs[0]

    def _letters(self, template: str, texts: Sequence[str]) -> Choose:
        """The choice between the texts' letters as the answer to a question about them all."""
        letters = tuple(LETTERS[: len(texts)])
        candidates = dict(zip(letters, texts, strict=True))
        prompt = self._brief.prompts.render(template, candidates=candidates, fence=self._brief.fence)
        prefill = self._brief.prompts.render(f"{template}_prefill")
        return Choose(self._brief.request.with_user(prompt), letters, prefill)

    async def _append(self, candidate: Candidate, prompt: str, role: CallRole, tokens: int) -> Conversation:
        """The prompt, appended to the conversation that ends with the candidate, which the engine has in its cache.

        If that leaves no room for ``tokens``, the candidate follows the request alone, without its ancestors.
        """
        grown = candidate.conversation.with_user(prompt)
        try:
            await self.engine(role).fit(grown, tokens)
        except PromptTooLong:
            return self._brief.request.with_reply(candidate.completion).with_user(prompt)
        return grown


def _failed_evaluation(evaluator: Evaluator, error: str) -> Evaluation:
    return Evaluation.from_evaluator(evaluator, None, error=_drop_surrogates(error))


def _sanitize(evaluation: Evaluation) -> Evaluation:
    """The evaluation with texts that can be encoded as UTF-8."""
    if not evaluation.issues and evaluation.error is None:
        return evaluation
    issues = tuple(
        Issue(_drop_surrogates(issue.rule), _drop_surrogates(issue.message), _drop_surrogates(issue.instruction))
        for issue in evaluation.issues
    )
    return replace(evaluation, issues=issues, error=evaluation.error and _drop_surrogates(evaluation.error))


def _drop_surrogates(text: str) -> str:
    """The text without lone surrogates."""
    return text if text.isascii() else text.encode(errors="replace").decode()
