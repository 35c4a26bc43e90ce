"""A real Prometheus reads a real service under traffic: every expression of the dashboard finds something."""

import asyncio
import itertools
import json
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from bench.harness.servers import free_port
from service.concurrency import gather
from tests.deploy.monitoring import CONFIG, METRICS, RULES, expressions, metrics, rules, shown
from tests.support.process import served
from tests.support.receiver import SECRET

pytestmark = [pytest.mark.deploy, pytest.mark.engine, pytest.mark.timeout(500)]

SCRAPE_SECONDS = 1
LONGEST_WAIT_SECONDS = 240
SHORT = {"max_tokens": 24}
PROMPT = {"prompt": "Describe the sea.", "sampling": SHORT}
SETTINGS = {
    "REDRAFT_JUDGE_CHECK": "true",
    "REDRAFT_MAX_PROGRAMS": "2",
    "REDRAFT_MAX_QUEUED": "1",
    "REDRAFT_WEBHOOKS": json.dumps({"nobody": {"url": "http://127.0.0.1:9/", "timeout_seconds": 1}}),
}
NOBODY = "http://127.0.0.1:9/"
BACKGROUND = {"Prefer": f'respond-async, callback; url="{NOBODY}"'}
RULES_OF_REFINE = [{"type": "length", "unit": "words", "max": 5}, {"type": "format", "kind": "quoted"}]
EASY_RULE = {"type": "length", "unit": "words", "max": 100}
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/generate", PROMPT),
    ("/v1/critique", {**PROMPT, "candidate": "Sand.", "evaluators": [{"type": "webhook", "name": "nobody"}]}),
    ("/v1/refine", {**PROMPT, "evaluators": RULES_OF_REFINE, "search": {"rounds": 1}, "store": True}),
    ("/v1/refine", {**PROMPT, "evaluators": [EASY_RULE], "search": {"rounds": 0}}),
    (
        "/v1/chat/completions",
        {"model": "SmolLM2-135M-Instruct", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 24},
    ),
    ("/v1/batch", {"requests": [{"custom_id": "a", "url": "/v1/generate", "body": PROMPT}]}),
]


def configuration(target: str) -> dict[str, Any]:
    """The shipped one, but for how its targets are found and how often they are read."""
    stated: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    stated["global"] = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), f"{SCRAPE_SECONDS}s")
    stated["rule_files"] = [str(RULES)]
    [job] = [job for job in stated["scrape_configs"] if job["job_name"] == "redraft"]
    del job["dns_sd_configs"]
    stated["scrape_configs"] = [{**job, "static_configs": [{"targets": [target]}]}]
    return stated


@asynccontextmanager
async def prometheus(target: str, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    file, address = folder / "prometheus.yml", f"127.0.0.1:{free_port()}"
    file.write_text(yaml.safe_dump(configuration(target)))
    process = await asyncio.create_subprocess_exec(
        *("prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}"),
        f"--web.listen-address={address}",
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}") as client:
            yield client
    finally:
        process.terminate()
        await process.wait()


async def found(client: httpx.AsyncClient, expr: str) -> bool:
    """Whether an expression has a value now. AssertionError if Prometheus refuses it."""
    try:
        answer = (await client.get("/api/v1/query", params={"query": expr})).json()
    except httpx.TransportError:
        return False  # it starts
    assert answer["status"] == "success", answer
    return bool(answer["data"]["result"])


def with_all(folder: Path) -> dict[str, str]:
    """Settings for a store, a receiver that is down, and a model that learns."""
    secret = folder / "secret"
    secret.write_text(SECRET)
    receiver = {"url": NOBODY, "secret_file": str(secret), "private_addresses": True}
    return {
        "REDRAFT_STORE": str(folder / "jobs.db"),
        "REDRAFT_STORED_TRACES": "true",
        "REDRAFT_LEARNING_DIR": str(folder / "learning"),
        "REDRAFT_NOTICE_RECEIVERS": json.dumps({"nobody": receiver}),
    }


async def ask(client: httpx.AsyncClient) -> None:
    """Ask for everything again and again.

    It is more than there is room for. Each turn begins with another request, so that none is refused every time.
    """
    for turn in itertools.count():
        await client.post("/v1/generate", json=PROMPT, headers=BACKGROUND)
        first = turn % len(REQUESTS)
        answers = await gather(client.post(path, json=body) for path, body in (*REQUESTS[first:], *REQUESTS[:first]))
        for answer in answers:
            if answer.is_success and answer.request.url.path == "/v1/refine":
                thumb = {"program": answer.json()["id"], "kind": "thumb", "value": "up"}
                await client.post("/v1/feedback", json=thumb)


async def test_every_expression_finds_something_on_a_service_at_work(tmp_path: Path) -> None:
    settings = {**SETTINGS, **with_all(tmp_path)}
    async with served(**settings) as (_, service), prometheus(service.base_url.netloc.decode(), tmp_path) as client:
        asking = asyncio.create_task(ask(service))
        missing = {one.filled(): one.panel for one in shown()}
        missing |= {rule["record"]: "a recorded series" for rule in rules() if "record" in rule}
        try:
            async with asyncio.timeout(LONGEST_WAIT_SECONDS):
                while missing and not asking.done():
                    answers = await gather(found(client, expr) for expr in missing)
                    missing = {
                        e: panel for (e, panel), known in zip(missing.items(), answers, strict=True) if not known
                    }
                    await asyncio.sleep(2 * SCRAPE_SECONDS)
        except TimeoutError:
            pass  # what is missing is told below
        page = (await service.get("/metrics")).text
        asking.cancel()
        await asyncio.wait([asking])
        assert missing == {}
        assert await found(client, 'up{job="redraft"} == 1')
        assert not await found(client, 'ALERTS{alertname=~"Redraft(Down|EngineDead|EngineUnavailable)"}')

    exposed = {sample.name for family in text_string_to_metric_families(page) for sample in family.samples}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    named = set().union(*map(metrics, expressions()), metrics(METRICS.read_text()))
    families = {name.removesuffix(suffix) for name in exposed for suffix in ("", "_bucket", "_sum", "_count")}
    assert {name for name in named if not name.endswith("_")} - families - recorded == set()
