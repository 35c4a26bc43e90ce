"""Remote engines: a server that speaks OpenAI's API, and what it can do, found out whenever it comes up.

A vLLM server whose tokenizer is at hand is given token ids (openai_tokens); any other is given messages (openai_chat).
So is one whose model takes images, unless the operator names the tokenizer: images cannot be sent as token ids.
"""

import asyncio
import logging
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from service.engines.conversation import Conversation, Image, Turn
from service.engines.openai_chat import MOST_LOGPROBS, ChatAbilities, ChatAnswer, ChatEngine, messages
from service.engines.openai_failures import Answer, NotOffered, ServerFailed
from service.engines.openai_server import CHAT, MODELS, TOKENIZE, A, OpenAIServer, TokenizeAnswer
from service.engines.openai_tokens import COMPLETIONS, Abilities, TextAnswer, TokenEngine
from service.engines.tokenization import ChatTokenizer
from service.errors import EngineBusy, EngineUnavailable, InvalidRequest

log = logging.getLogger(__name__)

QUESTION = Conversation(Turn("user", "Say yes.")).with_reply("Yes.").with_user("Say no.")
INSTRUCTED = Conversation(Turn("system", "Be brief.")).with_user("Say yes.")
DIGITS = "12345"
LIMITS = ("max_tokens", "max_completion_tokens")
"""How servers call the most tokens of a reply. The old name is tried first: a server that knows no other may not refuse
the new one but overlook it, and write without end."""
PROBES = 2
"""How often a server is asked that fails at what it is asked for, before it is taken not to have it."""
PICTURE_SIDE = 64
"""Enough for any model: some refuse smaller pictures."""
FORM = {
    "name": "reply",
    "schema": {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]},
}


class EngineMisconfigured(Exception):
    """The server does not have what the settings say."""


class ModelCard(BaseModel):
    """``root`` and ``max_model_len`` are vLLM's: what it loaded, and the context's tokens."""

    id: str
    root: str | None = None
    max_model_len: int | None = None


class ModelList(Answer):
    data: list[ModelCard]


class Tokenizers:
    """Loads tokenizers, each once for all servers.

    ``importing``: held by whoever loads something with transformers, which two threads cannot import at once.
    """

    def __init__(self) -> None:
        self._loads: dict[str, asyncio.Future[ChatTokenizer]] = {}
        self.importing = asyncio.Lock()

    async def get(self, source: str) -> ChatTokenizer:
        """Whoever gives up waiting ends no load: a thread cannot be ended."""
        if source not in self._loads:
            self._loads[source] = asyncio.ensure_future(self._load(source))
        return await asyncio.shield(self._loads[source])

    def forget(self, source: str) -> None:
        """Load it anew the next time."""
        self._loads.pop(source, None)

    async def _load(self, source: str) -> ChatTokenizer:
        try:
            async with self.importing:
                return ChatTokenizer(await asyncio.to_thread(_load, source))
        except BaseException:
            self.forget(source)
            raise


async def connect(
    url: str, model: str, *, tokenizers: Tokenizers, key: str | None = None, tokenizer: str | None = None
) -> TokenEngine | ChatEngine:
    """Find out what the server can do; EngineUnavailable if it does not answer.

    ``model``: the name by which the server knows the model. ``tokenizer``: a folder or hub name of its tokenizer; by
    default what the server says that it loaded, if that is a folder here and the model takes no images.
    EngineMisconfigured if the server has no such
    model, or if the tokenizer is another than the server's.
    """
    server = OpenAIServer(url, key)
    try:
        return await _engine(server, model, tokenizer, tokenizers)
    except BaseException:
        await server.close()
        raise


async def _engine(
    server: OpenAIServer, model: str, tokenizer: str | None, tokenizers: Tokenizers
) -> TokenEngine | ChatEngine:
    cards = {card.id: card for card in (await server.get(MODELS, ModelList)).data}
    if model not in cards:
        raise EngineMisconfigured(f"{server.url} has no model {model!r}; it has {', '.join(cards)}")
    card = cards[model]
    limit = await reply_limit(server, model)
    images = tokenizer is None and limit is not None and await takes_images(server, model, limit)
    asked = {"model": model, "messages": messages(QUESTION)}
    counted = await _accepted(server, TOKENIZE, asked, TokenizeAnswer)
    context_tokens = card.max_model_len if counted else None
    if tokenizer is None and not images and card.root and await asyncio.to_thread(Path(card.root).is_dir):
        tokenizer = card.root
    if tokenizer is None or counted is None or context_tokens is None:
        if limit is None:
            raise EngineUnavailable("the engine's server answers no chat")
        log.info("the engine's server tokenises prompts: prefixes are shared as far as it repeats itself")
        abilities = replace(await chat_abilities(server, model, context_tokens, limit), images=images)
        log.info("what the engine's server can do", extra={"server": server.url, "abilities": asdict(abilities)})
        return ChatEngine(server, model, abilities)
    chat = await tokenizers.get(tokenizer)
    if counted.tokens != chat.prompt_ids(QUESTION):
        tokenizers.forget(tokenizer)
        raise EngineMisconfigured(f"the tokenizer {tokenizer} is not that of {server.url}")
    found = await _abilities(server, model, chat)
    log.info("what the engine's server can do", extra={"server": server.url, "abilities": asdict(found)})
    return TokenEngine(server, model, chat, context_tokens, found)


