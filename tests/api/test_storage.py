"""What a key may keep in the store, over HTTP: jobs, files and stored traces count together."""

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.engines.base import Sample
from service.engines.scripted import Script
from service.programs import storage
from tests.api.test_jobs import PREFER, ended
from tests.support.serving import Served, serving

LIMIT = 20_000
ANN, BOB = ({"Authorization": f"Bearer {name}"} for name in ("ann", "bob"))
KEYS = ",".join(f"{name}:{hashlib.sha256(name.encode()).hexdigest()}" for name in ("ann", "bob"))
PROMPT = {"prompt": "Write."}
LONG = {"prompt": "Write much."}
FORM = {"purpose": "batch"}
FULL = (413, "storage_full")


def reply(call: Sample) -> str:
    return "Waves." * LIMIT if "much" in call.conversation.turn.text else "Waves."


@asynccontextmanager
async def keeping(folder: Path, limit: int = LIMIT, **settings: Any) -> AsyncIterator[Served]:
    stated = {"store": str(folder / "store.db"), "stored_traces": True, "max_stored_bytes_per_key": limit, **settings}
    async with serving(Script(reply=reply), api_keys=KEYS, **stated) as served:
        yield served


async def upload(served: Served, size: int, key: Mapping[str, str] = ANN) -> httpx.Response:
    files: dict[str, Any] = {"file": ("a.jsonl", b"a" * size)}
    return await served.client.post("/v1/files", files=files, data=FORM, headers=key)


def code(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    return response.status_code, body.get("code") or body["error"]["code"]


@pytest.fixture(autouse=True)
def _sum_up_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(storage, "REFUSING_SECONDS", 0.0)


async def fill(served: Served) -> str:
    """A job of ann's whose result takes more than she may keep. It was accepted, so it ends."""
    job: str = (await served.post("/v1/generate", LONG, headers={**ANN, **PREFER})).headers["location"]
    served.client.headers.update(ANN)
    assert (await ended(served, job))["state"] == "completed"
    return job


async def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    async with keeping(tmp_path) as served:
        file = (await upload(served, LIMIT - 2_000)).json()["id"]
        batch = {"input_file_id": file, "endpoint": "/v1/generate", "completion_window": "24h"}
        background = {"model": "scripted", "input": "x" * 3_000, "background": True}
        refused = [
            await upload(served, 3_000),
            await served.post("/v1/batches", batch, headers=ANN),
            await served.post("/v1/generate", {"prompt": "x" * 3_000}, headers={**ANN, **PREFER}),
            await served.post("/v1/responses", background, headers=ANN),
        ]
        fits = await upload(served, 1_000)

    assert [code(response) for response in refused] == [FULL] * 4
    assert fits.status_code == 200
    assert served.engine.calls == []


async def test_a_caller_at_its_limit_is_refused_before_any_work_and_others_go_on(tmp_path: Path) -> None:
    stored = {**PROMPT, "store": True}
    background = {"model": "scripted", "input": "Write.", "background": True}
    async with keeping(tmp_path) as served:
        await fill(served)
        calls = len(served.engine.calls)
        refused = [
            await upload(served, 1),
            await served.post("/v1/generate", stored, headers=ANN),
            await served.post("/v1/generate", PROMPT, headers={**ANN, **PREFER}),
            await served.post("/v1/responses", background, headers=ANN),
        ]
        assert len(served.engine.calls) == calls
        others = [
            await upload(served, 3_000, BOB),
            await served.post("/v1/generate", stored, headers=BOB),
            await served.post("/v1/generate", PROMPT, headers={**BOB, **PREFER}),
            await served.post("/v1/generate", PROMPT, headers=ANN),  # keeps nothing
        ]
        metrics = (await served.client.get("/metrics")).text

    assert [code(response) for response in refused] == [FULL] * 4
    assert [response.status_code for response in others] == [200, 200, 202, 200]
    assert "redraft_storage_refusals_total 4.0" in metrics
    assert 'redraft_stored_bytes{room="files"}' in metrics


async def test_room_comes_back_with_what_is_deleted(tmp_path: Path) -> None:
    async with keeping(tmp_path) as served:
        file = (await upload(served, LIMIT - 3_000)).json()["id"]
        assert code(await upload(served, 4_000)) == FULL
        await served.client.delete(f"/v1/files/{file}", headers=ANN)
        assert (await upload(served, 4_000)).status_code == 200

        stored = {"prompt": "x" * 3_000, "store": True}
        trace = (await served.post("/v1/generate", stored, headers=ANN)).json()["id"]
        assert (await served.client.get(f"/v1/traces/{trace}", headers=ANN)).status_code == 200
        assert code(await upload(served, 10_000)) == FULL
        await served.client.delete("/v1/traces", headers=ANN)
        assert (await upload(served, 10_000)).status_code == 200


async def test_feedback_counts_too(tmp_path: Path) -> None:
    async with keeping(tmp_path) as served:
        trace = (await served.post("/v1/generate", {**PROMPT, "store": True}, headers=ANN)).json()["id"]
        edit = {"program": trace, "kind": "edit", "value": "x" * 10_000}
        first = await served.post("/v1/feedback", edit, headers=ANN)
        again = await served.post("/v1/feedback", {**edit, "candidate": "0.0", "value": "x" * 10_000}, headers=ANN)

    assert first.status_code == 201
    assert code(again) == FULL


async def test_a_trace_that_finds_no_room_in_the_end_is_counted_and_costs_nothing_else(tmp_path: Path) -> None:
    async with keeping(tmp_path, limit=300) as served:
        answer = await served.post("/v1/generate", {**PROMPT, "store": True}, headers=ANN)
        listed = (await served.client.get("/v1/traces", headers=ANN)).json()
        metrics = (await served.client.get("/metrics")).text

    assert answer.status_code == 200
    assert listed["traces"] == []
    assert 'redraft_stored_traces_total{outcome="refused"} 1.0' in metrics
    assert 'redraft_stored_traces_total{outcome="failed"} 0.0' in metrics
