"""Remote engines: a server that speaks OpenAI's API, and what it can do, found out whenever it comes up.

A vLLM server whose tokenizer is available here gets token ids (tokens.py); any other server gets messages (chat.py). So
does a server whose model takes images, unless the operator names the tokenizer: images cannot be sent as token ids.
"""

import asyncio
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from service.engines.remote.bodies import TooMuch
from service.engines.remote.chat import ChatEngine
from service.engines.remote.probes import (
    QUESTION,
    count_tokens,
    find_chat_capabilities,
    find_direct,
    find_habit,
    find_max_tokens_param,
    find_model,
    find_token_capabilities,
    takes_images,
)
from service.engines.remote.server import OpenAIServer
from service.engines.remote.tokens import TokenEngine
from service.engines.served import EngineMisconfigured, EngineUnusable
from service.engines.thoughts import Thinking
from service.engines.tokenization import ChatTokenizer

log = logging.getLogger(__name__)


class Tokenizers:
    """Loads tokenizers, each once for all servers.

    ``importing``: hold it to load something with transformers, which two threads cannot import at once.
    """

    def __init__(self) -> None:
        self._loads: dict[str, asyncio.Future[Any]] = {}
        self.importing = asyncio.Lock()

    async def get(self, source: str, thinking: Thinking) -> ChatTokenizer:
        """The tokenizer of a folder or hub name. Cancelling does not stop the load: a thread cannot be stopped."""
        if source not in self._loads:
            self._loads[source] = asyncio.ensure_future(self._load(source))
        return ChatTokenizer(await asyncio.shield(self._loads[source]), thinking)

    def forget(self, source: str) -> None:
        """Load it again the next time."""
        self._loads.pop(source, None)

    async def _load(self, source: str) -> Any:
        try:
            async with self.importing:
                return await asyncio.to_thread(_load, source)
        except BaseException:
            self.forget(source)
            raise


async def connect(
    url: str,
    model: str,
    *,
    tokenizers: Tokenizers,
    key: str | None = None,
    tokenizer: str | None = None,
    thinking: Thinking | None = None,
) -> TokenEngine | ChatEngine:
    """Find out what the server can do; EngineUnavailable if it does not answer, EngineUnusable if it cannot serve.

    ``model``: the name by which the server knows the model. ``tokenizer``: a folder or hub name of its tokenizer; by
    default what the server says that it loaded, if that is a folder here and the model takes no images. ``thinking``:
    what the operator says of its thoughts.
    EngineMisconfigured if the tokenizer is another than the server's, or the environment's proxy cannot be used.
    """
    server = OpenAIServer(url, key)
    try:
        return await _engine(server, model, tokenizer, tokenizers, thinking or Thinking())
    except TooMuch as error:
        await server.close()
        raise EngineUnusable(error.detail) from error
    except BaseException:
        await server.close()
        raise


async def _engine(
    server: OpenAIServer, model: str, tokenizer: str | None, tokenizers: Tokenizers, thinking: Thinking
) -> TokenEngine | ChatEngine:
    card = await find_model(server, model)
    max_tokens_param = await find_max_tokens_param(server, model, listed=card is not None)
    images = tokenizer is None and await takes_images(server, model, max_tokens_param)
    counted = await count_tokens(server, model, thinking)
    context_tokens = card.max_model_len if card and counted else None
    if tokenizer is None and not images and card and card.root and await asyncio.to_thread(Path(card.root).is_dir):
        tokenizer = card.root
    if tokenizer is not None and counted is not None and context_tokens is not None:
        chat = await tokenizers.get(tokenizer, thinking)
        if counted.tokens != chat.prompt_ids(QUESTION):
            tokenizers.forget(tokenizer)
            raise EngineMisconfigured(f"the tokenizer {tokenizer} is not that of {server.url}")
        if found := await find_token_capabilities(server, model, chat):
            log.info("what the engine's server can do", extra={"server": server.url, "capabilities": asdict(found)})
            return TokenEngine(server, model, chat, context_tokens, found, thinking.variables)
    log.info("the engine's server tokenises prompts: prefixes are shared only where its token ids repeat")
    capabilities = await find_chat_capabilities(server, model, context_tokens, max_tokens_param)
    capabilities = replace(capabilities, images=images, lists_models=card is not None)
    habit = await find_habit(server, model, max_tokens_param, counted, thinking)
    if habit.thinks:
        capabilities = replace(capabilities, direct=await find_direct(server, model, max_tokens_param))
    log.info(
        "what the engine's server can do",
        extra={"server": server.url, "capabilities": asdict(capabilities), "thinking": habit.opening},
    )
    return ChatEngine(server, model, capabilities, habit, thinking.variables)


def _load(source: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(source)