def _load(source: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(source)


async def _abilities(server: OpenAIServer, model: str, chat: ChatTokenizer) -> Abilities:
    probe = {"model": model, "prompt": chat.prompt_ids(QUESTION), "max_tokens": 1}
    if await _accepted(server, COMPLETIONS, probe, TextAnswer) is None:
        raise EngineUnavailable("the engine's server takes no prompts as token ids")
    named = chat.option_ids(DIGITS)
    weighing = {"logprobs": 1, "logprob_token_ids": named, "return_tokens_as_token_ids": True}
    weighed = await _accepted(server, COMPLETIONS, {**probe, **weighing}, TextAnswer)
    logprobs = weighed.choices[0].logprobs if weighed and weighed.choices else None
    return Abilities(
        ranks=await _accepted(server, COMPLETIONS, {**probe, "priority": 1}, TextAnswer) is not None,
        weighs_any_token=logprobs is not None and logprobs.first().keys() >= set(named),
    )


async def reply_limit(server: OpenAIServer, model: str) -> str | None:
    """The name under which the server takes the most tokens of a reply; None if it does not answer a plain chat."""
    plain = {"model": model, "messages": messages(QUESTION)}
    for name in LIMITS:
        if await _accepted(server, CHAT, {**plain, name: 1}, ChatAnswer):
            return name
    return None


async def chat_abilities(
    server: OpenAIServer, model: str, context_tokens: int | None, limit: str = LIMITS[0]
) -> ChatAbilities:
    """What a server can do that answers plain chats with that limit."""
    probe = {"model": model, "messages": messages(QUESTION), limit: 1}
    schema = {"response_format": {"type": "json_schema", "json_schema": FORM}}
    weighed = await _accepted(server, CHAT, {**probe, "logprobs": True, "top_logprobs": MOST_LOGPROBS}, ChatAnswer)
    return ChatAbilities(
        schemas=await _accepted(server, CHAT, {**probe, **schema}, ChatAnswer) is not None,
        logprobs=weighed is not None and any(choice.weighed for choice in weighed.choices),
        system=await _accepted(server, CHAT, {**probe, "messages": messages(INSTRUCTED)}, ChatAnswer) is not None,
        ranks=context_tokens is not None
        and await _accepted(server, CHAT, {**probe, "priority": 1}, ChatAnswer) is not None,
        context_tokens=context_tokens,
        limit=limit,
    )


async def takes_images(server: OpenAIServer, model: str, limit: str = LIMITS[0]) -> bool:
    """Whether the server accepts a picture and counts it: some drop what their model cannot see."""
    image = Image("image/png", blank_png(PICTURE_SIDE))
    plain, pictured = (
        {"model": model, "messages": messages(Conversation(Turn("user", "Say yes.", images=images))), limit: 1}
        for images in ((), (image,))
    )
    try:
        seen = await _accepted(server, CHAT, pictured, ChatAnswer)
    except EngineBusy:
        raise
    except EngineUnavailable:
        return False  # there are servers that hang up at what they do not know; one that is gone shows so at once
    if seen is None or seen.usage is None:
        return seen is not None
    without = await server.post(CHAT, plain, ChatAnswer)
    return without.usage is not None and seen.usage.prompt_tokens > without.usage.prompt_tokens


def blank_png(side: int) -> bytes:
    """A grey square of so many pixels a side (Portable Network Graphics, W3C Recommendation, section 5)."""
    rows = (b"\0" + b"\x80" * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    written = (struct.pack(">I", len(data)) + kind + data + _crc(kind + data) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


def _crc(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))


async def _accepted(server: OpenAIServer, path: str, body: Mapping[str, object], answer: type[A]) -> A | None:
    """What the server answers; None if it refuses, has nothing there, or fails at it again and again.

    Some servers fail at what they do not have. One that is broken as a whole does not answer a plain request either.
    """
    for _ in range(PROBES):
        try:
            return await server.post(path, body, answer)
        except (InvalidRequest, NotOffered):
            break
        except ServerFailed:
            continue
    return None
