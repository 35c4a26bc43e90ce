"""The engine work of a program: draft, evaluate, critique, revise, vote. Each is metered under its role.

Prompts extend the program's request and put the role's instruction last, so that every step shares the
request's tokens. Each critique and edit extends the conversation in which the text that it is about was written.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pydantic_core import from_json

from service.concurrency import SerialThread, settle
from service.engines.base import Choose, Completion, Engine, JsonSchema, Sample, Sampling
from service.engines.conversation import Conversation, Turn
from service.engines.siblings import fan_out
from service.errors import EngineUnavailable, PromptTooLong
from service.evaluators.base import Authority, Evaluation, EvaluationFailed, Evaluator, Issue, Submission
from service.evaluators.text.script import instruction_language
from service.refinement import telemetry
from service.refinement.accounting import BudgetSpent, Emit, Ledger, MeteredEngine
from service.refinement.candidate import Assessment, Candidate, Critique, Verification
from service.refinement.events import EvaluatorEnded
from service.refinement.program import EvaluatedProgram
from service.refinement.prompts import Prompts
from service.refinement.roles import CallRole, Roles

log = logging.getLogger(__name__)

CRITIC_SAMPLING = Sampling(temperature=0.0, max_tokens=160, thinking=False)
ANSWER_SAMPLING = Sampling(temperature=0.0, max_tokens=60, thinking=False)
"""Too few tokens for thoughts: the critic says what it sees, as the judge does."""


MOST_LISTED = 3


def _list_of_sentences(name: str) -> JsonSchema:
    sentence = {"type": "string", "minLength": 1, "maxLength": 200}
    return {
        "type": "object",
        "properties": {name: {"type": "array", "maxItems": MOST_LISTED, "items": sentence}},
        "required": [name],
        "additionalProperties": False,
    }


CRITIQUE_SCHEMA = _list_of_sentences("issues")
QUESTIONS_SCHEMA = _list_of_sentences("questions")
Keep = Callable[[int, Completion], None]
"""Is given each finished sibling with its index."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST_VOTED_ON = len(LETTERS)


@dataclass(frozen=True, slots=True)
class Guidance:
    """What a revision should do: meet the instructions of failed rules, mend what the critic remarked.

    ``memory``: findings of earlier rounds, told again.
    """

    instructions: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    memory: tuple[str, ...] = ()


class CachedJudgePrompt:
    """A judge's question, by the task's prompts. It is rendered once for all candidates of a program."""

    def __init__(self, prompts: Prompts) -> None:
        self._prompts = prompts
        self._questions: dict[str, str] = {}

    def question(self, question: str) -> str:
        if question not in self._questions:
            self._questions[question] = self._prompts.render("rate", question=question)
        return self._questions[question]

    @cached_property
    def prefill(self) -> str:
        return self._prompts.render("rate_lead")


