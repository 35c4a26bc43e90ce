"""Remote engines on a real vLLM server, in a process of its own: given token ids, and given messages."""

import asyncio
import json
import math
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from bench.harness.servers import Server, plain_vllm
from service.concurrency import gather
from service.engines.base import Choose, Completion, Sample, Sampling, Weigh
from service.engines.local import bundled
from service.engines.remote import probes
from service.engines.remote.chat import ChatCapabilities, ChatEngine
from service.engines.remote.connect import Tokenizers, connect
from service.engines.remote.server import OpenAIServer
from service.engines.remote.tokens import TokenCapabilities, TokenEngine
from service.engines.served import EngineUnusable, ServedEngine
from service.errors import EngineUnavailable, InvalidRequest
from service.settings import Settings
from tests.real.conftest import SMALL_CACHE
from tests.support.engine_contract import GREEDY, QUESTION, EngineContract, LikelihoodContract
from tests.support.serving import serving

MODEL = "model"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def token_engine(server: Server) -> AsyncGenerator[TokenEngine, None]:
    engine = await connect(server.url, MODEL, tokenizers=Tokenizers())
    assert isinstance(engine, TokenEngine)
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def chat_engine(server: Server) -> AsyncGenerator[ChatEngine, None]:
    capabilities = ChatCapabilities(True, True, supports_priority=True, context_tokens=8192, grammars=True)
    engine = ChatEngine(OpenAIServer(server.url), MODEL, capabilities)
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
    assert token_engine.capabilities == TokenCapabilities(
        supports_priority=True, logprobs_for_any_token=True, grammars=True
    )


async def test_a_server_without_its_tokenizer_at_hand_is_given_messages(server: Server) -> None:
    remote = OpenAIServer(server.url)
    capabilities = await probes.find_chat_capabilities(remote, MODEL, 8192)
    await remote.close()

    assert capabilities == ChatCapabilities(
        schemas=True, logprobs=True, supports_priority=True, context_tokens=8192, grammars=True
    )


async def test_servers_that_come_up_together_share_one_tokenizer(server: Server) -> None:
    tokenizers = Tokenizers()
    engines = await gather(connect(server.url, MODEL, tokenizers=tokenizers) for _ in range(3))
    assert all(isinstance(engine, TokenEngine) for engine in engines)
    await gather(engine.close() for engine in engines)


async def test_ids_as_sampled_are_sent_again(token_engine: TokenEngine) -> None:
    reply = await token_engine.call(Sample(QUESTION, Sampling(temperature=1.0, max_tokens=40, seed=3)))
    assert reply.token_ids is not None

    longer = await token_engine.call(Sample(QUESTION.with_reply(reply).with_user("And the warmest?"), GREEDY))

    assert longer.usage.prompt_tokens > reply.usage.prompt_tokens + len(reply.token_ids)


async def test_both_weigh_options_alike(token_engine: TokenEngine, chat_engine: ChatEngine) -> None:
    asked = QUESTION.with_user("How hard is that, from 1 to 5? Answer with one digit.")

    by_ids = await token_engine.call(Choose(asked, tuple("12345")))
    by_messages = await chat_engine.call(Choose(asked, tuple("12345")))

    told = [(a, b) for a, b in zip(by_ids.logprobs, by_messages.logprobs, strict=True) if b > -math.inf]
    assert told
    assert [math.exp(a) for a, _ in told] == pytest.approx([math.exp(b) for _, b in told], abs=0.05)


async def test_a_model_that_the_server_does_not_have_is_refused_at_the_start(server: Server) -> None:
    with pytest.raises(EngineUnusable, match="has no model 'another'; it has model"):
        await connect(server.url, "another", tokenizers=Tokenizers())


async def test_a_given_reply_cannot_be_weighed_by_messages(chat_engine: ChatEngine) -> None:
    with pytest.raises(InvalidRequest, match="cannot weigh"):
        await chat_engine.call(Weigh(QUESTION, "Red."))


async def test_without_log_probabilities_an_option_is_chosen(server: Server) -> None:
    engine = ChatEngine(OpenAIServer(server.url), MODEL, ChatCapabilities(schemas=True, logprobs=False))

    choice = await engine.call(Choose(QUESTION.with_user("How hard is that, from 1 to 5?"), tuple("12345")))
    await engine.close()

    assert sorted(choice.logprobs) == [-math.inf] * 4 + [0.0]


async def test_a_streamed_reply_ends_at_the_server_when_it_is_closed(token_engine: TokenEngine, server: Server) -> None:
    items = token_engine.stream(Sample(QUESTION, Sampling(temperature=1.0, max_tokens=2000)))
    assert not isinstance(await anext(items), Completion)
    await items.aclose()

    async with asyncio.timeout(30):
        while (await server.counters())["vllm:num_requests_running"]:
            await asyncio.sleep(0.05)


@pytest_asyncio.fixture(loop_scope="session")
async def tool_server() -> AsyncGenerator[Server, None]:
    """vLLM 0.32 refuses named tools where its structured outputs use guidance, so this server uses xgrammar."""
    parser = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    xgrammar = ("--structured-outputs-config", '{"backend": "xgrammar"}')
    checkpoint = await asyncio.to_thread(bundled.prepare)
    async with plain_vllm(checkpoint, SMALL_CACHE, [*parser, *xgrammar]) as running:
        yield running


@pytest.mark.thorough
async def test_a_named_tool_is_called_through_the_service(tool_server: Server) -> None:
    parameters = {"type": "object", "properties": {"warm": {"type": "boolean"}}, "required": ["warm"]}
    asked = {
        "model": "scripted",  # the front's name for it
        "messages": [{"role": "user", "content": "Is it warm?"}],
        "tools": [{"type": "function", "function": {"name": "say", "parameters": parameters}}],
        "tool_choice": {"type": "function", "function": {"name": "say"}},
        "temperature": 0,
        "max_tokens": 300,
        "stream_options": {"include_usage": True},
    }

    async def start(_: Settings, tokenizers: Tokenizers) -> ServedEngine:
        return await connect(tool_server.url, MODEL, tokenizers=tokenizers)

    async with serving(start=start) as front:
        async with asyncio.timeout(60):
            while (await front.client.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.05)
        whole = (await front.post("/v1/chat/completions", asked, timeout=60)).json()
        streamed = await front.post("/v1/chat/completions", {**asked, "stream": True}, timeout=60)
        too_long = {**asked, "messages": [{"role": "user", "content": "word " * 20_000}]}
        refused = (await front.post("/v1/chat/completions", too_long, timeout=60)).json()

    [call] = whole["choices"][0]["message"]["tool_calls"]
    chunks = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
    deltas = [delta for c in chunks for o in c["choices"] for delta in o["delta"].get("tool_calls", [])]
    assert call["function"]["name"] == deltas[0]["function"]["name"] == "say"
    arguments = "".join(delta["function"]["arguments"] for delta in deltas)
    assert arguments == call["function"]["arguments"] != ""  # whether they fit the schema is the server's matter
    assert chunks[-1]["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"] > 10
    assert refused["error"]["code"] == "context_length_exceeded"


async def test_a_server_that_has_gone_is_unavailable_and_not_dead() -> None:
    engine = ChatEngine(OpenAIServer("http://127.0.0.1:9"), MODEL, ChatCapabilities(schemas=True, logprobs=True))

    for attempt in (engine.check(), engine.call(Sample(QUESTION, GREEDY))):
        with pytest.raises(EngineUnavailable, match="cannot be reached"):
            await attempt
    await engine.close()
