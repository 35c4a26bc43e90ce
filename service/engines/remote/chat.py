"""The engine on any server with OpenAI's chat completions: prompts are messages, and the server tokenises them.

Redraft makes up for what such a server cannot do, where that is possible. If it returns no log-probabilities, the model
writes the option that it chooses. If it supports no schemas, the prompt asks for JSON in words. It cannot weigh a given
reply. Images are sent as ``data:`` URLs and never as addresses, because a server would fetch any address. The texts of
turns may contain the marks of the server's chat template, and nothing here can detect that: if texts come from
strangers, give the engine the server's tokenizer (tokens.py).
"""

import json
import math
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any
from weakref import WeakKeyDictionary

from pydantic import BaseModel, BeforeValidator, WrapValidator
from pydantic_core import from_json

from service.engines.base import (
    PLAINLY,
    UNSTATED_TOKENS,
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
    Sampling,
    Thought,
    Usage,
    Weigh,
    require_grammars,
)
from service.engines.conversation import Conversation, Turn
from service.engines.decoding import Grammars, begin_with, bytes_as_tokens
from service.engines.relay import ChatBody, MessageEnd, MessagePiece, with_user_first, without_system
from service.engines.remote.answers import (
    CompletedChoice,
    CompletionAnswer,
    Logprob,
    ModelList,
    UsageAnswer,
    finish_reason,
    object_or_nothing,
    or_none,
)
from service.engines.remote.bodies import TooMuch
from service.engines.remote.failures import NotOffered, ReplyTooLong, WrongAnswer
from service.engines.remote.lengths import TURN_TOKENS, PromptLengths
from service.engines.remote.relay import ServerRelay
from service.engines.remote.server import CHAT, MODELS, OpenAIServer
from service.engines.remote.thoughts import ChatReader, SaidText, ThinkingFields, count_thoughts
from service.engines.thoughts import Habit, Way, find_requested_marks
from service.engines.tokenization import log_sum_exp
from service.errors import EngineUnavailable, InvalidRequest, PromptTooLong

MOST_LOGPROBS = 20


class TokenLogprob(BaseModel):
    token: str
    logprob: Logprob


class ChatTokenLogprobs(TokenLogprob):
    top_logprobs: list[TokenLogprob] = []


class ChatLogprobs(BaseModel):
    content: list[ChatTokenLogprobs] | None = None


class ChatReplyChoice(CompletedChoice):
    """``message`` in a whole answer, ``delta`` in a stream's event."""

    message: Annotated[SaidText, BeforeValidator(object_or_nothing)] = SaidText()
    delta: Annotated[SaidText, BeforeValidator(object_or_nothing)] = SaidText()
    logprobs: Annotated[ChatLogprobs | None, WrapValidator(or_none)] = None

    @property
    def first_top_logprobs(self) -> list[TokenLogprob]:
        """The candidates for the first token; empty if the server returns no log-probabilities."""
        content = self.logprobs.content if self.logprobs else None
        return content[0].top_logprobs if content else []


class ChatAnswer(CompletionAnswer[ChatReplyChoice]):
    """The last event of a stream has the usage and no choice."""


@dataclass(frozen=True)
class ChatCapabilities:
    """What the server can do.

    - ``schemas``: replies that fit a JSON schema
    - ``logprobs``: the log-probabilities of the most probable tokens, of ``most_logprobs`` at most
    - ``system``: its chat template knows that role
    - ``greetings``: an assistant's message may come first
    - ``supports_priority``: requests may have a priority
    - ``images``: messages may have images
    - ``context_tokens``: the size of its context; known only if it also counts a conversation's tokens, as vLLM does.
      Such a server goes on with a reply that has begun.
    - ``grammars``: it decodes with llguidance, as a vLLM server that is set to; known only if its context's size is
    - ``max_tokens_param``: the name of the parameter that bounds a reply
    - ``lists_models``: it has a list of models, which ``check`` reads
    - ``whole_top_p``: it accepts a ``top_p`` of 1, which leaves no token out
    - ``direct``: the fields that ask for a reply without thoughts; None if it knows none
    """

    schemas: bool
    logprobs: bool
    system: bool = True
    greetings: bool = True
    supports_priority: bool = False
    images: bool = False
    context_tokens: int | None = None
    grammars: bool = False
    max_tokens_param: str = "max_tokens"
    lists_models: bool = True
    whole_top_p: bool = True
    most_logprobs: int = MOST_LOGPROBS
    direct: Mapping[str, Any] | None = None