async def warm(engine: Engine) -> None:
    """Make the calls that most programs make, so that the first program does not pay for what an engine does once: a
    grammar is compiled in a second, and the first choice takes as long."""
    request = Conversation(Turn("user", "Say yes."))
    for schema in (CRITIQUE_SCHEMA, QUESTIONS_SCHEMA):
        await engine.call(Sample(request, replace(CRITIC_SAMPLING, max_tokens=1), schema))
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

    def engine(self, role: CallRole) -> MeteredEngine:
        """The engine that plays a role in this program."""
        return MeteredEngine(self._roles.of(role), role, self._ledger, as_text=self._roles.apart(role))

    @cached_property
    def _language(self) -> str:
        return instruction_language(self._brief.request.turn.text)

    async def fit(self) -> None:
        """Raise PromptTooLong if the request alone fills the writer's context."""
        await self.engine("draft").fit(self._brief.request)

    async def write(
        self, role: CallRole, conversation: Conversation, sampling: Sampling, count: int, keep: Keep
    ) -> None:
        """Sample ``count`` replies side by side, or as many as the budget allows; each is kept once it is finished."""
        if count == 0:
            return
        count, max_tokens = self._ledger.affordable(count, sampling.max_tokens)
        engine = self.engine(role)

        async def write(index: int, sibling: Sample) -> None:
            keep(index, await engine.call(sibling))

        sample = Sample(conversation, replace(sampling, max_tokens=max_tokens))
        await fan_out(sample, count, write, settle)

    async def assess(self, text: str, keep: Callable[[Assessment], None]) -> None:
        """Evaluate a text. ``keep`` is given what is known so far after each evaluator, so at least once.

        Verifiers go first, so that their results are there should the time run out among the judges. An
        evaluator that fails loses only its own result, which then says so. So does one whose engine is gone, unless
        that is the writer's too.
        """
        evaluators = self._brief.evaluators
        shown = self._brief.prompts.render("exhibit", candidate=text, fence=self._brief.fence)
        submission = Submission(
            text=text,
            request=self._brief.request,
            shown=self._brief.request.with_user(shown),
            judge_prompt=self._judge_prompt,
            engine=self.engine("judge"),
            thread=self._thread,
            language=self._language,
            evaluators=len(evaluators),
        )
        results = [_without_result(evaluator, "not evaluated") for evaluator in evaluators]
        if not results:
            keep(Assessment(()))

        async def evaluate(index: int) -> None:
            with telemetry.evaluator(evaluators[index], expected=(BudgetSpent,)):
                results[index] = await self._evaluate(evaluators[index], submission)
                telemetry.evaluated(results[index])
            keep(Assessment(tuple(results)))

        authorities: tuple[Authority, ...] = ("verifier", "judge")
        for authority in authorities:
            await settle(
                evaluate(index) for index, evaluator in enumerate(evaluators) if evaluator.authority == authority
            )

    async def _evaluate(self, evaluator: Evaluator, submission: Submission) -> Evaluation:
        started = time.perf_counter()
        try:
            evaluation = _sendable(await evaluator.evaluate(submission))
        except BudgetSpent:
            raise
        except EngineUnavailable as error:
            if not self._roles.apart("judge"):
                raise
            judge = self._roles.judge.model
            log.warning("the judge cannot serve", extra={"model": judge, "reason": str(error)})
            evaluation = _without_result(evaluator, f"{judge} cannot serve: {error}")
        except EvaluationFailed as error:
            reason = str(error) if error.loggable else type(error).__name__
            log.info("no evaluation", extra={"evaluator": evaluator.type, "reason": reason})
            evaluation = _without_result(evaluator, str(error))
        except Exception as error:
            log.warning("an evaluator failed", extra={"evaluator": evaluator.type}, exc_info=error)
            evaluation = _without_result(evaluator, f"{type(error).__name__}: {error}")
        seconds = time.perf_counter() - started
        self._emit(EvaluatorEnded(evaluator.type, seconds, failed=evaluation.error is not None))
        return evaluation

    async def critique(
        self, candidate: Candidate, assessment: Assessment | None, principles: Sequence[str], *, factored: bool = False
    ) -> Critique:
        """What the evaluators found in a candidate, and what the model, told that, says should change.

        Factored, the model goes by questions that it asks itself first and answers without seeing the candidate:
        chain of verification (Dhuliawala et al. 2023, arXiv 2309.11495, section 3.3).
        """
        found = found_by_evaluators(candidate, assessment)
        verifications = await self._verifications(candidate) if factored else ()
        prompt = self._brief.prompts.render(
            "critique",
            issues=found.findings,
            principles=principles,
            verifications={verification.question: verification.answer for verification in verifications},
        )
        conversation = await self._after(candidate, prompt, "critique", CRITIC_SAMPLING.max_tokens)
        completion = await self.engine("critique").call(Sample(conversation, CRITIC_SAMPLING, CRITIQUE_SCHEMA))
        remarks = _listed("issues", completion.text)
        return replace(
            found,
            remarks=remarks or (),
            answered=remarks is not None and completion.finish_reason == "stop",
            verifications=verifications,
        )

    async def _verifications(self, candidate: Candidate) -> tuple[Verification, ...]:
        """As many as the budget allows beside the critique that is to be told them."""
        calls, _ = self._ledger.affordable(2 + MOST_LISTED, max_tokens=1)
        if calls < 3:
            return ()
        engine = self.engine("critique")
        asked = await self._after(
            candidate, self._brief.prompts.render("questions"), "critique", CRITIC_SAMPLING.max_tokens
        )
        completion = await engine.call(Sample(asked, CRITIC_SAMPLING, QUESTIONS_SCHEMA))

        async def verification(question: str) -> Verification:
            prompt = self._brief.prompts.render("answer", question=question)
            answer = await engine.call(Sample(self._brief.request.with_user(prompt), ANSWER_SAMPLING))
            return Verification(question, answer.text.strip())

        questions = list(dict.fromkeys(_listed("questions", completion.text) or ()))
        return tuple(await settle(verification(question) for question in questions[: calls - 2]))

    async def edit(self, candidate: Candidate, guidance: Guidance, tokens: int) -> Conversation:
        """What a better version of a candidate, of up to ``tokens``, is to reply to. The critique is told as guidance,
        not as a turn of its own: small models then go on answering as the critic."""
        return await self._after(candidate, self._guided("edit", guidance), "revise", tokens)

    def redraft(self, guidance: Guidance) -> Conversation:
        """What a fresh answer is to reply to, told what failed before. That is said after the request, which is then
        computed once for all drafts and redrafts."""
        prompt = self._guided("redraft", guidance)
        return self._brief.request.with_user(prompt) if prompt.strip() else self._brief.request

    def _guided(self, template: str, guidance: Guidance) -> str:
        return self._brief.prompts.render(
            template, instructions=guidance.instructions, remarks=guidance.remarks, memory=guidance.memory
        )

    async def vote(self, texts: Sequence[str]) -> int:
        """The index of the text that agrees best with the others, by the model's choice among their letters.

        At most MOST_VOTED_ON texts.
        """
        logprobs = await self._letters("vote", texts)
        return max(range(len(texts)), key=logprobs.__getitem__)

    async def prefers(self, challenger: str, incumbent: str) -> bool:
        """Whether the model finds the challenger better in both orders of the two, since models favour a place."""
        if self._ledger.affordable(2, max_tokens=1)[0] < 2:
            raise BudgetSpent
        [first, second], [third, fourth] = await settle(
            [self._letters("compare", [challenger, incumbent]), self._letters("compare", [incumbent, challenger])]
        )
        return first > second and fourth > third

    async def _letters(self, template: str, texts: Sequence[str]) -> Sequence[float]:
        """The log-probabilities of the texts' letters as the answer to a question about them all."""
        letters = tuple(LETTERS[: len(texts)])
        candidates = dict(zip(letters, texts, strict=True))
        prompt = self._brief.prompts.render(template, candidates=candidates, fence=self._brief.fence)
        prefill = self._brief.prompts.render(f"{template}_lead")
        choice = await self.engine("judge").call(Choose(self._brief.request.with_user(prompt), letters, prefill))
        return choice.logprobs

    async def _after(self, candidate: Candidate, prompt: str, role: CallRole, tokens: int) -> Conversation:
        """The prompt, put after the candidate in the conversation that the candidate ends. The engine has computed that
        and has nothing to read again. Where it leaves no room for a reply of ``tokens``, the candidate stands after
        the request alone, without the texts that it came from."""
        grown = candidate.conversation.with_user(prompt)
        try:
            await self.engine(role).fit(grown, tokens)
        except PromptTooLong:
            return self._brief.request.with_reply(candidate.completion).with_user(prompt)
        return grown


