"""A real fake: an engine without a model, for tests and runnable docs.

It obeys the whole contract: a tokenizer (words), a context length, a prefix cache in blocks, streaming,
cancellation, death. A ``Script`` decides what it says, how it weighs options and how long it takes; the same calls
give the same answers.
"""

import asyncio
import hashlib
import json
import math
import random
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from service.engines.base import (
    PLAINLY,
    Call,
    CallHandler,
    Choice,
    Choose,
    Completion,
    JsonSchema,
    Likelihood,
    Piece,
    Reading,
    Sample,
    Usage,
    Weigh,
    WeighedToken,
    require_grammars,
)
from service.engines.conversation import Conversation, Turn
from service.engines.decoding import Grammars, bytes_as_tokens
from service.engines.thoughts import Habit, Opening, Split, find_requested_marks
from service.errors import EngineDead, PromptTooLong

BLOCK_TOKENS = 16
IMAGE_TOKENS = 16
MOST_SHAPED_BYTES = 2000


EngineCall = Sample | Choose | Weigh
C = TypeVar("C", Sample, Choose, Weigh)


def _reply(call: Sample) -> str:
    if call.schema is not None:
        return json.dumps(_instance(call.schema), separators=(",", ":"))
    seen = "".join(image.digest for image in call.conversation.images())
    digest = hashlib.sha256(f"{call.sampling.seed}:{seen}{call.prompt}".encode()).hexdigest()
    return f"Reply {digest[:8]} to: {' '.join(call.prompt[:1_000].split()[:12])}"


def _weights(call: Choose) -> Sequence[float]:
    """All alike, but No rather than Yes, so that a critic speaks."""
    if call.options == ("Yes", "No"):
        return 0.4, 0.6
    return [1.0 / len(call.options)] * len(call.options)


def _rival(weigh: Weigh, token: str, logprob: float) -> tuple[str, float]:
    return token, logprob


def _likelihood(call: Weigh, token: str) -> float:
    """One bit a character."""
    return 0.5 ** len(token)


@dataclass(frozen=True, kw_only=True)
class Script:
    """How the engine behaves.

    ``weights`` gives the probability of each option, and ``likelihood`` that of one token of a given reply. ``rival``
    gives the most probable token in its place, with its log-probability, by default itself. ``fault`` may raise before
    a call begins. ``pause`` gives more seconds for the token at an index. ``opening``: how replies begin; their
    thoughts are between ``<think>`` and ``</think>``. ``grammar_breaks``: it does not keep to grammars, as a decoder
    that fails.
    """

    reply: Callable[[Sample], str] = _reply
    weights: Callable[[Choose], Sequence[float]] = _weights
    likelihood: Callable[[Weigh, str], float] = _likelihood
    rival: Callable[[Weigh, str, float], tuple[str, float]] = _rival
    fault: Callable[[EngineCall], None] = lambda call: None
    seconds_per_call: float = 0.0
    seconds_per_token: float = 0.0
    pause: Callable[[int], float] = lambda index: 0.0
    context_tokens: int = 8192
    opening: Opening = "plain"
    takes_images: bool = False
    takes_grammars: bool = False
    grammar_breaks: bool = False


