"""Remote engines: a server that speaks OpenAI's API, and what it can do, found out whenever it comes up.

A vLLM server whose tokenizer is at hand is given token ids (openai_tokens); any other is given messages (openai_chat).
"""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from service.engines.conversation import Conversation, Turn
from service.engines.openai_chat import MOST_LOGPROBS, ChatAbilities, ChatAnswer, ChatEngine, messages
from service.engines.openai_server import CHAT, MODELS, TOKENIZE, A, Answer, NotOffered, OpenAIServer, TokenizeAnswer
from service.engines.openai_tokens import COMPLETIONS, Abilities, TextAnswer, TokenEngine
from service.engines.tokenization import ChatTokenizer
from service.errors import InvalidRequest

log = logging.getLogger(__name__)

QUESTION = Conversation(Turn("user", "Say yes.")).with_reply("Yes.").with_user("Say no.")
INSTRUCTED = Conversation(Turn("system", "Be brief.")).with_user("Say yes.")
DIGITS = "12345"
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
    default what the server says that it loaded, if that is a folder here. EngineMisconfigured if the server has no such
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
    asked = {"model": model, "messages": messages(QUESTION)}
    counted = await _accepted(server, TOKENIZE, asked, TokenizeAnswer)
    context_tokens = card.max_model_len if counted else None
    if tokenizer is None and card.root and await asyncio.to_thread(Path(card.root).is_dir):
        tokenizer = card.root
    if tokenizer is None or counted is None or context_tokens is None:
        log.info("the engine's server tokenises prompts: prefixes are shared as far as it repeats itself")
        return ChatEngine(server, model, await chat_abilities(server, model, context_tokens))
    chat = await tokenizers.get(tokenizer)
    if counted.tokens != chat.prompt_ids(QUESTION):
        tokenizers.forget(tokenizer)
        raise EngineMisconfigured(f"the tokenizer {tokenizer} is not that of {server.url}")
    return TokenEngine(server, model, chat, context_tokens, await _abilities(server, model, chat))


def _load(source: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(source)


async def _abilities(server: OpenAIServer, model: str, chat: ChatTokenizer) -> Abilities:
    probe = {"model": model, "prompt": chat.prompt_ids(QUESTION), "max_tokens": 1}
    named = chat.option_ids(DIGITS)
    weighing = {"logprobs": 1, "logprob_token_ids": named, "return_tokens_as_token_ids": True}
    weighed = await _accepted(server, COMPLETIONS, {**probe, **weighing}, TextAnswer)
    logprobs = weighed.choices[0].logprobs if weighed and weighed.choices else None
    return Abilities(
        ranks=await _accepted(server, COMPLETIONS, {**probe, "priority": 1}, TextAnswer) is not None,
        weighs_any_token=logprobs is not None and logprobs.first().keys() >= set(named),
    )


async def chat_abilities(server: OpenAIServer, model: str, context_tokens: int | None) -> ChatAbilities:
    probe = {"model": model, "messages": messages(QUESTION), "max_tokens": 1}
    schema = {"response_format": {"type": "json_schema", "json_schema": FORM}}
    weighed = await _accepted(server, CHAT, {**probe, "logprobs": True, "top_logprobs": MOST_LOGPROBS}, ChatAnswer)
    return ChatAbilities(
        schemas=await _accepted(server, CHAT, {**probe, **schema}, ChatAnswer) is not None,
        logprobs=weighed is not None and any(choice.weighed for choice in weighed.choices),
        system=await _accepted(server, CHAT, {**probe, "messages": messages(INSTRUCTED)}, ChatAnswer) is not None,
        ranks=context_tokens is not None
        and await _accepted(server, CHAT, {**probe, "priority": 1}, ChatAnswer) is not None,
        context_tokens=context_tokens,
    )


async def _accepted(server: OpenAIServer, path: str, body: Mapping[str, object], answer: type[A]) -> A | None:
    """What the server answers; None if it refuses, or has nothing there."""
    try:
        return await server.post(path, body, answer)
    except (InvalidRequest, NotOffered):
        return None