def _without_result(evaluator: Evaluator, error: str) -> Evaluation:
    return Evaluation.of(evaluator, None, error=_encodable(error))


def _sendable(evaluation: Evaluation) -> Evaluation:
    """With texts that responses and prompts can hold, whoever wrote them."""
    if not evaluation.issues and evaluation.error is None:
        return evaluation
    issues = tuple(
        Issue(_encodable(issue.rule), _encodable(issue.message), _encodable(issue.instruction))
        for issue in evaluation.issues
    )
    return replace(evaluation, issues=issues, error=evaluation.error and _encodable(evaluation.error))


def _encodable(text: str) -> str:
    """Without lone surrogates."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def found_by_evaluators(candidate: Candidate, assessment: Assessment | None) -> Critique:
    """The critique that needs no call."""
    return Critique(candidate.id, tuple(issue.message for issue in assessment.issues) if assessment else ())


def _listed(name: str, text: str) -> tuple[str, ...] | None:
    """The sentences of the list that a critic was asked for; None where it did not come to the point.

    An answer that was cut keeps its begun sentence, and one that is not JSON is one sentence.
    """
    try:
        answer: Any = from_json(text, allow_partial="trailing-strings")
    except ValueError:
        return (text.strip(),) if text.strip() else None
    if not isinstance(answer, dict) or not isinstance(answer.get(name), list):
        return None
    return tuple(sentence.strip() for sentence in answer[name] if isinstance(sentence, str) and sentence.strip())
