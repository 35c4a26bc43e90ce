"""The engine on a remote vLLM server that takes prompts as token ids: exact prefixes, as in this process."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from service.engines.base import (
    PLAINLY,
    Call,
    CallHandler,
    Choice,
    Choose,
    Completion,
    Likelihood,
    Piece,
    Reading,
    Sample,
    Sampling,
    Thought,
    Usage,
    Weigh,
    require_grammars,
)
from service.engines.conversation import Conversation
from service.engines.decoding import Grammars, tokens_of
from service.engines.relay import ChatBody, MessageEnd, MessagePiece
from service.engines.remote.answers import CompletedChoice, CompletionAnswer, Logprob, finish_reason
from service.engines.remote.bodies import TooMuch
from service.engines.remote.relay import ServerRelay
from service.engines.remote.server import OpenAIServer
from service.engines.remote.thoughts import ThinkingFields
from service.engines.thoughts import Habit, Splitter, Way, find_requested_marks
from service.engines.tokenization import ChatTokenizer
from service.errors import EngineUnavailable
from service.grammar.ebnf import to_ebnf

COMPLETIONS = "/v1/completions"
HEALTH = "/health"
MOST_LOGPROBS = 20
"""The most probable tokens that vLLM tells of unless it is set otherwise."""
LEAST_LOGPROB = -9999.0
"""What vLLM sends for an impossible token, since JSON has no infinity."""

ONE_TOKEN: Mapping[str, object] = {"max_tokens": 1, "temperature": 0.0}
PLAIN_SAMPLING = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Else the server samples as its model's own configuration says, and the same request samples otherwise elsewhere."""


class Weight(BaseModel):
    logprob: Logprob


class TextLogprobs(BaseModel):
    """By ``token_id:123``, as vLLM names tokens when asked to return them as ids."""

    top_logprobs: list[dict[str, Logprob] | None]

    def first(self) -> dict[int, float]:
        """The natural-log probabilities of the first token's candidates, by their ids."""
        [found, *_] = self.top_logprobs or [None]
        weights = {int(token.removeprefix("token_id:")): logprob for token, logprob in (found or {}).items()}
        return {token: logprob for token, logprob in weights.items() if logprob > LEAST_LOGPROB}


class TextChoice(CompletedChoice):
    text: str
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None
    logprobs: TextLogprobs | None = None
    prompt_logprobs: list[dict[int, Weight] | None] | None = None


class TextAnswer(CompletionAnswer[TextChoice]):
    """The last event of a stream has the usage and no choice."""


@dataclass(frozen=True)
class TokenCapabilities:
    """What the server can do.

    - ``supports_priority``: requests may have a priority
    - ``logprobs_for_any_token``: it returns the log-probabilities of tokens by their ids, else only those of the most
      probable ones
    - ``grammars``: it decodes with llguidance, so that it reads Lark's notation; else it reads xgrammar's
    """

    supports_priority: bool
    logprobs_for_any_token: bool
    grammars: bool = False


