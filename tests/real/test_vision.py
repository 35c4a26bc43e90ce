"""Images all the way to a real vLLM server, which serves a tiny model that sees them."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from bench.harness.servers import Server, plain_vllm
from service.engines.base import Sample
from service.engines.conversation import Conversation, Image, Turn
from service.engines.local import bundled
from service.engines.remote import probes
from service.engines.remote.chat import ChatEngine
from service.engines.remote.connect import Tokenizers, connect
from service.engines.remote.replicas import ReplicatedEngine
from service.engines.remote.tokens import TokenEngine
from service.errors import PromptTooLong
from service.images.headers import read_image
from service.settings import Settings
from tests.images.test_fetch import GIF, JPEG, PNG, WEBP, pictured
from tests.real.vision import COST, make_checkpoint
from tests.support.engine_contract import GREEDY
from tests.support.serving import serving

ARGUMENTS = ["--enable-prompt-tokens-details", "--max-model-len", "2048", "--max-num-batched-tokens", "2048"]
TEXT = "What is to be seen there? Say it in one sentence. " * 8


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Server, None]:
    def made() -> Path:
        return make_checkpoint(bundled.prepare(), tmp_path_factory.mktemp("vision"))

    async with plain_vllm(await asyncio.to_thread(made), {"VLLM_CPU_KVCACHE_SPACE": "1"}, ARGUMENTS) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def engine(server: Server) -> AsyncGenerator[ChatEngine, None]:
    engine = await connect(server.url, "model", tokenizers=Tokenizers())
    assert isinstance(engine, ChatEngine)  # though its tokenizer is at hand
    yield engine
    await engine.close()


def seeing(*images: Image) -> Conversation:
    return Conversation(Turn("user", TEXT, images=images))


async def test_that_the_model_sees_is_found_out(engine: ChatEngine) -> None:
    assert engine.takes_images


async def test_an_operator_who_names_the_tokenizer_is_given_token_ids(server: Server, tmp_path: Path) -> None:
    tokenizer = str(make_checkpoint(await asyncio.to_thread(bundled.prepare), tmp_path))
    engine = await connect(server.url, "model", tokenizers=Tokenizers(), tokenizer=tokenizer)
    await engine.close()

    assert isinstance(engine, TokenEngine)
    assert not engine.takes_images


async def test_an_image_costs_its_tokens_in_the_answer_and_in_the_count(engine: ChatEngine) -> None:
    blind = await engine.call(Sample(seeing(), GREEDY))
    one = await engine.call(Sample(seeing(read_image(PNG)), GREEDY))
    two = await engine.call(Sample(seeing(read_image(PNG), read_image(JPEG)), GREEDY))

    assert one.usage.prompt_tokens == blind.usage.prompt_tokens + COST
    assert two.usage.prompt_tokens == blind.usage.prompt_tokens + 2 * COST
    with pytest.raises(PromptTooLong) as refused:
        await engine.fit(seeing(read_image(PNG)), 2048)
    assert refused.value.prompt_tokens == one.usage.prompt_tokens


async def test_what_is_shown_decides_what_is_said(engine: ChatEngine) -> None:
    said = [(await engine.call(Sample(seeing(*images), GREEDY))).text for images in ((), (openai_grey(),), (red(),))]
    again = await engine.call(Sample(seeing(red()), GREEDY))

    assert len(set(said)) == 3
    assert again.text == said[-1]


async def test_the_same_image_is_read_from_the_cache_and_another_is_not(engine: ChatEngine) -> None:
    def shown(name: str) -> Conversation:
        return Conversation(Turn("user", f"{name} {TEXT}", images=(red(),)))

    first = await engine.call(Sample(shown("Once"), GREEDY))
    longer = await engine.call(Sample(shown("Once").with_user("And its colour?"), GREEDY))
    other = await engine.call(Sample(Conversation(Turn("user", f"Once {TEXT}", images=(openai_grey(),))), GREEDY))

    assert longer.usage.cached_tokens > first.usage.prompt_tokens - 64
    assert other.usage.cached_tokens < COST


@pytest.mark.parametrize("data", [PNG, JPEG, GIF, WEBP])
async def test_each_kind_that_is_taken_is_one_that_the_server_reads(data: bytes, engine: ChatEngine) -> None:
    reply = await engine.call(Sample(seeing(read_image(data)), GREEDY))

    assert reply.text


async def test_a_request_with_an_image_is_generated_and_refined(server: Server) -> None:
    async def start(_: Settings, tokenizers: Tokenizers) -> ReplicatedEngine:
        return await ReplicatedEngine.start(
            "scripted", {"one": lambda: connect(server.url, "model", tokenizers=tokenizers)}
        )

    short = {"sampling": {"max_tokens": 16, "temperature": 0.0}}
    async with serving(start=start) as served:
        while (await served.client.get("/health/ready")).status_code != 200:
            await asyncio.sleep(0.1)
        plain = await served.post("/v1/generate", {"prompt": "What is it?", **short}, timeout=60)
        seen = await served.post("/v1/generate", {**pictured(PNG), **short}, timeout=60)
        refined = await served.post("/v1/refine", {**pictured(PNG), **short, "search": {"rounds": 1}}, timeout=120)

    assert [answer.status_code for answer in (plain, seen, refined)] == [200, 200, 200], refined.text
    cost = seen.json()["usage"]["prompt_tokens"] - plain.json()["usage"]["prompt_tokens"]
    assert cost == COST
    usage = refined.json()["usage"]["by_role"]
    assert all(usage[role]["prompt_tokens"] > COST * usage[role]["calls"] for role in ("draft", "judge", "critique"))


def openai_grey() -> Image:
    return Image("image/png", probes.GREY_PNG)


def red() -> Image:
    return read_image(PNG)
