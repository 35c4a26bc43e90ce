"""What a request may say. These models are the wire contract's input; programs.py turns them into programs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Len
from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from service.engines.conversation import Image
from service.evaluators.base import RefusedField
from service.evaluators.catalogue import AnyEvaluator
from service.evaluators.model.judge import Criterion
from service.evaluators.text.patterns import spend
from service.evaluators.text.schema import FollowsSchema
from service.fail_fast import FAIL_FAST
from service.grammar.reading import UnsupportedSchema, dotted_path
from service.grammar.writing import write_grammar
from service.images.fetch import ImageAddress
from service.tasks.overrides import SamplingOverrides, SearchOverrides, StopOverrides
from service.wire.model import BodyModel, WireModel
from service.wire.parts import Content, images_of, text_of, with_images

Text = Annotated[str, Field(pattern=r"\S")]
"""A text with something in it besides white space."""


MOST_IMAGES = 8
MOST_SCHEMA_CHARACTERS = 32_768
SCHEMA_WORK = 50_000
"""What it takes to make a grammar, in microseconds: too long for the event loop."""


def _bounded(schema: dict[str, Any]) -> dict[str, Any]:
    """Refuse a schema whose compilation would take the engine long."""
    if len(json.dumps(schema)) > MOST_SCHEMA_CHARACTERS:
        raise ValueError(f"a schema may have at most {MOST_SCHEMA_CHARACTERS} characters")
    return schema


BoundedSchema = Annotated[dict[str, Any], AfterValidator(_bounded)]


class Message(WireModel):
    """Only the user shows images."""

    role: Literal["system", "user", "assistant"]
    content: Content

    @model_validator(mode="after")
    def _refuse_images_of_others(self) -> Self:
        for index, _ in images_of(self.content):
            if self.role != "user":
                raise RefusedField(f"content.{index}.type", "only the user's messages may have images")
        return self

    @property
    def text(self) -> str:
        return text_of(self.content)

    @property
    def images(self) -> tuple[Image, ...]:
        """The images, once they are at hand."""
        images = [image for _, image in images_of(self.content)]
        at_hand = tuple(image for image in images if isinstance(image, Image))
        if len(at_hand) < len(images):
            raise RuntimeError("an image has not been fetched")
        return at_hand

    def with_images(self, fetched: Mapping[ImageAddress, Image]) -> "Message":
        """The message with images in place of their addresses."""
        return self.model_copy(update={"content": with_images(self.content, fetched)})


def images_in(messages: Sequence[Message]) -> Iterator[tuple[int, int, Image | ImageAddress]]:
    """The images with the indices of their messages and parts."""
    for index, message in enumerate(messages):
        for part, image in images_of(message.content):
            yield index, part, image


def _few_images(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    for message, part, _ in list(images_in(messages))[MOST_IMAGES:]:
        raise RefusedField(f"{message}.content.{part}", f"a request may have at most {MOST_IMAGES} images")
    return messages


class CommonFields(BodyModel):
    """What every request has. Exactly one of ``prompt`` and ``messages`` is given. ``store``: keep the whole account as
    a trace."""

    messages: Annotated[tuple[Message, ...], Len(1, 256), FAIL_FAST, AfterValidator(_few_images)] | None = None
    task: str = "general"
    parameters: Annotated[dict[str, str], Len(0, 64)] = {}  # noqa: RUF012 - pydantic copies it
    sampling: SamplingOverrides = SamplingOverrides()
    model: str | None = None
    store: bool = False


def _prompt_form(prompt: object) -> str | None:
    if prompt is None:
        return "null"
    if isinstance(prompt, str):
        return "text"
    return "texts" if isinstance(prompt, list | tuple) else None


Prompt = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[tuple[Text, ...], Len(1, 64), FAIL_FAST, Tag("texts")]
    | Annotated[None, Tag("null")],
    Discriminator(
        _prompt_form,
        custom_error_type="prompt_form",
        custom_error_message="Input should be a text or a list of texts",
    ),
]


def form_of(schema: dict[str, Any], field: str) -> FollowsSchema:
    """What holds a finished text against a schema. Raises RefusedField where no grammar holds a text to it; ``field``
    is the schema's own name."""
    spend(SCHEMA_WORK)
    try:
        form = FollowsSchema(schema=schema)
        write_grammar(schema)
    except UnsupportedSchema as error:
        raise RefusedField(".".join(filter(None, (field, dotted_path(error.path)))), str(error)) from None
    except RefusedField as error:
        raise RefusedField(field, str(error)) from None
    return form


