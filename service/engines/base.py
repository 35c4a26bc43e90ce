"""The engine contract: what the core and the evaluators may ask of a language model.

A call is a frozen value: ``Sample`` a reply, ``Choose`` between options, or ``Weigh`` a reply that is given. Each has a
result of its own type. A sample can also be streamed::

    question = Conversation(Turn("user", "Name a colour."))
    reply = await engine.call(Sample(question, Sampling(max_tokens=16)))  # a Completion
    async for piece in engine.stream(Sample(question)): ...  # pieces of the text, then the Completion
    warmth = question.with_reply(reply).with_user("Is it warm? A: yes, B: no.")
    choice = await engine.call(Choose(warmth, options=("A", "B"), prefill="Answer: "))  # a Choice

``call``, ``stream``, ``fit`` and ``upper_bound`` raise

- PromptTooLong if a conversation does not fit the context,
- InvalidRequest if the engine cannot serve a schema, a grammar, a setting or an image,
- ValueError if the last turn of a conversation is not the user's,
- EngineBusy if a remote engine's servers refuse work for now; it says after how many seconds to try again,
- EngineUnavailable if a remote engine's servers do not answer, fail, or answer with something else than they should;
  the next call may succeed,
- EngineDead if the engine in this process has ended; no later call succeeds.

The last three are all an EngineUnavailable, and ``check`` raises them too. Any other exception is a bug. Cancelling a
call, or closing a stream, ends its work inside the engine. What a stream had written by then is not lost: it goes to
``Reading.on_cut``. A call that had been computed by then, but not returned, raises ``cancelled_at_cost``. Every engine
passes tests/support/engine_contract.py.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, Protocol, TypeVar

from service.engines.conversation import Conversation
from service.errors import FieldError, InvalidRequest
from service.grammar.reading import UnsupportedSchema, dotted_path
from service.grammar.writing import write_choices, write_grammar

ReplyEnd = Literal["stop", "length", "content_filter"]
"""Why an engine ends a reply: by itself or at a stop text, cut at a limit, or cut by a remote server's content
filter."""
FinishReason = Literal[
    "stop", "length", "content_filter", "landed", "budget", "deadline", "engine_failed", "cancelled", "aborted"
]
"""Why a text ends: like a reply; at a sentence before its limit; cut in the middle by the budget, the time, a failure
of the engine or its caller; or stopped because it could not get better."""
JsonSchema = Mapping[str, Any]
SEEDS = 2**63 - 1
"""Engines take seeds from 0 to SEEDS - 1. OpenAI's and vLLM's servers take signed 64-bit integers, and vLLM reads -1 as
no seed."""
UNSTATED_TOKENS = 32_768
"""The most tokens that are read of a reply whose length was left to a server."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What engine calls cost. ``cached_tokens`` are part of ``prompt_tokens``, and ``reasoning_tokens``, those of
    thoughts, are part of ``completion_tokens``."""

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


def cancelled_at_cost(usage: Usage) -> asyncio.CancelledError:
    """What a cancelled call raises that has cost something: a CancelledError with the usage as its argument.

    >>> find_cost(cancelled_at_cost(Usage(calls=1, prompt_tokens=9)))
    Usage(calls=1, prompt_tokens=9, cached_tokens=0, completion_tokens=0, reasoning_tokens=0)
    """
    return asyncio.CancelledError(usage)


def find_cost(error: asyncio.CancelledError) -> Usage | None:
    """What a cancelled call has cost; None if nothing, as for nearly all."""
    return next((each for each in error.args if isinstance(each, Usage)), None)


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of a model's thoughts, which come before its answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled text.

    ``token_ids``: the ids as sampled, without the end token; None if the engine does not have them, or if ``thoughts``
    came before the text. A reply that ended inside its thoughts has no text, and its finish reason is ``length``.
    ``breaks_grammar``: the text is not one that its grammar allows, which is a fault of the decoder.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage
    token_ids: tuple[int, ...] | None = None
    thoughts: str = ""
    breaks_grammar: bool = False

    @property
    def is_unfinished(self) -> bool:
        """Whether it was cut for a reason that has nothing to do with it."""
        return self.finish_reason in ("budget", "deadline", "engine_failed", "cancelled")

    @property
    def is_complete(self) -> bool:
        """Whether it says something and came to an end of its own. One that landed would have gone on."""
        return self.finish_reason == "stop" and bool(self.text.strip())


Piece = str | Thought | Completion
"""What a stream yields."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a stream is read.

    - ``interval``: how many tokens a piece may have; larger ones cost less
    - ``on_progress``: told before each piece which share of the tokens that it may have the reply has used
    - ``on_cut``: given the reply as far as it had come, with what it had cost, if the stream is closed, cancelled or
      fails after a token was sampled and before the completion; its finish reason is ``length``
    """

    interval: int = 1
    on_progress: Callable[[float], None] = lambda share: None
    on_cut: Callable[[Completion], None] = lambda completion: None


PLAINLY = Reading()


@dataclass(frozen=True, slots=True)
class Choice:
    """Natural-log probabilities of the options as the next token, in the options' order; they need not sum to one."""

    logprobs: tuple[float, ...]
    usage: Usage


