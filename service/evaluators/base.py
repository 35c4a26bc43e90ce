"""What an evaluator is: anything that scores a candidate.

A *verifier* knows the truth of what it checks (a rule, a schema, a test); a *judge* gives a model's opinion.
What a request or a task file states is a frozen dataclass. Pydantic validates it at the edge, so constraints are
written as ``annotated_types`` and in ``__post_init__`` (a ValueError there becomes a 422 that names the field). Most
of them *are* evaluators; those that need something of the operator's (a sandbox, a webhook) become one when they are
``resolve`` with the toolbox.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Protocol

from annotated_types import Ge, Gt, Le

from service.concurrency import SerialThread
from service.engines.base import Engine
from service.engines.conversation import Conversation
from service.evaluators.toolbox import Toolbox

Authority = Literal["verifier", "judge"]
Weight = Annotated[float, Gt(0.0), Le(1000.0)]

STRICT: dict[str, Any] = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
"""Pydantic's configuration for a value that comes from a request or a task file."""


LOOP_COST = 4_000
"""What the checks of one text may do on the event loop, in characters looked at: some milliseconds, though eight texts
may be finished at the same moment. What takes more is done in a thread."""


class RefusedField(ValueError):
    """What ``__post_init__`` raises where one field is at fault, so that the caller is told which."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


class EvaluationFailed(Exception):
    """What an evaluator raises where no result is nobody's bug: a service that does not answer, a test that cannot run.

    The message is for the caller, as the evaluation's ``error``. Any other exception is logged with its traceback.
    ``loggable``: whether the message holds nothing that a caller or a model wrote, so that the log may hold it.
    """

    loggable: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing that is wrong. ``instruction`` is the rule as an order to a writer: "Use at most 40 words."."""

    rule: str
    message: str
    instruction: str


@dataclass(frozen=True, slots=True)
class CriterionScore:
    """A judge's score on one criterion, in [0, 1]; None where it abstained.

    ``stderr``: standard deviation of the scale's digit under the model's own probabilities, on the same scale.
    ``mass``: how much probability fell on the digits.
    """

    name: str
    score: float | None
    stderr: float | None
    mass: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluator's result. ``score`` is in [0, 1]; None where there is none, and then ``error`` may say why.

    A verifier's ``passed`` is true exactly when its score is 1. A judge's is None.
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
        """What an evaluator found out; the rest follows from who it is."""
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
    """How a judge's question is put, by the task's prompts: the turn to ask, and how the answer begins."""

    def question(self, question: str) -> str: ...

    @property
    def prefill(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Submission:
    """A candidate to evaluate.

    ``request`` ends with the user turn that the candidate answers. ``shown`` is the request followed by the
    candidate between two lines of a secret fence, and nothing else: a judge's fresh context. ``engine`` serves
    evaluators that ask a model. ``thread`` runs what would hold the event loop up.
    ``language``: the one that a reviser reads instructions in, as an ISO 639-1 code. ``evaluators``: how many there are
    for this text.
    """

    text: str
    request: Conversation
    shown: Conversation
    judge_prompt: JudgePrompt
    engine: Engine
    thread: SerialThread = field(default_factory=SerialThread)
    language: str = "en"
    evaluators: int = 1


class Evaluator(Protocol):
    """Scores a submission. What it raises costs only its own result: the caller records it as ``error``."""

    @property
    def type(self) -> str: ...

    @property
    def authority(self) -> Authority: ...

    @property
    def hard(self) -> bool: ...

    @property
    def weight(self) -> float: ...

    async def evaluate(self, submission: Submission) -> Evaluation: ...


def resolve_hard(stated: bool | None, authority: Authority) -> bool:
    """Whether an evaluator is hard whose authority shows only when it is resolved. ``stated`` as in a request, by
    default true for a verifier. RefusedField for a hard judge."""
    if authority == "judge" and stated:
        raise RefusedField("hard", "a judge is never hard")
    return authority == "verifier" and stated is not False


class EvaluatorSpec(Protocol):
    """An evaluator as a request or a task file states it."""

    def resolve(self, tools: Toolbox) -> Evaluator:
        """The evaluator, ready to run. RefusedField where this service cannot run what is stated."""


@dataclass(frozen=True, slots=True)
class Check:
    """One requirement held against a text. ``score`` is in [0, 1]: 1 if it is met, else how close the text came.

    ``translations``: the instruction in languages other than English, by ISO 639-1 code.
    """

    rule: str
    score: Annotated[float, Ge(0.0), Le(1.0)]
    message: str
    instruction: str
    translations: Mapping[str, str] = field(default_factory=dict)

    def instruction_in(self, language: str) -> str:
        """The instruction in ``language``, or in English where it is not translated."""
        return self.translations.get(language, self.instruction)


@dataclass(frozen=True, kw_only=True)
class Verifier(ABC):
    """A verifier that needs nothing but the text. A subclass adds a ``type`` field and ``check``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    authority: ClassVar[Authority] = "verifier"
    in_thread: ClassVar[bool] = False
    """Whether a check may take long on a short text too."""

    hard: bool = True
    weight: Weight = 1.0

    @property
    @abstractmethod
    def type(self) -> str: ...

    def cost(self, text: str) -> int:
        """About how many characters a check looks at. A rule that looks at each of them many times says so here."""
        return len(text)

    @abstractmethod
    def check(self, text: str) -> Sequence[Check]:
        """Hold every requirement against ``text``: at least one check, in a fixed order."""

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
