"""What an evaluator is: anything that scores a candidate.

A *verifier* knows the truth of what it checks (a rule, a schema, a test); a *judge* gives a model's opinion.
A request or a task file describes an evaluator by a frozen dataclass. Pydantic validates it at the edge, so constraints
are written as ``annotated_types`` and in ``__post_init__`` (a ValueError there becomes a 422 that names the field).
Most of these *are* evaluators. Those that need something that only the operator has (a sandbox, a webhook) make one
when ``resolve`` is called with the toolbox.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Protocol

from annotated_types import Ge, Gt, Le

from service.concurrency import SerialThread
from service.constraints.algebra import Constraint, Unstated
from service.engines.base import Engine
from service.engines.conversation import Conversation
from service.evaluators.toolbox import Toolbox

Authority = Literal["verifier", "judge"]
Weight = Annotated[float, Gt(0.0), Le(1000.0)]

STRICT: dict[str, Any] = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
"""Pydantic's configuration for a value that comes from a request or a task file."""


LOOP_COST = 4_000
"""The most that the checks of one text may do on the event loop, in characters looked at. It takes a few milliseconds,
even if eight texts are finished at the same moment. Anything larger runs in a thread."""


class RefusedField(ValueError):
    """Raised by ``__post_init__`` or ``resolve`` if one field is wrong. The caller learns which.

    field: name of the field. reason: what is wrong with it, as a sentence for the caller.

    >>> raise RefusedField("pattern", "missing )")
    Traceback (most recent call last):
    service.evaluators.base.RefusedField: missing )
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


class EvaluationFailed(Exception):
    """Raised by an evaluator if it has no result and no bug is to blame: a service does not answer, a test cannot run.

    The caller gets the message as the evaluation's ``error``. Any other exception is logged with its traceback.
    ``loggable``: true if the message never contains text from a caller or a model, so that it may be logged.

    >>> raise EvaluationFailed("the style guide could not be loaded")
    Traceback (most recent call last):
    service.evaluators.base.EvaluationFailed: the style guide could not be loaded
    """

    loggable: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing that is wrong with a text.

    rule: name of the rule that is broken, such as "words".
    message: what is wrong, for the caller: "61 words; at most 40 are allowed".
    instruction: the rule as an order to the writer: "Use at most 40 words.".
    """

    rule: str
    message: str
    instruction: str