class ChatEngine(CallHandler):
    """An Engine on a server that knows the model as ``model``. ``habit``: how its replies begin; ``variables``: those
    of its chat template that the operator sets."""

    def __init__(
        self,
        server: OpenAIServer,
        model: str,
        capabilities: ChatCapabilities,
        habit: Habit | None = None,
        variables: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._server = server
        self._model = model
        self._capabilities = capabilities
        self._habit = habit or Habit()
        self._thinking = ThinkingFields(variables, capabilities.direct)
        self._grammars = Grammars(bytes_as_tokens)
        self._counts: WeakKeyDictionary[Conversation, int] = WeakKeyDictionary()
        self._lengths = PromptLengths()

    @property
    def model(self) -> str:
        return self._model

    @property
    def backend(self) -> object:
        return self

    @property
    def takes_images(self) -> bool:
        return self._capabilities.images

    @property
    def takes_grammars(self) -> bool:
        return self._capabilities.grammars

    async def sample(self, sample: Sample, priority: int) -> Completion:
        form = await self._proven_form(sample)
        conversation, fields = self._sampling_fields(sample, form)
        if sample.sampling.open_ended:  # else the server is asked at once, and again if it says that there is less room
            fields["max_tokens"] = await self._max_tokens(conversation, sample.sampling)
        choice, usage = await self._answer(conversation, priority, fields)
        reader = self._reader(conversation, sample)
        reader.feed(choice.message)
        _, completion = self._completion(reader, choice.finish_reason, usage, sample.sampling, form)
        return replace(completion, text=_unwrap_choice(completion.text, sample.sampling))

    async def stream(
        self, sample: Sample, *, priority: int = 0, reading: Reading = PLAINLY
    ) -> AsyncGenerator[Piece, None]:
        if sample.sampling.choices:  # their JSON would be streamed
            completion = await self.sample(sample, priority)
            yield Thought(completion.thoughts)
            yield completion.text
            yield completion
            return
        form = await self._proven_form(sample)
        conversation, fields = self._sampling_fields(sample, form)
        fields["max_tokens"] = limit = await self._max_tokens(conversation, sample.sampling)
        begun, reason, usage = False, None, None
        body = self._body(conversation, priority, fields)
        if self._capabilities.context_tokens is not None:  # vLLM's own
            body |= {"stream_interval": reading.interval, "stream_options": {"continuous_usage_stats": True}}
        reader = self._reader(conversation, sample)
        written, whole, delivered = 0, None, False
        try:
            async with aclosing(self._events(body)) as events:
                async for event in events:
                    usage = event.usage or usage
                    for choice in event.choices:
                        begun, reason = True, choice.finish_reason or reason
                        written += bool(choice.delta.content or choice.delta.thoughts)
                        sampled = usage.completion_tokens if usage else written
                        reading.on_progress(sampled / (limit or UNSTATED_TOKENS))
                        for piece in reader.feed(choice.delta):
                            yield piece
            if not begun:
                raise EngineUnavailable("the engine's server wrote nothing")
            rest, whole = self._completion(reader, reason, _usage(usage), sample.sampling, form)
            self._lengths.learn(conversation, whole.usage.prompt_tokens)
            for piece in rest:
                yield piece
            delivered = True
            yield whole
        except TooMuch:
            delivered = True  # more than was asked for is not a text to keep
            raise
        finally:
            if written and not delivered:
                spent = usage.usage() if usage else self._estimate(conversation, written)
                reading.on_cut(replace(whole or _cut(reader, spent), finish_reason="length"))

    async def choose(self, choose: Choose, priority: int) -> Choice:
        if not self._capabilities.logprobs:
            return await self._choose_by_text(choose, priority)
        most = self._capabilities.most_logprobs
        fields = {"max_tokens": 1, "temperature": 0.0, "logprobs": True, "top_logprobs": most}
        fields |= self._thinking.of(thinking=False)
        choice, usage = await self._answer(choose.conversation, priority, fields, choose.prefill)
        logprobs = [
            log_sum_exp(found.logprob for found in choice.first_top_logprobs if found.token.strip() == option)
            for option in choose.options
        ]
        return Choice(tuple(logprobs), usage)

    async def weigh(self, weigh: Weigh, priority: int) -> Likelihood:
        raise InvalidRequest("the engine's server cannot weigh a text that is given")

    async def fit(self, conversation: Conversation, tokens: int = 1) -> None:
        """Where the server cannot count tokens everything fits, and it refuses what does not."""
        await self._room(conversation, tokens)

    async def upper_bound(self, call: Call[Any]) -> Usage:
        """Where the server cannot count tokens, those of the prompt are at most as many as its bytes."""
        match call:
            case Choose() if self._capabilities.logprobs:
                return Usage(1, await self._most_prompt_tokens(call.conversation, call.prefill), 0, 1)
            case Choose():
                return await self.upper_bound(_choice_sample(call))
            case Sample():
                conversation, _ = self._sampling_fields(call)
                return Usage(1, await self._most_prompt_tokens(conversation), 0, call.sampling.max_tokens)
            case _:
                raise InvalidRequest("the engine's server cannot weigh a text that is given")

    async def prove(self, grammar: str) -> None:
        require_grammars(self)
        await self._grammars.prove(grammar)

    def relay(
        self, chat: ChatBody, *, stream: bool, priority: int = 0
    ) -> AsyncGenerator[MessagePiece | MessageEnd, None]:
        can = self._capabilities
        relay = ServerRelay(
            self._server,
            self._model,
            system=can.system,
            greetings=can.greetings,
            supports_priority=can.supports_priority,
            context_tokens=can.context_tokens,
            max_tokens_param=can.max_tokens_param,
            whole_top_p=can.whole_top_p,
            habit=self._habit,
            fields=self._thinking.of(thinking=True),
        )
        return relay.relay(chat, stream=stream, priority=priority)

    async def check(self) -> None:
        try:
            await self._server.get(MODELS, ModelList)
        except (NotOffered, WrongAnswer):
            if self._capabilities.lists_models:
                raise

    async def close(self) -> None:
        await self._server.close()

    async def _choose_by_text(self, choose: Choose, priority: int) -> Choice:
        """The option that the model writes, with probability 1."""
        reply = await self.sample(_choice_sample(choose), priority)
        return Choice(
            tuple(0.0 if reply.text.strip() == option else -math.inf for option in choose.options), reply.usage
        )

    async def _proven_form(self, sample: Sample) -> str | None:
        """The grammar of the reply with all that is given of it; None where there is none, or a schema is sent instead.

        Which tokens the model has is not known here, so it is tried out on bytes.
        """
        if sample.grammar is None and not sample.given:
            return None
        require_grammars(self)
        form = begin_with(sample.given, sample.form) if sample.given else sample.form
        if form is not None:
            await self._grammars.prove(form)
        return form

    def _reader(self, conversation: Conversation, sample: Sample) -> ChatReader:
        way: Way = "free"
        if sample.schema is not None or sample.sampling.choices or sample.grammar is not None or sample.given:
            way = "grammar"
        elif not sample.sampling.thinking and self._thinking.direct is not None:
            way = "direct"
        return ChatReader(self._habit.splitter(find_requested_marks(conversation), way))

    def _completion(
        self, reader: ChatReader, reason: str | None, usage: Usage, sampling: Sampling, form: str | None
    ) -> tuple[list[str | Thought], Completion]:
        """The last pieces of a reply that was read, and the whole."""
        last, split = reader.end(finish_reason(reason))
        if sampling.thinking:
            self._habit.learn(reader.splitter, split.finish_reason)
        usage = count_thoughts(usage, split)
        # Whether a text ended at a stop text is not known here.
        ended = split.finish_reason == "stop" and not sampling.stop
        breaks = form is not None and self._grammars.breaks(form, split.text, ended=ended)
        return last, Completion(split.text, split.finish_reason, usage, thoughts=split.thoughts, breaks_grammar=breaks)

    async def _answer(
        self, conversation: Conversation, priority: int, fields: Mapping[str, object], prefill: str = ""
    ) -> tuple[ChatReplyChoice, Usage]:
        body = self._body(conversation, priority, fields, prefill)
        limit = self._capabilities.max_tokens_param
        try:
            answer = await self._server.post(CHAT, body, ChatAnswer)
        except ReplyTooLong as error:
            answer = await self._server.post(CHAT, {**body, limit: error.room}, ChatAnswer)
        except InvalidRequest:
            room = await self._room(conversation)  # says it better, where nothing fits
            if room >= body.get(limit, 0):
                raise
            answer = await self._server.post(CHAT, {**body, limit: room}, ChatAnswer)
        if len(answer.choices) != 1:
            raise EngineUnavailable("the engine's server answers without one choice")
        usage = _usage(answer.usage)
        self._lengths.learn(conversation, usage.prompt_tokens)
        return answer.choices[0], usage

    def _estimate(self, conversation: Conversation, written: int) -> Usage:
        """What a reply in ``written`` pieces has cost, where the server has not said it: most send each token alone."""
        return Usage(1, self._counts.get(conversation) or self._lengths.most(conversation), 0, written)

    async def _most_prompt_tokens(self, conversation: Conversation, prefill: str = "") -> int:
        if self._capabilities.context_tokens is None:
            return self._lengths.most(conversation)
        counted = self._capabilities.context_tokens - await self._room(conversation)
        return counted + TURN_TOKENS + len(prefill.encode())  # whether the model may think changes the prompt's end

    async def _events(self, body: Mapping[str, Any]) -> AsyncGenerator[ChatAnswer, None]:
        """What a stream holds. It is refused, where it is, before it begins."""
        try:
            async with aclosing(self._server.stream(CHAT, body, ChatAnswer)) as events:
                async for event in events:
                    yield event
        except ReplyTooLong as error:
            shorter = {**body, self._capabilities.max_tokens_param: error.room}
            async with aclosing(self._server.stream(CHAT, shorter, ChatAnswer)) as events:
                async for event in events:
                    yield event

    async def _max_tokens(self, conversation: Conversation, sampling: Sampling) -> int | None:
        """The most tokens of a reply; None where that is left to the server."""
        if self._capabilities.context_tokens is None:
            return sampling.stated_tokens
        return min(sampling.max_tokens, await self._room(conversation))

    async def _room(self, conversation: Conversation, tokens: int = 1) -> int:
        """The most tokens that a reply may have; PromptTooLong if they are fewer than ``tokens``."""
        context_tokens = self._capabilities.context_tokens
        if context_tokens is None:
            return sys.maxsize
        count = self._counts.get(conversation)
        if count is None:
            body = {"model": self._model, "messages": self._messages(conversation)}
            count = self._counts[conversation] = (await self._server.tokenize(body)).count
        if count + tokens > context_tokens:
            raise PromptTooLong(count, context_tokens)
        return context_tokens - count

    def _messages(self, conversation: Conversation) -> list[Mapping[str, Any]]:
        if not self.takes_images:
            conversation.refuse_images()
        sent: Sequence[Mapping[str, Any]] = messages(conversation)
        if not self._capabilities.system:
            sent = without_system(sent)
        return list(sent) if self._capabilities.greetings else with_user_first(sent)

    def _body(
        self, conversation: Conversation, priority: int, fields: Mapping[str, object], prefill: str = ""
    ) -> dict[str, Any]:
        sent = self._messages(conversation)
        body: dict[str, Any] = {"model": self._model, "messages": sent}
        body |= {self._param_name(name): value for name, value in fields.items() if value is not None}
        if self._capabilities.supports_priority:
            body["priority"] = priority
        if prefill and self._capabilities.context_tokens is not None:
            body["messages"] = [*sent, {"role": "assistant", "content": prefill}]
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        return body

    def _param_name(self, name: str) -> str:
        return self._capabilities.max_tokens_param if name == "max_tokens" else name

    def _sampling_fields(self, sample: Sample, form: str | None = None) -> tuple[Conversation, dict[str, object]]:
        """The fields of the request; where the server knows no schemas, the conversation asks for JSON too."""
        conversation, sampling, schema = sample.conversation, sample.sampling, sample.schema
        fields: dict[str, object] = {
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p if sampling.top_p < 1 or self._capabilities.whole_top_p else None,
            "stop": sampling.stop or None,
            "seed": sampling.seed,
            **self._thinking.of(sampling.thinking),
        }
        if form is not None:
            fields["structured_outputs"] = {"grammar": form}
            return conversation, fields
        if sampling.choices:
            schema = _choice_schema(sampling.choices)
        if schema is not None and self._capabilities.schemas:
            named = {"name": "reply", "schema": schema}
            fields["response_format"] = {"type": "json_schema", "json_schema": named}
        elif schema is not None:
            instruction = f"Reply with JSON that fits this schema, and with nothing else: {json.dumps(schema)}"
            conversation = conversation.with_user(instruction)
        return conversation, fields


def messages(conversation: Conversation) -> list[dict[str, Any]]:
    """User turns in a row are one message, its images first. ValueError unless the last turn is the user's."""
    turns: list[Turn] = []
    for turn in conversation.turns():
        if turns and turns[-1].role == turn.role == "user":
            before = turns.pop()
            turn = Turn("user", f"{before.text}\n\n{turn.text}", images=before.images + turn.images)
        turns.append(turn)
    if turns[-1].role != "user":
        raise ValueError("only a user turn can be replied to")
    return [{"role": turn.role, "content": _content(turn)} for turn in turns]


def _content(turn: Turn) -> str | list[dict[str, Any]]:
    """A text alone is sent as such: not every server takes parts."""
    if not turn.images:
        return turn.text
    images = [{"type": "image_url", "image_url": {"url": image.url}} for image in turn.images]
    return [*images, {"type": "text", "text": turn.text}]


def _choice_schema(choices: Sequence[str]) -> JsonSchema:
    return {
        "type": "object",
        "properties": {"reply": {"enum": list(choices)}},
        "required": ["reply"],
        "additionalProperties": False,
    }


def _cut(reader: ChatReader, usage: Usage) -> Completion:
    """A reply that was cut, as far as it came."""
    _, split = reader.end("length")
    return Completion(split.text, "length", count_thoughts(usage, split), thoughts=split.thoughts)


def _choice_sample(choose: Choose) -> Sample:
    """A sample in which the model writes its choice."""
    return Sample(choose.conversation, Sampling(temperature=0.0, max_tokens=16, choices=choose.options, thinking=False))


def _unwrap_choice(text: str, sampling: Sampling) -> str:
    """The choice that a reply of _choice_schema holds; a reply that holds none is left as it is."""
    if not sampling.choices:
        return text
    try:
        said = from_json(text)
    except ValueError:
        return text
    return str(said.get("reply", text)) if isinstance(said, dict) else text


def _usage(usage: UsageAnswer | None) -> Usage:
    """One call; that is all that is known where the server does not tell what it cost."""
    return usage.usage() if usage else Usage(calls=1)
