"""What a server that speaks OpenAI's API can do, found out by asking it for a few tokens.

It has to answer one plain chat. An answer in any other form than the one that is asked for is a no, whatever its
status: there are servers that answer paths they do not know with 200, and servers that have another meaning for them.
"""

import struct
import zlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from service.engines.conversation import Conversation, Image, Turn
from service.engines.remote.answers import ModelCard, ModelList
from service.engines.remote.chat import MOST_LOGPROBS, ChatAnswer, ChatCapabilities, messages
from service.engines.remote.failures import REFUSAL, KeyRefused, NotOffered, ServerFailed, WrongAnswer
from service.engines.remote.server import CHAT, MODELS, OpenAIServer, TokenizeAnswer
from service.engines.remote.thoughts import DIRECT, PROBE_TOKENS, ThinkingFields, begins_with_thoughts, first_habit
from service.engines.remote.tokens import COMPLETIONS, TextAnswer, TokenCapabilities
from service.engines.served import EngineUnusable
from service.engines.thoughts import Habit, Thinking
from service.engines.tokenization import ChatTokenizer
from service.errors import EngineBusy, EngineUnavailable, InvalidRequest

T = TypeVar("T")

QUESTION = Conversation(Turn("user", "Say yes.")).with_reply("Yes.").with_user("Say no.")
INSTRUCTED = Conversation(Turn("system", "Be brief.")).with_user("Say yes.")
GREETED = Conversation(Turn("assistant", "Hello!")).with_user("Say yes.")
DIGITS = "12345"
MAX_TOKENS_PARAMS = ("max_tokens", "max_completion_tokens")
"""The names of the parameter that bounds a reply. The old name is tried first: a server that knows only that one may
ignore the new one instead of rejecting it, and write without end."""
PROBES = 3
"""How often a server is asked that fails at what it is asked for, before it counts as one that does not have it."""
LOAD_SECONDS = 120.0
"""For the first chat: LM Studio and Ollama load the model for it, and stop loading when nobody waits any more."""
PROBE_SECONDS = 10.0
"""For every other answer of a few tokens."""
FEW_LOGPROBS = 5
"""What Text Generation Inference and some gateways tell the probabilities of, and refuse to be asked for more."""
PICTURE_SIDE = 64
"""Enough for any model: some refuse smaller pictures."""
LATEST = ":latest"
"""What Ollama adds to the name of a model without a tag, in its list but not in its requests."""
MOST_NAMED = 8
NO_CHAT = "the engine's server answers no chat"
FORM = {
    "name": "reply",
    "schema": {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]},
}


async def find_model(server: OpenAIServer, model: str) -> ModelCard | None:
    """What the server's list says of the model; None if it has no list. EngineUnusable if that has no such model."""
    try:
        cards = (await server.get(MODELS, ModelList)).data
    except KeyRefused as error:
        raise _key_refused() from error
    except (NotOffered, WrongAnswer, InvalidRequest):
        return None
    except ServerFailed as error:
        raise EngineUnavailable(_joined(error.detail, server.shown(error.words))) from error
    for card in cards:
        if card.id in (model, model + LATEST):
            return card
    named = [server.shown(card.id) for card in cards]
    known = ", ".join(named[:MOST_NAMED]) + (f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else "")
    raise EngineUnusable(f"the engine's server has no model {model!r}; it has {known or 'none'}")


async def find_max_tokens_param(server: OpenAIServer, model: str, *, listed: bool = True) -> str:
    """The name of the parameter by which the server bounds a reply.

    EngineUnusable, with what the server says, if it refuses a plain chat; EngineUnavailable if it fails at one.
    ``listed``: whether its list of models has the model.
    """
    plain = {"model": model, "messages": messages(QUESTION)}
    reasons: list[EngineUnavailable] = []
    for name in MAX_TOKENS_PARAMS:
        call = partial(server.post, CHAT, {**plain, name: 1}, ChatAnswer, seconds=LOAD_SECONDS)
        try:
            answer = await _asked(call)
            if answer.choices:
                return name
            reasons.append(_unusable(server, "the answer has no choice", listed))
        except KeyRefused as error:
            raise _key_refused() from error
        except NotOffered as error:
            reasons.append(_unusable(server, error.words, listed, f"it has nothing at {CHAT}"))
        except WrongAnswer as error:
            reasons.append(_unusable(server, error.words, listed, error.detail))
        except InvalidRequest as error:
            reasons.append(_unusable(server, error.detail.removeprefix(REFUSAL), listed))
        except ServerFailed as error:
            reasons.append(EngineUnavailable(_joined(f"{NO_CHAT}: {error.detail}", server.shown(error.words))))
    refuses_a_name = any(name in reasons[0].detail for name in MAX_TOKENS_PARAMS)
    raise reasons[-1 if refuses_a_name else 0]


async def counted_tokens(server: OpenAIServer, model: str, thinking: Thinking) -> TokenizeAnswer | None:
    """A conversation's tokens as the server counts them, if it does so as vLLM's."""
    body = {"model": model, "messages": messages(QUESTION), "return_token_strs": True}
    body |= ThinkingFields(thinking.variables).of(thinking=True)
    return await _accepted(lambda: server.tokenize(body))


async def find_token_capabilities(server: OpenAIServer, model: str, chat: ChatTokenizer) -> TokenCapabilities | None:
    """What a server can do with prompts that are token ids; None if it takes none."""
    probe = {"model": model, "prompt": chat.prompt_ids(QUESTION), "max_tokens": 1}

    async def asked(more: Mapping[str, object]) -> TextAnswer | None:
        answer = await _accepted(lambda: server.post(COMPLETIONS, {**probe, **more}, TextAnswer, seconds=PROBE_SECONDS))
        return answer if answer and answer.choices else None

    if await asked({}) is None:
        return None
    named = chat.option_ids(DIGITS)
    weighed = await asked({"logprobs": 1, "logprob_token_ids": named, "return_tokens_as_token_ids": True})
    logprobs = weighed.choices[0].logprobs if weighed else None
    return TokenCapabilities(
        supports_priority=await asked({"priority": 1}) is not None,
        logprobs_for_any_token=logprobs is not None and logprobs.first().keys() >= set(named),
    )