@dataclass(frozen=True, slots=True)
class CriterionScore:
    """A judge's score on one criterion.

    name: of the criterion.
    score: in [0, 1]; None if the judge abstained.
    stderr: its standard error, on the same scale.
    mass: the probability that fell on Yes and No, in [0, 1].
    """

    name: str
    score: float | None
    stderr: float | None
    mass: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluator's result.

    evaluator, authority, hard, weight: the evaluator's own.
    passed: for a verifier, whether the score is 1; None for a judge and without a score.
    score: in [0, 1]; None if there is no result.
    issues: what is wrong with the text, at least one if a verifier did not pass.
    criteria: a judge's score for each criterion.
    stderr: the standard error of ``score``, for a judge.
    error: why there is no result.
    """

    evaluator: str
    authority: Authority
    hard: bool
    weight: float
    passed: bool | None
    score: float | None
    issues: Sequence[Issue] = ()
    criteria: tuple[CriterionScore, ...] = ()
    stderr: float | None = None
    error: str | None = None

    @classmethod
    def from_evaluator(
        cls,
        evaluator: "Evaluator",
        score: float | None,
        *,
        issues: Sequence[Issue] = (),
        criteria: tuple[CriterionScore, ...] = (),
        stderr: float | None = None,
        error: str | None = None,
    ) -> "Evaluation":
        """The result of ``evaluator``, from which the other fields are taken.

        >>> Evaluation.from_evaluator(self, 0.5, issues=[Issue("tone", "too loud", "Write calmly.")])
        """
        passed = None if score is None or evaluator.authority == "judge" else score == 1.0
        return cls(
            evaluator=evaluator.type,
            authority=evaluator.authority,
            hard=evaluator.hard,
            weight=evaluator.weight,
            passed=passed,
            score=score,
            issues=issues,
            criteria=criteria,
            stderr=stderr,
            error=error,
        )


class JudgePrompt(Protocol):
    """How the task's prompts put a judge's question: the turn to send, and how the answer begins (``prefill``)."""

    def question(self, question: str) -> str: ...

    @property
    def prefill(self) -> str: ...


async def _unmeasured() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Submission:
    """A candidate to evaluate.

    text: the candidate.
    request: the conversation; it ends with the user turn that the candidate answers.
    shown: the request, then the candidate between two lines of a secret delimiter, and nothing else. A judge gets
        this as its context.
    judge_prompt: puts a judge's question.
    engine: for evaluators that ask a model. Its calls count against the budget.
    thread: runs functions that would block the event loop.
    language: ISO 639-1 code of the language in which the writer gets its instructions.
    evaluators: how many evaluators this text has.
    reversed_question: puts a judge's question with its answers in the other order; None if it is not asked.
    departure: how far the text departs from what the judge's model would have written, in nats; None where that cannot
        be measured.
    """

    text: str
    request: Conversation
    shown: Conversation
    judge_prompt: JudgePrompt
    engine: Engine
    thread: SerialThread = field(default_factory=SerialThread)
    language: str = "en"
    evaluators: int = 1
    reversed_question: Callable[[str], str] | None = None
    departure: Callable[[], Awaitable[float | None]] = _unmeasured


class Evaluator(Protocol):
    """Scores a submission. If it raises, only its own result is lost: the caller records the exception as ``error``."""

    @property
    def type(self) -> str: ...

    @property
    def authority(self) -> Authority: ...

    @property
    def hard(self) -> bool: ...

    @property
    def weight(self) -> float: ...

    async def evaluate(self, submission: Submission) -> Evaluation: ...


def resolve_hard(hard: bool | None, authority: Authority) -> bool:
    """Whether an evaluator is hard, if its authority is known only after ``resolve``.

    ``hard``: as the request has it; None means true for a verifier. Raises RefusedField for a hard judge.
    """
    if authority == "judge" and hard:
        raise RefusedField("hard", "a judge is never hard")
    return authority == "verifier" and hard is not False


class EvaluatorSpec(Protocol):
    """An evaluator as a request or a task file describes it, if it needs tools before it can run."""

    def resolve(self, tools: Toolbox) -> Evaluator:
        """Return the evaluator, ready to run. Raises RefusedField if this service cannot run it.

        tools: what the operator provides. ``tools.find(Sandbox)`` returns the sandbox, or None without one.
        """


@dataclass(frozen=True, slots=True)
class Check:
    """The result of checking a text against one requirement.

    rule: name of the requirement, such as "words".
    score: in [0, 1]: 1 if the requirement is met, less the farther the text is from it.
    message: what is wrong, for the caller. Ignored if the requirement is met.
    instruction: the requirement as an order to the writer.
    translations: the instruction in other languages, by ISO 639-1 code.

    >>> Check("words", 40 / 61, "61 words; at most 40 are allowed", "Use at most 40 words.")
    """

    rule: str
    score: Annotated[float, Ge(0.0), Le(1.0)]
    message: str
    instruction: str
    translations: Mapping[str, str] = field(default_factory=dict)

    def instruction_in(self, language: str) -> str:
        """The instruction in ``language``, or in English if there is no translation."""
        return self.translations.get(language, self.instruction)


@dataclass(frozen=True, kw_only=True)
class Verifier(ABC):
    """A verifier that needs nothing but the text. A subclass adds a ``type`` field and ``check``.

    hard: whether a text that fails ranks below every text that passes. weight: in the mean of all scores.

    >>> @dataclass(frozen=True, kw_only=True)
    ... class NoShouting(Verifier):
    ...     type: Literal["no_shouting"] = "no_shouting"
    ...
    ...     def check(self, text: str) -> Sequence[Check]:
    ...         score = 0.0 if text.isupper() else 1.0
    ...         return [Check("case", score, "the text is in capitals", "Do not write in capitals.")]
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    authority: ClassVar[Authority] = "verifier"
    in_thread: ClassVar[bool] = False
    """Set it to true if a check can take more than a few milliseconds, even for a short text. It then runs in a thread.
    """

    hard: bool = True
    weight: Weight = 1.0

    @property
    @abstractmethod
    def type(self) -> str: ...

    def cost(self, text: str) -> int:
        """About how many characters a check looks at. Override it if a rule looks at each character many times."""
        return len(text)

    @abstractmethod
    def check(self, text: str) -> Sequence[Check]:
        """Check ``text`` against every requirement. Return at least one check, always in the same order."""

    def repair(self, text: str) -> str | None:
        """Repair what code can repair in a text that fails, without changing what it says; None if that is nothing.

        Case, marks around the whole text, separators and the like may change. Items beyond a maximum may go from the
        end. A repair neither adds nor rewords anything and leaves code alone. It may break other rules: the caller
        checks the result against all of them.

        >>> def repair(self, text: str) -> str | None:
        ...     return text.capitalize()
        """
        return None

    def is_broken(self, beginning: str) -> bool:
        """Whether a text fails however it goes on. It is asked while a text is written, many times.

        ``beginning``: of the text, up to the end of a word. If a later word could make up for it, the answer is false.

        >>> def is_broken(self, beginning: str) -> bool:
        ...     return "!" in beginning
        """
        return False

    def constraints(self) -> Sequence[Constraint]:
        """What the rules demand of a text, as far as a grammar can hold it. A text that meets a demand passes its rule.

        Override it to have the rules enforced while the text is sampled. ``check`` still decides.
        """
        return [Constraint(self.type, Unstated("it says nothing that a grammar could hold"))]

    def resolve(self, tools: Toolbox) -> Evaluator:
        return self

    async def evaluate(self, submission: Submission) -> Evaluation:
        if self.in_thread or self.cost(submission.text) * submission.evaluators > LOOP_COST:
            checks = await submission.thread.run(self.check, submission.text)
        else:
            checks = self.check(submission.text)
        failed = [check for check in checks if check.score < 1.0]
        return Evaluation.from_evaluator(
            self,
            sum(check.score for check in checks) / len(checks),
            issues=tuple(
                Issue(check.rule, check.message, check.instruction_in(submission.language)) for check in failed
            ),
        )


def gather_constraints(evaluators: Sequence[object]) -> Sequence[Constraint]:
    """What the hard verifiers among the evaluators demand of a text, each with the evaluator's index.

    A verifier of another kind, such as unit tests, states one constraint, which says that it is only checked.
    """
    found = list[Constraint]()
    for index, evaluator in enumerate(evaluators):
        if isinstance(evaluator, Verifier):
            stated = evaluator.constraints() if evaluator.hard else ()
        elif getattr(evaluator, "authority", "judge") == "verifier":
            kind = getattr(evaluator, "type", "verifier")
            stated = (Constraint(kind, Unstated("it says nothing that a grammar could hold")),)
        else:
            stated = ()
        found += [constraint.of(index) for constraint in stated]
    return found
