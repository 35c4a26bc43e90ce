"""An evaluator behind a URL, which somebody else runs. docs/guide/webhooks.md describes the protocol."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le, Len
from pydantic import StringConstraints, TypeAdapter, ValidationError

from service.evaluators.base import (
    STRICT,
    Authority,
    Evaluation,
    Issue,
    RefusedField,
    Submission,
    Weight,
    resolve_hard,
)
from service.evaluators.external.webhook_client import Hook, WebhookMistaken, Webhooks
from service.evaluators.text.words import excerpt
from service.evaluators.toolbox import Toolbox
from service.fail_fast import FAIL_FAST

MAX_REASON = 200
"""Characters of the message about an invalid answer, which may quote the names of its fields."""


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """A webhook: one that the operator has configured, by its ``name``, or the caller's own, by its ``url``.

    The operator says whether a named one is a verifier or a judge; a caller's own is a verifier. ``hard`` is true by
    default for a verifier. A judge is never hard.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    type: Literal["webhook"] = "webhook"
    name: Annotated[str, Len(1, 64)] | None = None
    url: Annotated[str, Len(1, 2048)] | None = None
    hard: bool | None = None
    weight: Weight = 1.0

    def __post_init__(self) -> None:
        if (self.name is None) == (self.url is None):
            raise ValueError("exactly one of name and url is needed")

    def resolve(self, tools: Toolbox) -> "WebhookEvaluator":
        hook = self._find_hook(tools)
        return WebhookEvaluator(hook, hard=resolve_hard(self.hard, hook.authority), weight=self.weight)

    def _find_hook(self, tools: Toolbox) -> Hook:
        webhooks = tools.find(Webhooks) or Webhooks()
        if self.url is not None:
            try:
                return webhooks.at(self.url)
            except ValueError as error:
                raise RefusedField("url", str(error)) from None
        hook = webhooks.named(self.name or "")
        if hook is None:
            raise RefusedField("name", "the operator has not configured a webhook of this name")
        return hook


NonBlank = StringConstraints(strip_whitespace=True, min_length=1)
"""Text that is not blank, without the white space around it."""


@dataclass(frozen=True, kw_only=True)
class WebhookIssue:
    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    message: Annotated[str, NonBlank, Len(1, 500)]
    rule: Annotated[str, NonBlank, Len(1, 64)] = "webhook"
    instruction: Annotated[str, NonBlank, Len(1, 300)] | None = None


@dataclass(frozen=True, kw_only=True)
class WebhookAnswer:
    """A webhook's answer. Unknown fields are refused, because a misspelt ``issues`` would be lost without a word."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    score: Annotated[float, Ge(0.0), Le(1.0)]
    passed: bool | None = None
    issues: Annotated[tuple[WebhookIssue, ...], Len(0, 20), FAIL_FAST] = ()


_ANSWER = TypeAdapter(WebhookAnswer)


@dataclass(frozen=True)
class WebhookEvaluator:
    type: ClassVar[str] = "webhook"

    hook: Hook
    hard: bool
    weight: float

    @property
    def authority(self) -> Authority:
        return self.hook.authority

    async def evaluate(self, submission: Submission) -> Evaluation:
        """Raises WebhookFailed."""
        answer = _parse(await self.hook.ask(self._question(submission)))
        verifies = self.authority == "verifier"
        if answer.passed not in ((None, answer.score == 1.0) if verifies else (None,)):
            expected = "true exactly when score is 1" if verifies else "left out by a judge"
            raise WebhookMistaken(f"the answer's passed must be {expected}")
        issues = tuple(Issue(issue.rule, issue.message, issue.instruction or issue.message) for issue in answer.issues)
        return Evaluation.from_evaluator(self, answer.score, issues=issues)

    def _question(self, submission: Submission) -> bytes:
        question = {
            "evaluator": self.hook.name,
            "candidate": submission.text,
            "request": [{"role": turn.role, "content": turn.text} for turn in submission.request.turns()],
        }
        return json.dumps(question).encode()  # in ASCII, so that any string can be sent


def _parse(body: bytes) -> WebhookAnswer:
    try:
        return _ANSWER.validate_json(body)
    except ValidationError as error:
        fault = error.errors()[0]
        where = "".join(f"{step}: " for step in fault["loc"])
        raise WebhookMistaken(excerpt(f"the answer is wrong: {where}{fault['msg']}", MAX_REASON)) from None
