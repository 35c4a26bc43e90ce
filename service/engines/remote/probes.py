"""What a server that speaks OpenAI's API can do, found out by asking it for a few tokens.

It has to answer one plain chat. An answer in another form than the expected one means no, whatever its status: some
servers answer unknown paths with 200, and some give those paths another meaning.
"""

import base64
import re
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
"""How often a request that fails is sent before the server counts as one that does not support it."""
LOAD_SECONDS = 120.0
"""For the first chat: LM Studio and Ollama load the model for it, and stop loading if the client gives up."""
PROBE_SECONDS = 10.0
"""For every other answer of a few tokens."""
FEW_LOGPROBS = 5
"""What Text Generation Inference and some gateways tell the probabilities of, and refuse to be probe_with for more."""
GREY_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAAAAACPAi4CAAAAKUlEQVR4nO3MQREAAAwCIKMb3RD77SAA6VEEAoFAIBAIBAKBQCAQfA8G320A"
    "eUC9G5AAAAAASUVORK5CYII="
)
"""A grey square of 64 pixels a side: some models refuse smaller pictures."""
LATEST = ":latest"
"""Ollama adds this to the name of a model without a tag, in its list but not in requests."""
MOST_NAMED = 8
NO_CHAT = "the engine's server answers no chat"
FORM = {
    "name": "reply",
    "schema": {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]},
}

MARKED = {"const": {"yes": 1}, "x-guidance": {"key_separator": "="}}
"""A schema that llguidance writes with another separator, and all others as JSON. A grammar in Lark's notation would
show the same, but makes some servers use another decoder for good, and ended older ones."""
MARKED_TEXT = re.compile(r'\s*\{\s*"yes"\s*=')
MARKED_TOKENS = 16


async def find_model(server: OpenAIServer, model: str) -> ModelCard | None:
    """The model's entry in the server's list; None if it has no list. EngineUnusable if the list lacks the model."""
    try:
        cards = (await server.get(MODELS, ModelList)).data
    except KeyRefused as error:
        raise _make_key_refused() from error
    except (NotOffered, WrongAnswer, InvalidRequest):
        return None
    except ServerFailed as error:
        raise EngineUnavailable(_join(error.detail, server.redact(error.words))) from error
    for card in cards:
        if card.id in (model, model + LATEST):
            return card
    named = [server.redact(card.id) for card in cards]
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
            answer = await _retry(call)
            if answer.choices:
                return name
            reasons.append(_make_unusable(server, "the answer has no choice", listed))
        except KeyRefused as error:
            raise _make_key_refused() from error
        except NotOffered as error:
            reasons.append(_make_unusable(server, error.words, listed, f"it has nothing at {CHAT}"))
        except WrongAnswer as error:
            reasons.append(_make_unusable(server, error.words, listed, error.detail))
        except InvalidRequest as error:
            reasons.append(_make_unusable(server, error.detail.removeprefix(REFUSAL), listed))
        except ServerFailed as error:
            reasons.append(EngineUnavailable(_join(f"{NO_CHAT}: {error.detail}", server.redact(error.words))))
    refuses_a_name = any(name in reasons[0].detail for name in MAX_TOKENS_PARAMS)
    raise reasons[-1 if refuses_a_name else 0]


async def count_tokens(server: OpenAIServer, model: str, thinking: Thinking) -> TokenizeAnswer | None:
    """A conversation's tokens as the server counts them; None if it cannot count them as vLLM does."""
    body = {"model": model, "messages": messages(QUESTION), "return_token_strs": True}
    body |= ThinkingFields(thinking.variables).of(thinking=True)
    return await _try(lambda: server.tokenize(body))


async def find_token_capabilities(server: OpenAIServer, model: str, chat: ChatTokenizer) -> TokenCapabilities | None:
    """What a server can do with prompts of token ids; None if it does not accept them."""
    probe = {"model": model, "prompt": chat.prompt_ids(QUESTION), "max_tokens": 1}

    async def probe_with(more: Mapping[str, object]) -> TextAnswer | None:
        answer = await _try(lambda: server.post(COMPLETIONS, {**probe, **more}, TextAnswer, seconds=PROBE_SECONDS))
        return answer if answer and answer.choices else None

    if await probe_with({}) is None:
        return None
    named = chat.option_ids(DIGITS)
    weighed = await probe_with({"logprobs": 1, "logprob_token_ids": named, "return_tokens_as_token_ids": True})
    logprobs = weighed.choices[0].logprobs if weighed else None
    marked = await probe_with({"structured_outputs": {"json": MARKED}, "max_tokens": MARKED_TOKENS})
    return TokenCapabilities(
        supports_priority=await probe_with({"priority": 1}) is not None,
        logprobs_for_any_token=logprobs is not None and logprobs.first().keys() >= set(named),
        grammars=marked is not None and MARKED_TEXT.match(marked.choices[0].text) is not None,
    )


