"""A judge of coherence: whether the text is about the request, by the angle between their embeddings.

The cosine c becomes the score (c - UNRELATED) / (RELATED - UNRELATED), clamped to [0, 1]. The constants come from pairs
of requests and replies (docs/results/log.md): 19 of 20 replies to something else have a cosine below 0.18, replies to
the request 0.31 to 0.88. Above RELATED a higher cosine only means that the text repeats words of the request: a text
that repeats the request scores 1 too. Order, grammar and truth have no influence.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Len

from service.evaluators.base import STRICT, Authority, Evaluation, RefusedField, Submission, Weight
from service.evaluators.model.embedding import PACKAGE, Embedder
from service.evaluators.toolbox import Toolbox

UNRELATED = 0.1
RELATED = 0.5


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """Compares the text with ``reference``, by default with the user turn that it answers."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    authority: ClassVar[Authority] = "judge"

    type: Literal["similarity"] = "similarity"
    reference: Annotated[str, Len(1, 20_000)] | None = None
    weight: Weight = 1.0

    def __post_init__(self) -> None:
        if self.reference is not None and not self.reference.strip():
            raise RefusedField("reference", "reference is blank")

    def resolve(self, tools: Toolbox) -> "SimilarityJudge":
        embedder = tools.find(Embedder)
        if embedder is None:
            raise RefusedField("type", f"similarity needs the package {PACKAGE}, which is not installed here")
        return SimilarityJudge(self.reference, self.weight, embedder)


@dataclass(frozen=True)
class SimilarityJudge:
    type: ClassVar[str] = "similarity"
    authority: ClassVar[Authority] = "judge"
    hard: ClassVar[bool] = False

    reference: str | None
    weight: float
    embedder: Embedder = field(repr=False)

    async def evaluate(self, submission: Submission) -> Evaluation:
        score = stderr = None
        if submission.text.strip():
            reference = submission.request.turn.text if self.reference is None else self.reference
            score = calibrate(await self.embedder.similarity(reference, submission.text))
            stderr = 0.0  # the same texts always have the same cosine
        return Evaluation.from_evaluator(self, score, stderr=stderr)


def calibrate(cosine: float) -> float:
    return min(max((cosine - UNRELATED) / (RELATED - UNRELATED), 0.0), 1.0)
