"""Images all the way to a real vLLM server, which serves a tiny model that sees them. Those of the engine in this
process are in test_pictures.py."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from bench.harness.servers import Server, plain_vllm
from service.engines.local import bundled
from service.engines.remote.chat import ChatEngine
from service.engines.remote.connect import Tokenizers, connect
from service.engines.remote.replicas import ReplicatedEngine
from service.engines.remote.tokens import TokenEngine
from service.settings import Settings
from tests.images.test_fetch import PNG, pictured
from tests.real.conftest import SMALL_CACHE
from tests.real.seeing import SeeingContract
from tests.real.vision import COST, make_checkpoint
from tests.support.serving import serving

pytestmark = pytest.mark.thorough

ARGUMENTS = ["--enable-prompt-tokens-details", "--max-model-len", "2048", "--max-num-batched-tokens", "2048"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Server, None]:
    def made() -> Path:
        return make_checkpoint(bundled.prepare(), tmp_path_factory.mktemp("vision"))

    async with plain_vllm(await asyncio.to_thread(made), SMALL_CACHE, ARGUMENTS) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def engine(server: Server) -> AsyncGenerator[ChatEngine, None]:
    engine = await connect(server.url, "model", tokenizers=Tokenizers())
    assert isinstance(engine, ChatEngine)  # though its tokenizer is at hand
    yield engine
    await engine.close()


class TestRemoteVision(SeeingContract):
    pass


async def test_an_operator_who_names_the_tokenizer_is_given_token_ids(server: Server, tmp_path: Path) -> None:
    tokenizer = str(make_checkpoint(await asyncio.to_thread(bundled.prepare), tmp_path))
    engine = await connect(server.url, "model", tokenizers=Tokenizers(), tokenizer=tokenizer)
    await engine.close()

    assert isinstance(engine, TokenEngine)
    assert not engine.takes_images


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
