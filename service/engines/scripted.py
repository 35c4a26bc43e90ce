"""A real fake: an engine without a model, for tests and runnable docs.

It obeys the whole contract: a tokenizer (words), a context length, a prefix cache in blocks, streaming,
siblings, cancellation, death. What it says, how it weighs options and how long it takes are given by a
``Script``; the same calls give the same answers.
"""

import asyncio
import hashlib
import json
import math
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from service.concurrency import gather
from service.engines.base import Choice, Completion, JsonSchema, Likelihood, Piece, Sampling, Usage
from service.engines.conversation import Conversation, Image, Turn
from service.engines.thoughts import Habit, Opening, asked_for
from service.errors import EngineDead, PromptTooLong

BLOCK_TOKENS = 16
IMAGE_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Call:
    """What one sampled sequence, one choice or one likelihood was asked."""

    conversation: Conversation
    sampling: Sampling | None = None
    schema: JsonSchema | None = None
    options: Sequence[str] = ()
    lead: str = ""
    reply: str = ""

    @property
    def prompt(self) -> str:
        """The last user turn, as the model would see it."""
        texts: list[str] = []
        for turn in self.conversation.turns():
            if turn.role == "user":
                texts.append(turn.text)
            else:
                texts.clear()
        return "\n\n".join(texts)

    @property
    def images(self) -> tuple[Image, ...]:
        """All images that the model would see."""
        return tuple(self.conversation.images())


def _reply(call: Call) -> str:
    if call.schema is not None:
        return json.dumps(_instance(call.schema), separators=(",", ":"))
    seed = call.sampling.seed if call.sampling else None
    seen = "".join(image.digest for image in call.images)
    digest = hashlib.sha256(f"{seed}:{seen}{call.prompt}".encode()).hexdigest()
    return f"Reply {digest[:8]} to: {' '.join(call.prompt[:1_000].split()[:12])}"


def _weights(call: Call) -> Sequence[float]:
    return [1.0 / len(call.options)] * len(call.options)


def _likelihood(call: Call, token: str) -> float:
    """One bit a character."""
    return 0.5 ** len(token)


@dataclass(frozen=True, kw_only=True)
class Script:
    """How the engine behaves. ``weights`` gives a probability per option, ``likelihood`` that of one token of a given
    reply; ``fault`` may raise before a call begins. ``opening``: how replies begin; thoughts stand in them between
    ``<think>`` and ``</think>``."""

    reply: Callable[[Call], str] = _reply
    weights: Callable[[Call], Sequence[float]] = _weights
    likelihood: Callable[[Call, str], float] = _likelihood
    fault: Callable[[Call], None] = lambda call: None
    seconds_per_call: float = 0.0
    seconds_per_token: float = 0.0
    context_tokens: int = 8192
    opening: Opening = "plain"
    takes_images: bool = False