@dataclass
class ScriptedEngine(CallHandler):
    """An Engine that follows a script and remembers its calls."""

    script: Script = field(default_factory=Script)
    model: str = "scripted"
    calls: list[EngineCall] = field(default_factory=list)
    in_flight: int = 0
    _dead: asyncio.Event = field(default_factory=asyncio.Event)
    _blocks: set[int] = field(default_factory=set)
    _grammars: Grammars = field(default_factory=lambda: Grammars(bytes_as_tokens))

    @property
    def backend(self) -> object:
        return self

    @property
    def takes_images(self) -> bool:
        return self.script.takes_images

    @property
    def takes_grammars(self) -> bool:
        return self.script.takes_grammars

    def kill(self) -> None:
        """Die as an engine's process does: running calls fail, and so do later ones."""
        self._dead.set()

    def calls_of(self, kind: type[C]) -> list[C]:
        """The calls of one kind, in order."""
        return [call for call in self.calls if isinstance(call, kind)]

    async def sample(self, sample: Sample, priority: int) -> Completion:
        async for item in self.stream(sample, priority=priority):
            if isinstance(item, Completion):
                return item
        raise RuntimeError("a stream ends with its completion")

    async def stream(
        self, sample: Sample, *, priority: int = 0, reading: Reading = PLAINLY
    ) -> AsyncGenerator[Piece, None]:
        with self._running(sample):
            # Read the prompt, and find what the cache holds of it.
            sampling = sample.sampling
            if sample.grammar is not None or sample.given:
                require_grammars(self)
            prompt_tokens, cached_tokens = self._prefill(sample.conversation, sample.given)
            await self._pause(self.script.seconds_per_call)

            # Shape and cut the script's text as the sampling asks.
            text = _chosen(self.script.reply(sample), sampling.choices).removeprefix(sample.given)
            if sample.grammar is not None:
                await self.prove(sample.grammar)
                if not self.script.grammar_breaks:
                    text = _shaped(text, sample.grammar)
            shaped = text
            for stop in sampling.stop:
                text = text.partition(stop)[0]
            tokens = _tokens(text)
            most = min(sampling.max_tokens, self.script.context_tokens - prompt_tokens)
            spoken = tokens[:most]

            # Say it piece by piece, thoughts apart from the text.
            reader = Habit(self.script.opening).splitter(find_requested_marks(sample.conversation))
            said, whole, delivered = list[str](), None, False
            for part in reader.feed(sample.given):
                yield part

            def completion(split: Split) -> Completion:
                thoughts = len(said) - len(_tokens(split.text)) if split.thoughts else 0
                usage = Usage(1, prompt_tokens, cached_tokens, len(said), thoughts)
                breaks = sample.grammar is not None and self._grammars.breaks(
                    sample.grammar, "".join(said), ended=text == shaped and len(said) == len(tokens)
                )
                return Completion(
                    split.text, split.finish_reason, usage, thoughts=split.thoughts, breaks_grammar=breaks
                )

            unread: list[str] = []
            try:
                for token in spoken:
                    await self._pause(self.script.seconds_per_token + self.script.pause(len(said)))
                    said.append(token)
                    unread.append(token)
                    if len(unread) == reading.interval or len(said) == len(spoken):
                        piece, unread = "".join(unread), []
                        reading.on_progress(len(said) / most)
                        for part in reader.feed(piece):
                            yield part
                rest, split = reader.end("stop" if len(spoken) == len(tokens) else "length")
                whole = completion(split)
                for part in rest:
                    yield part
                delivered = True
                yield whole
            finally:
                if said and not delivered:
                    reader.feed("".join(unread))
                    reading.on_cut(replace(whole or completion(reader.end("length")[1]), finish_reason="length"))

    async def choose(self, choose: Choose, priority: int) -> Choice:
        with self._running(choose):
            prompt_tokens, cached_tokens = self._prefill(choose.conversation, choose.prefill)
            await self._pause(self.script.seconds_per_call)
            return Choice(_logarithms(self.script.weights(choose)), Usage(1, prompt_tokens, cached_tokens, 1))

    async def weigh(self, weigh: Weigh, priority: int) -> Likelihood:
        # As with vLLM, nothing is read from the cache, which keeps no probabilities.
        with self._running(weigh):
            prompt_tokens = len(self._tokens(weigh.conversation, weigh.reply))
            await self._pause(self.script.seconds_per_call)
            tokens = _tokens(weigh.reply)
            logprobs = _logarithms([self.script.likelihood(weigh, token) for token in tokens])
            weighed = tuple(
                WeighedToken(token, logprob, *self.script.rival(weigh, token, logprob))
                for token, logprob in zip(tokens, logprobs, strict=True)
            )
            return Likelihood(weighed, Usage(1, prompt_tokens, 0, 1))

    async def fit(self, conversation: Conversation, tokens: int = 1) -> None:
        self._tokens(conversation, room=tokens)

    async def upper_bound(self, call: Call[Any]) -> Usage:
        prompt_tokens = len(self._tokens(call.conversation, _begun_reply(call)))
        room = self.script.context_tokens - prompt_tokens
        return Usage(1, prompt_tokens, 0, min(call.sampling.max_tokens, room) if isinstance(call, Sample) else 1)

    async def prove(self, grammar: str) -> None:
        require_grammars(self)
        await self._grammars.prove(grammar)

    async def check(self) -> None:
        if self._dead.is_set():
            raise EngineDead("the scripted engine was killed")

    async def close(self) -> None:
        self.kill()

    @contextmanager
    def _running(self, call: EngineCall) -> Iterator[None]:
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

    def _prefill(self, conversation: Conversation, given: str) -> tuple[int, int]:
        """The prompt's tokens, and how many of them the cache held: whole blocks, and never the last token."""
        tokens = self._tokens(conversation, given)
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
    """The text if it is one of the choices, else a choice that depends on the text."""
    if not choices or text in choices:
        return text
    return choices[int(hashlib.sha256(text.encode()).hexdigest(), 16) % len(choices)]


def _begun_reply(call: Call[Any]) -> str:
    """What the prompt has of the reply."""
    match call:
        case Sample(given=begun) | Choose(prefill=begun) | Weigh(reply=begun):
            return begun
    raise TypeError(f"{type(call).__name__} is not a kind of call")


def _shaped(text: str, grammar: str) -> str:
    """The text if it is one of the grammar's, else one that begins like it and ends as soon as may be."""
    from llguidance import LLMatcher

    tokenizer = bytes_as_tokens()
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(grammar), log_level=0)
    written = bytearray(text.encode())
    del written[matcher.try_consume_tokens(list(written)) :]
    draws = random.Random(text)  # noqa: S311 - nothing secret is drawn
    while not matcher.is_accepting() and len(written) < MOST_SHAPED_BYTES:
        mask = matcher.compute_bitmask()
        allowed = [byte for byte in range(256) if mask[byte // 8] >> (byte % 8) & 1]
        liked = [byte for byte in allowed if byte in b'"}].!?' or (chr(byte).isalpha() and byte < 128)] or allowed
        matcher.consume_token(byte := draws.choice(liked if draws.random() < 0.8 else allowed))
        written.append(byte)
    return written.decode(errors="ignore")


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
