"""What a caller may say of a text whose trace is stored."""

from typing import Annotated, Literal, Self

from annotated_types import Len
from pydantic import ConfigDict, Field, model_validator

from service.evaluators.base import RefusedField
from service.fail_fast import FAIL_FAST
from service.wire.model import BodyModel

TRACE_ID = r"^[0-9A-Za-z-]{1,64}$"
CandidateId = Annotated[str, Field(pattern=r"^[0-9a-z.]{1,16}$")]


class FeedbackRequest(BodyModel):
    """Feedback on a text of a program.

    program: the id in the answer. candidate: the text's id; by default the text that was returned.
    value: ``up`` or ``down`` for a thumb, the better text for an edit, the id of the chosen candidate for a choice, a
    number from 0 to 1 for a score.
    over: the candidates that a choice prefers it to; by default all others for the same prompt.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "program": "ref-019ac8d1f3a05b0e7c6d1f2a3b4c5d6e",
                    "kind": "edit",
                    "value": "The sun rose over the calm sea.",
                }
            ],
        }
    )

    program: Annotated[str, Field(pattern=TRACE_ID)]
    kind: Literal["thumb", "edit", "choice", "score"]
    value: str | float
    candidate: CandidateId | None = None
    over: Annotated[tuple[CandidateId, ...], Len(1, 64), FAIL_FAST] | None = None

    @model_validator(mode="after")
    def _refuse_what_does_not_fit_the_kind(self) -> Self:
        if self.kind == "choice" and self.candidate is not None:
            raise RefusedField("candidate", "of a choice, value is the chosen candidate")
        if self.kind != "choice" and self.over is not None:
            raise RefusedField("over", "only a choice has it")
        match self.kind:
            case "thumb" if self.value not in ("up", "down"):
                raise RefusedField("value", "must be up or down")
            case "edit" if not isinstance(self.value, str) or not self.value.strip():
                raise RefusedField("value", "must be the better text")
            case "choice" if not isinstance(self.value, str):
                raise RefusedField("value", "must be the id of a candidate")
            case "score" if isinstance(self.value, str) or not 0.0 <= self.value <= 1.0:
                raise RefusedField("value", "must be a number from 0 to 1")
            case _:
                return self