@dataclass
class ScriptedEngine:
    """An Engine that follows a script and remembers its calls."""

    script: Script = field(default_factory=Script)
    model: str = "scripted"
    calls: list[Call] = field(default_factory=list)
    in_flight: int = 0
    _dead: asyncio.Event = field(default_factory=asyncio.Event)
    _blocks: set[int] = field(default_factory=set)

    @property
    def backend(self) -> object:
        return self

    @property
    def takes_images(self) -> bool:
        return self.script.takes_images

    def kill(self) -> None:
        """Die as an engine's process does: what is running fails, and so does all that comes."""
        self._dead.set()

    async def complete(
        self,
        conversation: Conversation,
        sampling: Sampling,
        *,
        n: int = 1,
        schema: JsonSchema | None = None,
        priority: int = 0,
    ) -> Sequence[Completion]:
        async def sibling(index: int) -> Completion:
            async for item in self.stream(conversation, sampling.sibling(index), schema=schema, priority=priority):
                if isinstance(item, Completion):
                    return item
            raise RuntimeError("a stream ends with its completion")

        return await gather(sibling(index) for index in range(n))

    async def stream(
        self,
        conversation: Conversation,
        sampling: Sampling,
        *,
        schema: JsonSchema | None = None,
        priority: int = 0,
    ) -> AsyncGenerator[Piece, None]:
        call = Call(conversation, sampling, schema)
        with self._running(call):
            prompt_tokens, cached_tokens = self._prefill(conversation)
            await self._pause(self.script.seconds_per_call)
            text = _chosen(self.script.reply(call), sampling.choices)
            for stop in sampling.stop:
                text = text.partition(stop)[0]
            tokens = _tokens(text)
            spoken = tokens[: min(sampling.max_tokens, self.script.context_tokens - prompt_tokens)]
            reader = Habit(self.script.opening).splitter(asked_for(conversation))
            for token in spoken:
                await self._pause(self.script.seconds_per_token)
                for piece in reader.feed(token):
                    yield piece
            rest, split = reader.end("stop" if len(spoken) == len(tokens) else "length")
            for piece in rest:
                yield piece
            thoughts = len(spoken) - len(_tokens(split.text)) if split.thoughts else 0
            usage = Usage(1, prompt_tokens, cached_tokens, len(spoken), thoughts)
            yield Completion(split.text, split.finish_reason, usage, thoughts=split.thoughts)

    async def choose(
        self, conversation: Conversation, options: Sequence[str], *, lead: str = "", priority: int = 0
    ) -> Choice:
        call = Call(conversation, options=tuple(options), lead=lead)
        with self._running(call):
            prompt_tokens, cached_tokens = self._prefill(conversation)
            await self._pause(self.script.seconds_per_call)
            return Choice(_logarithms(self.script.weights(call)), Usage(1, prompt_tokens, cached_tokens, 1))

    async def likelihood(self, conversation: Conversation, reply: str, *, priority: int = 0) -> Likelihood:
        # As with vLLM, nothing is read from the cache, which keeps no probabilities.
        call = Call(conversation, reply=reply)
        with self._running(call):
            prompt_tokens = len(self._tokens(conversation, reply))
            await self._pause(self.script.seconds_per_call)
            probabilities = [self.script.likelihood(call, token) for token in _tokens(reply)]
            return Likelihood(_logarithms(probabilities), Usage(1, prompt_tokens, 0, 1))

    async def fit(self, conversation: Conversation, tokens: int = 1) -> None:
        self._tokens(conversation, room=tokens)

    async def check(self) -> None:
        if self._dead.is_set():
            raise EngineDead("the scripted engine was killed")

    async def close(self) -> None:
        self.kill()

    @contextmanager
    def _running(self, call: Call) -> Any:
        if self._dead.is_set():
            raise EngineDead("the scripted engine was killed")
        self.calls.append(call)
        self.in_flight += 1
        try:
            self.script.fault(call)
            yield
        finally:
            self.in_flight -= 1

    async def _pause(self, seconds: float) -> None:
        """Take time, but notice death at once."""
        try:
            await asyncio.wait_for(self._dead.wait(), timeout=seconds)
        except TimeoutError:
            return
        raise EngineDead("the scripted engine was killed")

    def _prefill(self, conversation: Conversation) -> tuple[int, int]:
        """The prompt's tokens, and how many of them the cache held: whole blocks, and never the last token."""
        tokens = self._tokens(conversation)
        cached = prefix = 0
        for end in range(BLOCK_TOKENS, len(tokens) + 1, BLOCK_TOKENS):
            prefix = hash((prefix, *tokens[end - BLOCK_TOKENS : end]))
            if prefix in self._blocks and cached == end - BLOCK_TOKENS and end < len(tokens):
                cached = end
            self._blocks.add(prefix)
        return len(tokens), cached

    def _tokens(self, conversation: Conversation, reply: str = "", room: int = 1) -> list[str]:
        if conversation.turn.role != "user":
            raise ValueError("only a user turn can be replied to")
        if not self.takes_images:
            conversation.refuse_images()
        tokens = [token for turn in conversation.turns() for token in _turn_tokens(turn)]
        tokens += _tokens(reply)
        if len(tokens) + room > self.script.context_tokens:
            raise PromptTooLong(len(tokens), self.script.context_tokens)
        return tokens


def _chosen(text: str, choices: Sequence[str]) -> str:
    """The text, or what stands for it where it is none of the choices."""
    if not choices or text in choices:
        return text
    return choices[int(hashlib.sha256(text.encode()).hexdigest(), 16) % len(choices)]


def _logarithms(probabilities: Sequence[float]) -> tuple[float, ...]:
    return tuple(math.log(probability) if probability > 0 else -math.inf for probability in probabilities)


def _turn_tokens(turn: Turn) -> list[str]:
    """An image is IMAGE_TOKENS."""
    images = [token for image in turn.images for token in [f"<{image.digest}>"] * IMAGE_TOKENS]
    return [f"<{turn.role}>", *images, *_tokens(turn.text)]


def _tokens(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+$", text)


def _instance(schema: JsonSchema) -> Any:
    """A small value that fits a schema made of the common keywords."""
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {name: _instance(properties[name]) for name in schema.get("required", properties)}
        case "array":
            return [_instance(schema.get("items", {}))] * schema.get("minItems", 0)
        case "string":
            return "text"
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return True
        case _:
            return None
