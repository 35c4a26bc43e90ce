"""The fields of requests, as keyword arguments. The service validates them; docs/reference/api.md describes them.

If a type allows None, it means that the field is left out.

>>> fields: RefineFields = {"prompt": "Write about the sea.", "stop": {"target": 0.9}}
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Required, TypedDict

Evaluator = Mapping[str, Any]
"""An evaluator by its ``type``, such as ``{"type": "length", "unit": "words", "max": 40}``."""


class TextPart(TypedDict):
    type: Literal["text"]
    text: str


class ImageUrl(TypedDict, total=False):
    """``url``: a ``data:`` URL, or an https address on a host that the operator allows."""

    url: Required[str]
    detail: str | None


class ImagePart(TypedDict):
    type: Literal["image_url"]
    image_url: ImageUrl


class Message(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str | Sequence[TextPart | ImagePart]


class Criterion(TypedDict, total=False):
    name: Required[str]
    question: Required[str]
    weight: float


class Sampling(TypedDict, total=False):
    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    stop: Sequence[str] | None
    seed: int | None
    choices: Sequence[str] | None
    thinking: bool | None
    landing: bool | None


class Search(TypedDict, total=False):
    preset: Literal["self_refine", "best_of_n", "vote", "beam", "reflexion", "constitutional", "adaptive"] | None
    drafts: int | None
    beam: int | None
    branches: int | None
    rounds: int | None
    carry: Literal["best", "last", "none", "adaptive"] | None
    memory: int | None
    critic: Literal["auto", "model", "factored", "evaluators", "none"] | None
    select: Literal["score", "pairwise", "vote"] | None
    constraints: Literal["off", "auto", "revisions", "always"] | None
    repairs: bool | None
    aborts: bool | None


class Stop(TypedDict, total=False):
    target: float | None
    patience: int | None
    min_gain: float | None


class Budget(TypedDict, total=False):
    tokens: int | None
    calls: int | None
    seconds: float | None


class CommonFields(TypedDict, total=False):
    """The fields of all requests. Exactly one of ``prompt`` and ``messages`` is required."""

    messages: Sequence[Message] | None
    task: str
    parameters: Mapping[str, str]
    sampling: Sampling
    model: str | None
    store: bool


class GenerateFields(CommonFields, total=False):
    prompt: str | Sequence[str] | None
    n: int
    response_schema: Mapping[str, Any] | None
    reasoning: bool


class EvaluatedFields(CommonFields, total=False):
    prompt: str | None
    criteria: Sequence[Criterion]
    rubrics: Sequence[str]
    evaluators: Sequence[Evaluator]


class ReviewModels(TypedDict, total=False):
    """Names of models. By default the operator's choice, or else the request's ``model``."""

    critic: str | None
    judge: str | None


class ProgramModels(ReviewModels, total=False):
    """``writer``: the same as the request's ``model``."""

    writer: str | None


class CritiqueFields(EvaluatedFields, total=False):
    candidate: Required[str]
    models: ReviewModels
    judge: bool
    feedback: bool


class RefineFields(EvaluatedFields, total=False):
    draft: str | None
    models: ProgramModels
    judge: bool | None
    principles: Sequence[str]
    search: Search
    stop: Stop
    budget: Budget
    trace: bool
    reasoning: bool


class BatchLine(TypedDict):
    """One request of a batch.

    custom_id: 1 to 128 characters on one line, different for each request.
    url: the route of the request.
    body: its fields. Those of a chat completion are OpenAI's.
    """

    custom_id: str
    url: Literal["/v1/generate", "/v1/critique", "/v1/refine", "/v1/chat/completions"]
    body: GenerateFields | CritiqueFields | RefineFields | Mapping[str, Any]