async def find_chat_capabilities(
    server: OpenAIServer, model: str, context_tokens: int | None, max_tokens_param: str = MAX_TOKENS_PARAMS[0]
) -> ChatCapabilities:
    """What a server can do that answers plain chats with that parameter."""
    probe = {"model": model, "messages": messages(QUESTION), max_tokens_param: 1}

    async def probe_with(more: Mapping[str, object]) -> ChatAnswer | None:
        return await _try_chat(server, {**probe, **more})

    most_logprobs = 0
    for count in (MOST_LOGPROBS, FEW_LOGPROBS):
        weighed = await probe_with({"logprobs": True, "top_logprobs": count})
        if weighed is not None:
            most_logprobs = count if any(choice.first_top_logprobs for choice in weighed.choices) else 0
            break
    marked = {"structured_outputs": {"json": MARKED}, max_tokens_param: MARKED_TOKENS}
    return ChatCapabilities(
        schemas=await probe_with({"response_format": {"type": "json_schema", "json_schema": FORM}}) is not None,
        logprobs=most_logprobs > 0,
        most_logprobs=most_logprobs,
        system=await probe_with({"messages": messages(INSTRUCTED)}) is not None,
        greetings=await probe_with({"messages": messages(GREETED)}) is not None,
        supports_priority=context_tokens is not None and await probe_with({"priority": 1}) is not None,
        context_tokens=context_tokens,
        grammars=context_tokens is not None and _is_marked(await probe_with(marked)),
        max_tokens_param=max_tokens_param,
        whole_top_p=await probe_with({"top_p": 1.0}) is not None,
    )


async def find_habit(
    server: OpenAIServer, model: str, max_tokens_param: str, counted: TokenizeAnswer | None, thinking: Thinking
) -> Habit:
    """How the model begins its replies, judged by its first tokens."""
    body = {"model": model, "messages": messages(QUESTION), max_tokens_param: PROBE_TOKENS, "temperature": 0.0}
    answer = await _try_chat(server, {**body, **ThinkingFields(thinking.variables).of(thinking=True)})
    if answer is None:
        return Habit("unknown")
    [choice, *_] = answer.choices
    return first_habit(choice.message, choice.finish_reason, counted.token_strs if counted else None, thinking)


async def find_direct(server: OpenAIServer, model: str, max_tokens_param: str) -> Mapping[str, Any] | None:
    """How the server is probe_with for a reply without thoughts; None if it knows no way."""
    for fields in DIRECT:
        answer = await _try_chat(
            server, {"model": model, "messages": messages(QUESTION), max_tokens_param: PROBE_TOKENS, **fields}
        )
        if answer and not begins_with_thoughts(answer.choices[0].message):
            return fields
    return None


async def takes_images(server: OpenAIServer, model: str, max_tokens_param: str = MAX_TOKENS_PARAMS[0]) -> bool:
    """Whether the server accepts an image and counts its tokens: some silently drop images."""
    image = Image("image/png", GREY_PNG)
    plain, pictured = (
        {"model": model, "messages": messages(Conversation(turn)), max_tokens_param: 1}
        for turn in (Turn("user", "Say yes."), Turn("user", "Say yes.", images=(image,)))
    )
    seen = await _try_chat(server, pictured)
    if seen is None or seen.usage is None:
        return seen is not None
    without = await _try_chat(server, plain)
    return without is not None and without.usage is not None and seen.usage.prompt_tokens > without.usage.prompt_tokens


def _is_marked(answer: ChatAnswer | None) -> bool:
    return answer is not None and MARKED_TEXT.match(answer.choices[0].message.content or "") is not None


def _make_key_refused() -> EngineUnusable:
    return EngineUnusable(
        "the engine's server refuses the key that it is sent, or wants one (REDRAFT_ENGINE_KEY, or key_file)"
    )


def _make_unusable(server: OpenAIServer, words: str, listed: bool, otherwise: str = "") -> EngineUnusable:
    """The error for a server that rejects a plain chat, in its own words if there are any."""
    reason = _join(NO_CHAT, server.redact(words) or otherwise)
    return EngineUnusable(reason if listed else f"{reason}; is its address that of an OpenAI server?")


def _join(detail: str, words: str) -> str:
    return f"{detail}: {words}" if words else detail


async def _try_chat(server: OpenAIServer, body: Mapping[str, object]) -> ChatAnswer | None:
    """The answer to a chat, if it is one."""
    answer = await _try(lambda: server.post(CHAT, body, ChatAnswer, seconds=PROBE_SECONDS))
    return answer if answer and answer.choices else None


async def _try(call: Callable[[], Awaitable[T]]) -> T | None:
    """The server's answer; None if it rejects the request, has nothing at the path, or keeps failing.

    Some servers fail, or hang up, at what they do not support. A server that is down shows that at its next check.
    """
    try:
        return await _retry(call)
    except EngineBusy:
        raise
    except (InvalidRequest, EngineUnavailable):
        return None


async def _retry(call: Callable[[], Awaitable[T]]) -> T:
    """The server's answer, after up to PROBES attempts if it fails or answers something else."""
    for _ in range(PROBES - 1):
        try:
            return await call()
        except (EngineBusy, NotOffered, KeyRefused):
            raise
        except EngineUnavailable:
            continue
    return await call()