@dataclass(frozen=True, slots=True)
class WeighedToken:
    """A token of a given reply, and what the model would most likely have written in its place.

    - ``text``: its part of the reply; where several tokens make one character, the first of them has it
    - ``logprob``: its natural-log probability, given the conversation and the tokens before it
    - ``rival``, ``rival_logprob``: of the most probable token in its place, which may be the same; a rival that would
      end the reply has no text
    """

    text: str
    logprob: float
    rival: str
    rival_logprob: float


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How probable a reply is, token by token. The tokens' texts joined are the reply."""

    tokens: tuple[WeighedToken, ...]
    usage: Usage

    @property
    def logprobs(self) -> tuple[float, ...]:
        """The tokens' natural-log probabilities."""
        return tuple(token.logprob for token in self.tokens)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample.

    - ``max_tokens``: bounds the completion with its thoughts; the end of the context bounds it too
    - ``seed``: from 0 to SEEDS - 1 (``engine_seed``)
    - ``choices``: unless empty, the reply is one of these, or the beginning of one; there is no schema then
    - ``thinking``: a reasoning model may think first; otherwise it is asked not to
    - ``open_ended``: the caller set no limit, so ``max_tokens`` is the operator's
    - ``landing``: a text ends at a sentence before ``max_tokens`` cuts it (None: as its program says). Engines leave
      that to their callers.
    """

    temperature: float = 0.7
    top_p: float = 1.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    seed: int | None = None
    choices: tuple[str, ...] = ()
    thinking: bool = True
    open_ended: bool = False
    landing: bool | None = None

    @property
    def stated_tokens(self) -> int | None:
        """The limit to send to a server whose context size is unknown. None leaves the length to the server: if the
        caller set no limit, and the operator's is at least UNSTATED_TOKENS."""
        return None if self.open_ended and self.max_tokens >= UNSTATED_TOKENS else self.max_tokens

    def sibling(self, index: int) -> "Sampling":
        """The sampling of the ``index``-th of several completions, so that a seed gives different siblings."""
        return self if self.seed is None else replace(self, seed=engine_seed(self.seed + index))


def engine_seed(seed: int) -> int:
    """The seed for any number: the number itself if engines take it.

    >>> engine_seed(7), engine_seed(-1) == engine_seed(2**63 - 2), engine_seed(2**64 - 1)
    (7, True, 1)
    """
    return seed % SEEDS


def grammar(schema: JsonSchema) -> str:
    """The grammar under which texts fit ``schema``. InvalidRequest, which names the keyword, if there is no grammar."""
    try:
        return write_grammar(schema)
    except UnsupportedSchema as error:
        wrong = FieldError(".".join(filter(None, ("response_schema", dotted_path(error.path)))), str(error))
        raise InvalidRequest(f"{wrong.field}: {wrong.message}", [wrong]) from None


CallResult = Completion | Choice | Likelihood
R = TypeVar("R", bound=CallResult)
"""The type of a call's result."""


@dataclass(frozen=True, slots=True)
class Call(ABC, Generic[R]):
    """One call of an engine, whose result is an ``R``. ``conversation`` ends with the user turn to reply to."""

    conversation: Conversation

    @property
    def prompt(self) -> str:
        """The last user turn, as the model sees it: user turns in a row are one."""
        texts: list[str] = []
        for turn in self.conversation.turns():
            if turn.role == "user":
                texts.append(turn.text)
            else:
                texts.clear()
        return "\n\n".join(texts)

    @abstractmethod
    async def dispatch(self, to: "CallHandler", priority: int) -> R:
        """Have ``to`` make the call, by its method for this kind."""


