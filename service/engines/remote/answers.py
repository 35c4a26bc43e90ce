"""What a server answers to a completion's request, and what it makes of the reply, read as leniently as is safe.

Servers are OpenAI's only nearly. A part that is null counts as absent, and a count that cannot be as 0.
"""

import math
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from service.engines.base import ReplyEnd, Usage
from service.engines.remote.failures import Answer
from service.errors import EngineUnavailable

LONGEST_NAME = 256
"""Characters of an answer's id or of its model's name. What is longer or has spaces is not a name."""
MOST_TOKENS = 100_000_000
"""More than any call has; a server that tells of more has miscounted."""

CUT = ("length", "max_tokens", "max_output_tokens", "model_length")
FILTERED = ("content_filter", "content-filter", "safety", "sensitive", "recitation", "prohibited_content")
GIVEN_UP = ("abort", "error", "network_error", "insufficient_system_resource")
"""What servers call the end of a reply that they gave up: vLLM's, OpenRouter's, Zhipu's and DeepSeek's words."""


def _count(value: Any) -> int:
    """A number of tokens; 0 for what is not one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else 0


def object_or_nothing(value: Any) -> Any:
    """An object, or none of its fields."""
    return value if isinstance(value, dict) else {}


def or_none(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """What is valid; None for anything else, where the rest of an answer is worth more than this part of it."""
    try:
        return validate(value)
    except ValidationError:
        return None


def _text(value: Any) -> str | None:
    """A text, or the texts of a list of parts; None for anything else."""
    if isinstance(value, list):
        parts = [part.get("text") for part in value if isinstance(part, dict) and part.get("type") == "text"]
        return "".join(part for part in parts if isinstance(part, str))
    return value if isinstance(value, str) else None


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _name(value: Any) -> str | None:
    is_name = isinstance(value, str) and len(value) <= LONGEST_NAME and value.isprintable() and len(value.split()) == 1
    return value if is_name else None


def _choices(value: Any) -> Any:
    return [] if value is None else value


def _probable(logprob: float) -> float:
    """Nothing is more probable than certain; what is not a number is impossible."""
    return -math.inf if math.isnan(logprob) else min(logprob, 0.0)


Count = Annotated[int, BeforeValidator(_count)]
Word = Annotated[str | None, BeforeValidator(_word)]
Name = Annotated[str | None, BeforeValidator(_name)]
Text = Annotated[str | None, BeforeValidator(_text)]
Logprob = Annotated[float, AfterValidator(_probable)]


class PromptTokens(BaseModel):
    cached_tokens: Count = 0


class CompletionTokens(BaseModel):
    reasoning_tokens: Count = 0


class UsageAnswer(BaseModel):
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    prompt_tokens_details: Annotated[PromptTokens, BeforeValidator(object_or_nothing)] = PromptTokens()
    completion_tokens_details: Annotated[CompletionTokens, BeforeValidator(object_or_nothing)] = CompletionTokens()

    def usage(self) -> Usage:
        """The cost of one call; no cached tokens where the server does not tell of them."""
        cached = min(self.prompt_tokens_details.cached_tokens, self.prompt_tokens)
        thoughts = min(self.completion_tokens_details.reasoning_tokens, self.completion_tokens)
        return Usage(1, self.prompt_tokens, cached, self.completion_tokens, thoughts)


class CompletedChoice(BaseModel):
    finish_reason: Word = None


Choices = TypeVar("Choices", bound=CompletedChoice)


class Completed(Answer):
    """A completion, or a part of one in a stream's event."""

    id: Name = None
    model: Name = None

    @property
    def finished(self) -> bool:
        """Whether it tells why a reply ended."""
        return False


class CompletionAnswer(Completed, Generic[Choices]):
    """The last event of a stream has the usage and no choice, or one that says nothing."""

    choices: Annotated[list[Choices], BeforeValidator(_choices)] = Field(default_factory=list)
    usage: Annotated[UsageAnswer | None, WrapValidator(or_none)] = None

    @property
    def finished(self) -> bool:
        return any(choice.finish_reason for choice in self.choices)

    @property
    def empty(self) -> bool:
        return not self.choices and self.usage is None


def _positive(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


class ModelCard(BaseModel):
    """``root`` and ``max_model_len`` are vLLM's: what it loaded, and the context's tokens."""

    id: str
    root: Word = None
    max_model_len: Annotated[int | None, BeforeValidator(_positive)] = None


def _cards(value: Any) -> Any:
    """What has an id. Null is Ollama's list of no models."""
    return [card for card in value or () if isinstance(card, dict) and isinstance(card.get("id"), str)]


class ModelList(Answer):
    """An object with the list as ``data``; with some gateways the bare list."""

    data: Annotated[list[ModelCard], BeforeValidator(_cards)]

    @model_validator(mode="before")
    @classmethod
    def _wrap(cls, value: Any) -> Any:
        return {"data": value} if isinstance(value, list) else value


def finish_reason(said: str | None) -> ReplyEnd:
    """Why a reply ended, in OpenAI's words; EngineUnavailable if the server gave it up.

    >>> finish_reason("eos_token"), finish_reason("max_tokens"), finish_reason("SAFETY")
    ('stop', 'length', 'content_filter')
    """
    reason = (said or "").lower()
    if reason in GIVEN_UP:
        raise EngineUnavailable("the engine's server gave a reply up")
    if reason in CUT:
        return "length"
    return "content_filter" if reason in FILTERED else "stop"
