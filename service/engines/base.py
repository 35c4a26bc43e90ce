"""The engine contract: what the core and the evaluators may ask of a language model.

Every engine passes tests/support/engine_contract.py. Errors: PromptTooLong where a conversation does not fit the
context, InvalidRequest where it cannot serve a schema, a setting or an image, EngineDead once the engine is gone;
anything else that an engine raises is a bug. Cancelling a call, or closing a stream, ends its work inside the engine.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from service.engines.conversation import Conversation
from service.errors import FieldError, InvalidRequest
from service.grammar.reading import UnsupportedSchema, dotted
from service.grammar.writing import grammar_of

FinishReason = Literal["stop", "length", "content_filter"]
"""Why a reply ends: by itself or at a stop text, cut off, or broken off by a filter of a remote server's."""
JsonSchema = Mapping[str, Any]
SEEDS = 2**63 - 1
"""How many seeds engines take, from 0 on. OpenAI's and vLLM's servers take signed ones of 64 bits, and to vLLM -1 is no
seed at all."""
UNSTATED_TOKENS = 32_768
"""What a reply may have whose length was left to a server."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What engine calls cost; one sampled sequence is one call. ``cached_tokens`` is a part of ``prompt_tokens``, and
    ``reasoning_tokens``, which went into thoughts, of ``completion_tokens``."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of what a model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled text. ``token_ids`` are the ids as sampled, without the end token; None where an engine has none, and
    where ``thoughts`` came before the text.

    A reply that ended inside its thoughts has no text, and its finish reason is ``length``.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage
    token_ids: tuple[int, ...] | None = None
    thoughts: str = ""


Piece = str | Thought | Completion
"""What a stream yields."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Natural-log probabilities of the options as the next token, in the options' order; they need not sum to one."""

    logprobs: tuple[float, ...]
    usage: Usage


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Natural-log probabilities of a reply's tokens, each given the conversation and the tokens before it."""

    logprobs: tuple[float, ...]
    usage: Usage


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample. ``max_tokens`` bounds the completion with its thoughts; the context's end bounds it too.
    ``choices``, unless empty, are the only texts that it can be or be cut from; they never stand beside a schema.
    ``thinking``: a reasoning model may think first. Without it the model is asked not to. ``open_ended``: the caller
    set no limit, and ``max_tokens`` is the operator's. ``seed``: one of SEEDS (``engine_seed``)."""

    temperature: float = 0.7
    top_p: float = 1.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    seed: int | None = None
    choices: tuple[str, ...] = ()
    thinking: bool = True
    open_ended: bool = False

    @property
    def stated_tokens(self) -> int | None:
        """The limit that a server is sent whose context is not known. None leaves the length to the server, where the
        caller set no limit and the operator's is not below what is read of such a reply."""
        return None if self.open_ended and self.max_tokens >= UNSTATED_TOKENS else self.max_tokens

    def sibling(self, index: int) -> "Sampling":
        """The sampling of the ``index``-th of several completions, so that a seed gives different siblings."""
        return self if self.seed is None else replace(self, seed=engine_seed(self.seed + index))


def engine_seed(seed: int) -> int:
    """What engines are given for any number: the number itself where they take it.

    >>> engine_seed(7), engine_seed(-1) == engine_seed(2**63 - 2), engine_seed(2**64 - 1)
    (7, True, 1)
    """
    return seed % SEEDS


def grammar(schema: JsonSchema) -> str:
    """The grammar under which texts fit ``schema``. InvalidRequest, which names the keyword, where there is none."""
    try:
        return grammar_of(schema)
    except UnsupportedSchema as error:
        wrong = FieldError(".".join(filter(None, ("response_schema", dotted(error.path)))), str(error))
        raise InvalidRequest(f"{wrong.field}: {wrong.message}", [wrong]) from None


class Engine(Protocol):
    """A language model that serves many calls at once. ``priority``: lower is served first."""

    @property
    def model(self) -> str:
        """The served model's name."""

    @property
    def backend(self) -> object:
        """What computes: engines with the same one read each other's token ids, and fail together."""

    @property
    def takes_images(self) -> bool:
        """Whether the turns of conversations may have images."""

    async def complete(
        self,
        conversation: Conversation,
        sampling: Sampling,
        *,
        n: int = 1,
        schema: JsonSchema | None = None,
        priority: int = 0,
    ) -> Sequence[Completion]:
        """Sample ``n`` replies; with a schema each is JSON that fits it, unless it was cut at ``max_tokens``."""

    def stream(
        self, conversation: Conversation, sampling: Sampling, *, schema: JsonSchema | None = None, priority: int = 0
    ) -> AsyncGenerator[Piece, None]:
        """Yield pieces of one reply as they are sampled, its thoughts first, then the whole completion as the last
        item."""

    async def choose(
        self, conversation: Conversation, options: Sequence[str], *, lead: str = "", priority: int = 0
    ) -> Choice:
        """Weigh the options as the next token of a reply without thoughts that begins with ``lead``. Each option is one
        character."""

    async def likelihood(self, conversation: Conversation, reply: str, *, priority: int = 0) -> Likelihood:
        """Weigh a reply that is given, token by token. PromptTooLong if the two together fill the context."""

    async def fit(self, conversation: Conversation, tokens: int = 1) -> None:
        """Return if a reply of so many tokens to the conversation fits the context, else raise PromptTooLong."""

    async def check(self) -> None:
        """Return while the engine can serve; raise EngineDead once it cannot."""
