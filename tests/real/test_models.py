"""Further models for real: an adapter in the service's own engine, and a vLLM server beside it."""

import asyncio
import json
import statistics
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import torch
from safetensors.torch import save_file

from bench.harness.servers import Server
from service.engines.local import bundled
from tests.real.conftest import SMALL_CACHE
from tests.support.process import served

GREEDY = {"temperature": 0.0, "max_tokens": 24}
REQUEST = {"prompt": "Describe a sunrise over the sea.", "sampling": GREEDY}
RANK = 4


def write_adapter(folder: Path, checkpoint: Path, seed: int = 1, width: int | None = None) -> Path:
    """A LoRA adapter of random weights, strong enough that the model says something else. ``width``: the model's, for
    which it is made; by default the right one."""
    config = json.loads((checkpoint / "config.json").read_text())
    width = width or config["hidden_size"]
    draws = torch.Generator().manual_seed(seed)
    weights = {}
    for layer in range(config["num_hidden_layers"]):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{name}.lora_A.weight"] = torch.randn(RANK, width, generator=draws) / width**0.5
        weights[f"{name}.lora_B.weight"] = torch.randn(width, RANK, generator=draws)
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors")
    stated = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(stated))
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(server: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[httpx.AsyncClient, None]:
    checkpoint = await asyncio.to_thread(bundled.prepare)
    adapter = write_adapter(tmp_path_factory.mktemp("adapters") / "tilted", checkpoint)
    models = {"tilted": {"adapter": str(adapter)}, "beside": {"urls": [server.url], "model": "model"}}
    settings = {"REDRAFT_MODELS": json.dumps(models), "REDRAFT_JUDGE": "tilted", **SMALL_CACHE}
    async with served(**settings) as (_, running):
        async with asyncio.timeout(60):
            for model in models:
                while (await running.post("/v1/generate", json={**REQUEST, "model": model})).status_code == 503:
                    await asyncio.sleep(0.1)
        yield running


async def asked(client: httpx.AsyncClient, path: str, **fields: Any) -> dict[str, Any]:
    response = await client.post(path, json={**REQUEST, **fields})
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def mass_of(evaluation: Mapping[str, Any]) -> float:
    """The probability that fell on Yes and No, over all criteria."""
    return statistics.fmean(line["mass"] for line in evaluation["criteria"])


async def test_an_adapter_is_a_model_of_its_own_and_leaves_the_main_one_as_it_is(client: httpx.AsyncClient) -> None:
    texts = [
        (await asked(client, "/v1/generate", model=model))["choices"][0]["text"]
        for model in (bundled.NAME, "tilted", bundled.NAME, "beside")
    ]
    plain, tilted, again, beside = texts
    assert plain == again == beside
    assert tilted != plain


async def test_an_adapter_judges_what_the_main_model_writes(client: httpx.AsyncClient) -> None:
    body = await asked(client, "/v1/refine", search={"rounds": 1, "critic": "model"})

    assert body["models"] == {"writer": bundled.NAME, "critic": bundled.NAME, "judge": "tilted"}
    candidate = body["rounds"][0]["candidates"][0]["text"]
    [tilted] = body["rounds"][0]["candidates"][0]["evaluations"]
    reviews = {
        judge: await asked(client, "/v1/critique", candidate=candidate, feedback=False, models={"judge": judge})
        for judge in (bundled.NAME, "tilted")
    }
    masses = {judge: mass_of(body["evaluations"][0]) for judge, body in reviews.items()}
    # Fences are drawn anew for each request, so the same question has not quite the same answer.
    assert abs(mass_of(tilted) - masses["tilted"]) < abs(mass_of(tilted) - masses[bundled.NAME]) / 2
    page = (await client.get("/metrics")).text
    assert 'redraft_step_seconds_count{model="tilted",role="judge"}' in page


async def test_a_server_beside_judges_and_criticises_what_the_main_model_writes(client: httpx.AsyncClient) -> None:
    models = {"critic": "beside", "judge": "beside"}
    body = await asked(client, "/v1/refine", search={"rounds": 1, "critic": "model"}, models=models)

    assert body["models"] == {"writer": bundled.NAME, **models}
    assert body["stop_reason"] in ("rounds", "no_issues", "fixpoint")
    [judged] = body["rounds"][0]["candidates"][0]["evaluations"]
    assert judged["error"] is None
    own = await asked(client, "/v1/refine", search={"rounds": 1, "critic": "model"}, models={"judge": bundled.NAME})
    [expected] = own["rounds"][0]["candidates"][0]["evaluations"]
    # Not their scores: the masses are near the least at which there is one, and each fence moves them. Where a judge
    # has no score, it has not weighed the text either. Then the critic does, with one call more.
    assert mass_of(judged) == pytest.approx(mass_of(expected), abs=0.1)
    assert all(answer["usage"]["by_role"]["critique"]["calls"] > 0 for answer in (body, own))