class TokenEngine(CallHandler):
    """An Engine on a server that knows the model as ``model``, with its tokenizer here. ``variables``: those of the
    chat template that the operator sets."""

    def __init__(
        self,
        server: OpenAIServer,
        model: str,
        chat: ChatTokenizer,
        context_tokens: int,
        capabilities: TokenCapabilities,
        variables: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._server = server
        self._model = model
        self._chat = chat
        self._context_tokens = context_tokens
        self.capabilities = capabilities
        self._variables = variables
        self._grammars = Grammars(lambda: tokens_of(chat.tokenizer))

    @property
    def model(self) -> str:
        return self._model

    @property
    def backend(self) -> object:
        return self

    @property
    def takes_images(self) -> bool:
        return False

    @property
    def takes_grammars(self) -> bool:
        return self.capabilities.grammars

    async def sample(self, sample: Sample, priority: int) -> Completion:
        ids, form = await self._prompt(sample)
        choice, usage = await self._answer(ids, priority, self._sampling_fields(ids, sample.sampling, form))
        reader = self._reader(sample)
        reader.feed(sample.given + choice.text)
        return self._completion(choice, sample, form, reader, choice.token_ids, usage)[1]

    async def stream(
        self, sample: Sample, *, priority: int = 0, reading: Reading = PLAINLY
    ) -> AsyncGenerator[Piece, None]:
        ids, form = await self._prompt(sample)
        reader, sampled, last, usage = self._reader(sample), list[int](), None, None
        fields = self._sampling_fields(ids, sample.sampling, form)
        body = self._body(ids, priority, {**fields, "stream_interval": reading.interval})
        most = min(sample.sampling.max_tokens, self._context_tokens - len(ids))
        whole, delivered = None, False
        for piece in reader.feed(sample.given):
            yield piece
        try:
            async with aclosing(self._server.stream(COMPLETIONS, body, TextAnswer)) as events:
                async for event in events:
                    for choice in event.choices:
                        sampled += choice.token_ids or ()
                        if last is None or choice.finish_reason:
                            last = choice
                        reading.on_progress(len(sampled) / most)
                        for piece in reader.feed(choice.text):
                            yield piece
                    usage = event.usage or usage
            if last is None or usage is None:
                raise EngineUnavailable("the engine's server did not say what its reply cost")
            rest, whole = self._completion(last, sample, form, reader, sampled, usage.usage())
            for piece in rest:
                yield piece
            delivered = True
            yield whole
        except TooMuch:
            delivered = True  # more than was asked for is not a text to keep
            raise
        finally:
            if sampled and not delivered:
                cut = whole or self._cut(sample, reader, sampled, Usage(1, len(ids), 0, len(sampled)))
                reading.on_cut(replace(cut, finish_reason="length"))

    async def choose(self, choose: Choose, priority: int) -> Choice:
        ids = await self._fitting_ids(choose.conversation, choose.prefill, thinking=False)
        fields: dict[str, object] = {**ONE_TOKEN, "logprobs": MOST_LOGPROBS, "return_tokens_as_token_ids": True}
        if self.capabilities.logprobs_for_any_token:
            fields["logprob_token_ids"] = self._chat.option_ids(choose.options)
        choice, usage = await self._answer(ids, priority, fields)
        weights = choice.logprobs.first() if choice.logprobs else {}
        return Choice(self._chat.option_logprobs(choose.options, weights), usage)

    async def weigh(self, weigh: Weigh, priority: int) -> Likelihood:
        ids = await self._fitting_ids(weigh.conversation, weigh.reply, thinking=False)
        begin = len(self._chat.prompt_ids(weigh.conversation, thinking=False))
        choice, usage = await self._answer(ids, priority, {**ONE_TOKEN, "prompt_logprobs": 1})
        weights = [
            {token: weight.logprob for token, weight in (found or {}).items()}
            for found in (choice.prompt_logprobs or [])[begin:]
        ]
        return Likelihood(self._chat.weighed(ids[begin:], weights), usage)

    async def fit(self, conversation: Conversation, tokens: int = 1) -> None:
        await self._fitting_ids(conversation, tokens=tokens)

    async def upper_bound(self, call: Call[Any]) -> Usage:
        prompt = (await self._prompt(call))[0] if isinstance(call, Sample) else None
        return await self._chat.upper_bound(call, self._context_tokens, prompt)

    async def prove(self, grammar: str) -> None:
        require_grammars(self)
        await self._grammars.prove(grammar)

    def relay(
        self, chat: ChatBody, *, stream: bool, priority: int = 0
    ) -> AsyncGenerator[MessagePiece | MessageEnd, None]:
        """By the server's chat completions: they, and not the tokenizer here, know how a model writes tool calls."""
        known = self._chat.habit
        # A server with a parser tells thoughts apart itself, and whether it has one is not known.
        habit = Habit("unknown" if known.opening == "open" else known.opening, known.marks)
        relay = ServerRelay(
            self._server,
            self._model,
            system=self._chat.knows_system,
            greetings=self._chat.takes_greetings,
            supports_priority=self.capabilities.supports_priority,
            context_tokens=self._context_tokens,
            habit=habit,
            fields=ThinkingFields(self._variables).of(thinking=True),
        )
        return relay.relay(chat, stream=stream, priority=priority)

    async def check(self) -> None:
        await self._server.check(HEALTH)

    async def close(self) -> None:
        await self._server.close()

    async def _fitting_ids(
        self, conversation: Conversation, prefill: str = "", tokens: int = 1, *, thinking: bool = True
    ) -> list[int]:
        return await self._chat.fitting_ids(conversation, self._context_tokens, prefill, tokens, thinking=thinking)

    async def _prompt(self, sample: Sample) -> tuple[list[int], str | None]:
        """The prompt's ids, and the grammar of what is sampled after them."""
        if sample.grammar is not None or sample.given:
            require_grammars(self)
        form = sample.form
        ids = await self._fitting_ids(sample.conversation, sample.given, thinking=_thinks(sample))
        if form is not None and self.takes_grammars:
            await self._grammars.prove(form)
        return ids, form

    def _reader(self, sample: Sample) -> Splitter:
        way: Way = "free" if _thinks(sample) else "direct"
        return self._chat.habit.splitter(find_requested_marks(sample.conversation), way)

    async def _answer(self, ids: list[int], priority: int, fields: Mapping[str, object]) -> tuple[TextChoice, Usage]:
        answer = await self._server.post(COMPLETIONS, self._body(ids, priority, fields), TextAnswer)
        if len(answer.choices) != 1 or answer.usage is None:
            raise EngineUnavailable("the engine's server answers without one choice and its usage")
        return answer.choices[0], answer.usage.usage()

    def _body(self, ids: list[int], priority: int, fields: Mapping[str, object]) -> dict[str, object]:
        body = {"model": self._model, "prompt": ids, "return_token_ids": True, **PLAIN_SAMPLING, **fields}
        return {**body, "priority": priority} if self.capabilities.supports_priority else body

    def _sampling_fields(self, ids: list[int], sampling: Sampling, form: str | None) -> dict[str, object]:
        structure: dict[str, object] | None = None
        if form is not None:
            structure = {"grammar": form if self.takes_grammars else to_ebnf(form)}
        return {
            "max_tokens": min(sampling.max_tokens, self._context_tokens - len(ids)),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop": sampling.stop,
            "seed": sampling.seed,
            "structured_outputs": structure,
            **({"skip_special_tokens": False} if self._chat.hides_marks else {}),
        }

    def _completion(
        self,
        choice: TextChoice,
        sample: Sample,
        form: str | None,
        reader: Splitter,
        sampled: Sequence[int] | None,
        usage: Usage,
    ) -> tuple[list[str | Thought], Completion]:
        """The last pieces of a reply that was read, and the whole."""
        if sampled is None:
            raise EngineUnavailable("the engine's server does not tell which tokens it sampled")
        last, split = reader.end(finish_reason(choice.finish_reason))
        if split.thoughts:
            usage = replace(usage, reasoning_tokens=self._chat.thought_tokens(sampled, split.text))
            return last, Completion(split.text, split.finish_reason, usage, None, split.thoughts)
        stopped_at_text = isinstance(choice.stop_reason, str)
        ids = self._chat.reply_ids(sampled, stopped_at_text=stopped_at_text)
        breaks = False
        if form is not None and not stopped_at_text and self.takes_grammars:
            written = ids if ids is not None else split.text.removeprefix(sample.given)
            breaks = self._grammars.breaks(form, written, ended=split.finish_reason == "stop")
        ids = self._with_given(sample, ids)
        return last, Completion(split.text, split.finish_reason, usage, ids, breaks_grammar=breaks)

    def _with_given(self, sample: Sample, ids: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """The ids of the whole reply, of which ``ids`` were sampled."""
        return ids if ids is None or not sample.given else (*self._chat.encode(sample.given), *ids)

    def _cut(self, sample: Sample, reader: Splitter, sampled: Sequence[int], usage: Usage) -> Completion:
        """A reply that was cut, as far as it came. How much of its prompt was cached is only said at the end."""
        _, split = reader.end("length")
        if split.thoughts:
            usage = replace(usage, reasoning_tokens=self._chat.thought_tokens(sampled, split.text))
            return Completion(split.text, "length", usage, None, split.thoughts)
        ids = self._with_given(sample, self._chat.reply_ids(sampled, stopped_at_text=False))
        return Completion(split.text, "length", usage, ids)


def _thinks(sample: Sample) -> bool:
    """Whether the model may think: not under a grammar, which a server without a parser begins at once."""
    shaped = sample.schema is not None or sample.sampling.choices or sample.grammar is not None or sample.given
    return sample.sampling.thinking and not shaped