async def find_chat_capabilities(
    server: OpenAIServer, model: str, context_tokens: int | None, max_tokens_param: str = MAX_TOKENS_PARAMS[0]
) -> ChatCapabilities:
    """What a server can do that answers plain chats with that parameter."""
    probe = {"model": model, "messages": messages(QUESTION), max_tokens_param: 1}

    async def asked(more: Mapping[str, object]) -> ChatAnswer | None:
        return await _chat(server, {**probe, **more})

    most_logprobs = 0
    for count in (MOST_LOGPROBS, FEW_LOGPROBS):
        weighed = await asked({"logprobs": True, "top_logprobs": count})
        if weighed is not None:
            most_logprobs = count if any(choice.weighed for choice in weighed.choices) else 0
            break
    return ChatCapabilities(
        schemas=await asked({"response_format": {"type": "json_schema", "json_schema": FORM}}) is not None,
        logprobs=most_logprobs > 0,
        most_logprobs=most_logprobs,
        system=await asked({"messages": messages(INSTRUCTED)}) is not None,
        greetings=await asked({"messages": messages(GREETED)}) is not None,
        supports_priority=context_tokens is not None and await asked({"priority": 1}) is not None,
        context_tokens=context_tokens,
        max_tokens_param=max_tokens_param,
        whole_top_p=await asked({"top_p": 1.0}) is not None,
    )


async def find_habit(
    server: OpenAIServer, model: str, max_tokens_param: str, counted: TokenizeAnswer | None, thinking: Thinking
) -> Habit:
    """How the model begins its replies, by what it says first."""
    body = {"model": model, "messages": messages(QUESTION), max_tokens_param: PROBE_TOKENS, "temperature": 0.0}
    answer = await _chat(server, {**body, **ThinkingFields(thinking.variables).of(thinking=True)})
    if answer is None:
        return Habit("unknown")
    [choice, *_] = answer.choices
    return first_habit(choice.message, choice.finish_reason, counted.token_strs if counted else None, thinking)


async def find_direct(server: OpenAIServer, model: str, max_tokens_param: str) -> Mapping[str, Any] | None:
    """How the server is asked for a reply without thoughts; None if it knows no way."""
    for fields in DIRECT:
        answer = await _chat(
            server, {"model": model, "messages": messages(QUESTION), max_tokens_param: PROBE_TOKENS, **fields}
        )
        if answer and not begins_with_thoughts(answer.choices[0].message):
            return fields
    return None


async def takes_images(server: OpenAIServer, model: str, max_tokens_param: str = MAX_TOKENS_PARAMS[0]) -> bool:
    """Whether the server accepts a picture and counts it: some drop what their model cannot see."""
    image = Image("image/png", blank_png(PICTURE_SIDE))
    plain, pictured = (
        {"model": model, "messages": messages(Conversation(turn)), max_tokens_param: 1}
        for turn in (Turn("user", "Say yes."), Turn("user", "Say yes.", images=(image,)))
    )
    seen = await _chat(server, pictured)
    if seen is None or seen.usage is None:
        return seen is not None
    without = await _chat(server, plain)
    return without is not None and without.usage is not None and seen.usage.prompt_tokens > without.usage.prompt_tokens


def blank_png(side: int) -> bytes:
    """A grey square of so many pixels a side (Portable Network Graphics, W3C Recommendation, section 5)."""
    rows = (b"\0" + b"\x80" * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    written = (struct.pack(">I", len(data)) + kind + data + _crc(kind + data) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


def _crc(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))


def _key_refused() -> EngineUnusable:
    return EngineUnusable(
        "the engine's server refuses the key that it is sent, or wants one (REDRAFT_ENGINE_KEY, or key_file)"
    )


def _unusable(server: OpenAIServer, words: str, listed: bool, otherwise: str = "") -> EngineUnusable:
    """Why a server cannot be used that refuses a plain chat: in its own words, if there are any."""
    reason = _joined(NO_CHAT, server.shown(words) or otherwise)
    return EngineUnusable(reason if listed else f"{reason}; is its address that of an OpenAI server?")


def _joined(detail: str, words: str) -> str:
    return f"{detail}: {words}" if words else detail


async def _chat(server: OpenAIServer, body: Mapping[str, object]) -> ChatAnswer | None:
    """The answer to a chat, if it is one."""
    answer = await _accepted(lambda: server.post(CHAT, body, ChatAnswer, seconds=PROBE_SECONDS))
    return answer if answer and answer.choices else None


async def _accepted(call: Callable[[], Awaitable[T]]) -> T | None:
    """What the server answers; None if it refuses, has nothing there, or goes on to fail or to answer something else.

    Some servers fail, or hang up, at what they do not have. One that is gone as a whole shows so at its next look.
    """
    try:
        return await _asked(call)
    except EngineBusy:
        raise
    except (InvalidRequest, EngineUnavailable):
        return None


async def _asked(call: Callable[[], Awaitable[T]]) -> T:
    """What the server answers, on a further attempt if it fails, or answers something else, for a moment."""
    for _ in range(PROBES - 1):
        try:
            return await call()
        except (EngineBusy, NotOffered, KeyRefused):
            raise
        except EngineUnavailable:
            continue
    return await call()