class FormFields(BodyModel):
    """``response_schema``: what a text must fit. It is refused where no grammar holds a text to it."""

    response_schema: BoundedSchema | None = None

    @cached_property
    def form(self) -> FollowsSchema | None:
        """What holds a finished text against the schema."""
        return None if self.response_schema is None else form_of(self.response_schema, "response_schema")

    @model_validator(mode="after")
    def _refuse_schemas_without_grammar(self) -> Self:
        _ = self.form
        return self


class GenerateRequest(CommonFields, FormFields):
    """Texts for one prompt, or for up to 64 at once. ``n``: how many for each. ``reasoning``: tell the model's thoughts
    too."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"prompt": "Why is the sky blue?", "n": 2, "sampling": {"max_tokens": 80}}],
        }
    )

    prompt: Prompt = None
    n: Annotated[int, Ge(1)] = 1
    reasoning: bool = False
    stream: bool = False


class EvaluatedFields(CommonFields):
    """``criteria`` replaces the task's rubric, ``rubrics`` adds to it, ``evaluators`` adds to the task's."""

    prompt: Text | None = None
    criteria: Annotated[tuple[Criterion, ...], Len(0, 16), FAIL_FAST] = ()
    rubrics: Annotated[tuple[str, ...], Len(0, 16), FAIL_FAST] = ()
    evaluators: Annotated[tuple[AnyEvaluator, ...], Len(0, 32), FAIL_FAST] = ()


class ReviewModels(WireModel):
    """Names of models. ``critic`` and ``judge``: by default the operator's choice, or else the request's ``model``."""

    critic: str | None = None
    judge: str | None = None


class ProgramModels(ReviewModels):
    """``writer``: the same as the request's ``model``."""

    writer: str | None = None


class CritiqueRequest(EvaluatedFields):
    """An evaluation of a text that the caller has. ``feedback``: say in words what should change."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "prompt": "Capital of France?",
                    "candidate": "London.",
                    "evaluators": [{"type": "keywords", "include": ["Paris"]}],
                }
            ],
        }
    )

    candidate: str
    models: ReviewModels = ReviewModels()
    judge: bool = True
    feedback: bool = True


class BudgetFields(WireModel):
    """The most to spend. ``tokens``: prompt and completion tokens together."""

    tokens: Annotated[int, Ge(1)] | None = None
    calls: Annotated[int, Ge(1)] | None = None
    seconds: Annotated[float, Gt(0.0)] | None = None


class RefineRequest(EvaluatedFields):
    """A text, drafted and then revised until it is good enough or the budget is spent.

    ``draft``: a first text to start from. ``judge``: whether the rubric is scored; by default yes, unless the
    result is voted on or compared. ``trace``: whether the answer tells of the rounds; ``reasoning``: whether its
    candidates have the model's thoughts with them. ``deltas``: whether a stream has the texts piece by piece too.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "prompt": "Explain in two sentences why the sky is blue.",
                    "evaluators": [{"type": "length", "unit": "words", "max": 40}],
                    "search": {"preset": "self_refine", "rounds": 2},
                    "sampling": {"max_tokens": 120},
                }
            ],
        }
    )

    draft: Text | None = None
    models: ProgramModels = ProgramModels()
    judge: bool | None = None
    principles: Annotated[tuple[Text, ...], Len(0, 32), FAIL_FAST] = ()
    search: SearchOverrides = SearchOverrides()
    stop: StopOverrides = StopOverrides()
    budget: BudgetFields = BudgetFields()
    stream: bool = False
    deltas: bool = False
    trace: bool = True
    reasoning: bool = False

    @model_validator(mode="after")
    def _refuse_deltas_without_stream(self) -> Self:
        if self.deltas and not self.stream:
            raise RefusedField("deltas", "only a stream has pieces of texts; it needs stream: true")
        return self


NativeRequest = GenerateRequest | CritiqueRequest | RefineRequest
"""A request to one of Redraft's own endpoints."""


def stated_fields(request: NativeRequest) -> dict[str, Any]:
    """The fields that the request states, as values of JSON. Of an image there is only its type and its digest."""
    return request.model_dump(mode="json", exclude_unset=True)
