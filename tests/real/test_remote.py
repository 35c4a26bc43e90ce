"""Remote engines on a real vLLM server, in a process of its own: given token ids, and given messages."""

import asyncio
import math
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from bench.servers import Server, plain_vllm
from service.concurrency import gather
from service.engines import bundled, openai
from service.engines.base import Completion, Sampling
from service.engines.openai_chat import ChatAbilities, ChatEngine
from service.engines.openai_server import OpenAIServer
from service.engines.openai_tokens import Abilities, TokenEngine
from service.errors import EngineUnavailable, InvalidRequest
from tests.engines.contract import GREEDY, QUESTION, EngineContract, LikelihoodContract

MODEL = "model"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server() -> AsyncGenerator[Server, None]:
    checkpoint = await asyncio.to_thread(bundled.prepare)
    async with plain_vllm(checkpoint, {"VLLM_CPU_KVCACHE_SPACE": "1"}, ["--enable-prompt-tokens-details"]) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def token_engine(server: Server) -> AsyncGenerator[TokenEngine, None]:
    engine = await openai.connect(server.url, MODEL, tokenizers=openai.Tokenizers())
    assert isinstance(engine, TokenEngine)
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def chat_engine(server: Server) -> AsyncGenerator[ChatEngine, None]:
    engine = ChatEngine(OpenAIServer(server.url), MODEL, ChatAbilities(True, True, ranks=True, context_tokens=8192))
    yield engine
    await engine.close()


class TestTokenEngine(EngineContract, LikelihoodContract):
    @pytest.fixture
    def engine(self, token_engine: TokenEngine) -> TokenEngine:
        return token_engine


class TestChatEngine(EngineContract):
    @pytest.fixture
    def engine(self, chat_engine: ChatEngine) -> ChatEngine:
        return chat_engine


async def test_what_the_server_can_do_is_found_out(token_engine: TokenEngine) -> None:
    assert token_engine.abilities == Abilities(ranks=True, weighs_any_token=True)


async def test_a_server_without_its_tokenizer_at_hand_is_given_messages(server: Server) -> None:
    remote = OpenAIServer(server.url)
    abilities = await openai.chat_abilities(remote, MODEL, 8192)
    await remote.close()

    assert abilities == ChatAbilities(schemas=True, logprobs=True, ranks=True, context_tokens=8192)


async def test_servers_that_come_up_together_share_one_tokenizer(server: Server) -> None:
    tokenizers = openai.Tokenizers()
    engines = await gather(openai.connect(server.url, MODEL, tokenizers=tokenizers) for _ in range(3))
    assert all(isinstance(engine, TokenEngine) for engine in engines)
    await gather(engine.close() for engine in engines)


async def test_ids_as_sampled_are_sent_again(token_engine: TokenEngine) -> None:
    [reply] = await token_engine.complete(QUESTION, Sampling(temperature=1.0, max_tokens=40, seed=3))
    assert reply.token_ids is not None

    [longer] = await token_engine.complete(QUESTION.with_reply(reply).with_user("And the warmest?"), GREEDY)

    assert longer.usage.prompt_tokens > reply.usage.prompt_tokens + len(reply.token_ids)


async def test_both_weigh_options_alike(token_engine: TokenEngine, chat_engine: ChatEngine) -> None:
    asked = QUESTION.with_user("How hard is that, from 1 to 5? Answer with one digit.")

    by_ids = await token_engine.choose(asked, "12345")
    by_messages = await chat_engine.choose(asked, "12345")

    told = [(a, b) for a, b in zip(by_ids.logprobs, by_messages.logprobs, strict=True) if b > -math.inf]
    assert told
    assert [math.exp(a) for a, _ in told] == pytest.approx([math.exp(b) for _, b in told], abs=0.05)


async def test_a_model_that_the_server_does_not_have_is_refused_at_the_start(server: Server) -> None:
    with pytest.raises(openai.EngineMisconfigured, match="has no model 'another'; it has model"):
        await openai.connect(server.url, "another", tokenizers=openai.Tokenizers())


async def test_a_given_reply_cannot_be_weighed_by_messages(chat_engine: ChatEngine) -> None:
    with pytest.raises(InvalidRequest, match="cannot weigh"):
        await chat_engine.likelihood(QUESTION, "Red.")


async def test_without_log_probabilities_an_option_is_chosen(server: Server) -> None:
    engine = ChatEngine(OpenAIServer(server.url), MODEL, ChatAbilities(schemas=True, logprobs=False))

    choice = await engine.choose(QUESTION.with_user("How hard is that, from 1 to 5?"), "12345")
    await engine.close()

    assert sorted(choice.logprobs) == [-math.inf] * 4 + [0.0]


async def test_a_streamed_reply_ends_at_the_server_when_it_is_closed(token_engine: TokenEngine, server: Server) -> None:
    items = token_engine.stream(QUESTION, Sampling(temperature=1.0, max_tokens=2000))
    assert not isinstance(await anext(items), Completion)
    await items.aclose()

    async with asyncio.timeout(5):
        while (await server.counters())["vllm:num_requests_running"]:
            await asyncio.sleep(0.05)


async def test_a_server_that_has_gone_is_unavailable_and_not_dead() -> None:
    engine = ChatEngine(OpenAIServer("http://127.0.0.1:9"), MODEL, ChatAbilities(schemas=True, logprobs=True))

    for attempt in (engine.check(), engine.complete(QUESTION, GREEDY)):
        with pytest.raises(EngineUnavailable, match="cannot be reached"):
            await attempt
    await engine.close()