@dataclass(frozen=True, slots=True)
class Sample(Call[Completion]):
    """Sample one reply. With a ``schema`` it is JSON that fits it, unless it was cut at ``max_tokens``.

    - ``grammar``: that of the text after ``given``, in Lark's notation as llguidance reads it, without a schema or
      choices. A text that was cut is the beginning of one that the grammar allows.
    - ``given``: what the text begins with. It counts among the prompt's tokens.

    Only an engine that ``takes_grammars`` can serve these two. A model that thinks does so before the text.
    """

    sampling: Sampling = Sampling()
    schema: JsonSchema | None = None
    grammar: str | None = None
    given: str = ""

    @property
    def form(self) -> str | None:
        """The grammar of the reply after ``given``: that of the schema or the choices, or ``grammar``; None without
        any. InvalidRequest if there is none for the schema."""
        if self.schema is not None:
            return grammar(self.schema)
        return write_choices(self.sampling.choices) if self.sampling.choices else self.grammar

    async def dispatch(self, to: "CallHandler", priority: int) -> Completion:
        return await to.sample(self, priority)

    def sibling(self, index: int) -> "Sample":
        """The ``index``-th of several samples of the same, with its own seed if there is a seed."""
        return replace(self, sampling=self.sampling.sibling(index))


@dataclass(frozen=True, slots=True)
class Choose(Call[Choice]):
    """Weigh options as the next token of a reply without thoughts that begins with ``prefill``. Each option is one
    character, or a word that tokenizers keep whole, such as ``Yes``."""

    options: tuple[str, ...]
    prefill: str = ""

    async def dispatch(self, to: "CallHandler", priority: int) -> Choice:
        return await to.choose(self, priority)


@dataclass(frozen=True, slots=True)
class Weigh(Call[Likelihood]):
    """Weigh ``reply`` token by token, without sampling. PromptTooLong if it and the conversation fill the context."""

    reply: str

    async def dispatch(self, to: "CallHandler", priority: int) -> Likelihood:
        return await to.weigh(self, priority)


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

    @property
    def takes_grammars(self) -> bool:
        """Whether samples may have a grammar and a given beginning."""

    async def call(self, call: Call[R], *, priority: int = 0) -> R:
        """Make the call and return its result."""

    def stream(self, sample: Sample, *, priority: int = 0, reading: Reading = PLAINLY) -> AsyncGenerator[Piece, None]:
        """Yield pieces of one reply as they are sampled, its thoughts first, then the whole completion as the last
        item."""

    async def fit(self, conversation: Conversation, tokens: int = 1) -> None:
        """Return if a reply of ``tokens`` to the conversation fits the context, else raise PromptTooLong."""

    async def upper_bound(self, call: Call[Any]) -> Usage:
        """The most that the call can cost, without making it. Exact in the prompt where its tokenizer is at hand.

        Raises what ``call`` would raise of the prompt.
        """

    async def prove(self, grammar: str) -> None:
        """Return if a sample may have this grammar, else raise InvalidRequest with the reason."""

    async def check(self) -> None:
        """Return while the engine can serve, else raise EngineUnavailable, EngineBusy or EngineDead."""


def require_grammars(engine: Engine) -> None:
    """Raise InvalidRequest unless the engine takes grammars and given beginnings."""
    if not engine.takes_grammars:
        raise InvalidRequest("the engine takes no grammars")


class CallHandler(ABC):
    """The base of engines that have a method for each kind of call."""

    async def call(self, call: Call[R], *, priority: int = 0) -> R:
        return await call.dispatch(self, priority)

    @abstractmethod
    async def sample(self, sample: Sample, priority: int) -> Completion: ...

    @abstractmethod
    async def choose(self, choose: Choose, priority: int) -> Choice: ...

    @abstractmethod
    async def weigh(self, weigh: Weigh, priority: int) -> Likelihood: ...


@dataclass(frozen=True)
class EngineDecorator:
    """An Engine that passes everything on to another. Decorators override what they change, usually ``call`` and
    ``stream``."""

    engine: Engine

    @property
    def model(self) -> str:
        return self.engine.model

    @property
    def backend(self) -> object:
        return self.engine.backend

    @property
    def takes_images(self) -> bool:
        return self.engine.takes_images

    @property
    def takes_grammars(self) -> bool:
        return self.engine.takes_grammars

    async def call(self, call: Call[R], *, priority: int = 0) -> R:
        return await self.engine.call(call, priority=priority)

    def stream(self, sample: Sample, *, priority: int = 0, reading: Reading = PLAINLY) -> AsyncGenerator[Piece, None]:
        return self.engine.stream(sample, priority=priority, reading=reading)

    async def fit(self, conversation: Conversation, tokens: int = 1) -> None:
        await self.engine.fit(conversation, tokens)

    async def upper_bound(self, call: Call[Any]) -> Usage:
        return await self.engine.upper_bound(call)

    async def prove(self, grammar: str) -> None:
        await self.engine.prove(grammar)

    async def check(self) -> None:
        await self.engine.check()
