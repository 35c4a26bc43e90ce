"""The metrics of the whole service move as its requests go."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.engines.base import Choose, Sample
from service.engines.remote.connect import Tokenizers
from service.engines.scripted import Script
from service.engines.served import ServedEngine
from service.errors import EngineUnavailable
from service.fleet import start_remote
from service.models import Servers
from tests.support.scripts import stall
from tests.support.serving import Served, reply, serving

PROMPT = {"prompt": "Write about the sea."}
SALT = {"evaluators": [{"type": "keywords", "include": ["salt"]}]}
SERIES = {
    "redraft_state": "gauge",
    "redraft_requests": "counter",
    "redraft_request_seconds": "histogram",
    "redraft_first_event_seconds": "histogram",
    "redraft_requests_in_progress": "gauge",
    "redraft_requests_queued": "gauge",
    "redraft_requests_shed": "counter",
    "redraft_batch_lines": "counter",
    "redraft_batch_lines_waiting": "gauge",
    "redraft_requests_repeated": "counter",
    "redraft_kept_answers_bytes": "gauge",
    "redraft_refine_rounds": "histogram",
    "redraft_refine_stops": "counter",
    "redraft_refine_score": "histogram",
    "redraft_refine_score_gain": "histogram",
    "redraft_first_drafts": "counter",
    "redraft_verified_texts": "counter",
    "redraft_verified_tokens": "counter",
    "redraft_learned_model": "gauge",
    "redraft_canary_trials": "gauge",
    "redraft_canary_verdicts": "counter",
    "redraft_rounds_without_gain": "counter",
    "redraft_step_seconds": "histogram",
    "redraft_tokens": "counter",
    "redraft_evaluator_seconds": "histogram",
    "redraft_evaluator_errors": "counter",
    "redraft_constraint_failures": "counter",
    "redraft_repairs": "counter",
    "redraft_aborts": "counter",
    "redraft_judge_trust": "gauge",
    "redraft_judge_share": "gauge",
    "redraft_jobs": "gauge",
    "redraft_oldest_queued_job_seconds": "gauge",
    "redraft_jobs_ended": "counter",
    "redraft_job_attempts": "counter",
    "redraft_job_steps": "counter",
    "redraft_stored_traces": "counter",
    "redraft_stored_bytes": "gauge",
    "redraft_storage_refusals": "counter",
    "redraft_feedback": "counter",
    "redraft_deliveries": "counter",
    "redraft_deliveries_pending": "gauge",
    "redraft_deliveries_overdue": "gauge",
}

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


async def samples(served: Served) -> Samples:
    page = (await served.client.get("/metrics")).text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if family.name.startswith("redraft_")
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found.get((f"redraft_{name}", frozenset(labels.items())), 0.0)


async def test_every_series_of_the_contract_is_on_the_page() -> None:
    async with serving() as served:
        response = await served.client.get("/metrics")

    families = {family.name: family.type for family in text_string_to_metric_families(response.text)}
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert {name: families.get(name) for name in SERIES} == SERIES
    assert {name for name in families if name.startswith("redraft_") and not name.endswith("_created")} <= set(SERIES)


async def test_a_generate_counts_as_one_request_and_its_tokens_as_drafts() -> None:
    async with serving() as served:
        usage = (await served.post("/v1/generate", {**PROMPT, "n": 3})).json()["usage"]
        found = await samples(served)

    assert value(found, "requests_total", endpoint="/v1/generate", status="200") == 1
    assert value(found, "request_seconds_count", endpoint="/v1/generate") == 1
    assert value(found, "first_event_seconds_count", endpoint="/v1/generate") == 1
    assert value(found, "step_seconds_count", role="draft", model="scripted") == 3
    assert value(found, "tokens_total", role="draft", model="scripted", kind="prompt") == usage["prompt_tokens"] > 0
    assert value(found, "tokens_total", role="draft", model="scripted", kind="cached") == usage["cached_tokens"]
    assert (
        value(found, "tokens_total", role="draft", model="scripted", kind="completion")
        == usage["completion_tokens"]
        == 3
    )
    assert value(found, "requests_in_progress") == value(found, "requests_queued") == 0


async def test_a_complete_text_that_is_judged_lower_than_a_cut_one_is_no_gain() -> None:
    def line(call: Sample) -> str:
        return "Waves rise and rise." if call.conversation.before is None else "Waves."

    def weights(call: Choose) -> Sequence[float]:
        return (0.9, 0.1) if "rise" in call.prompt else (0.1, 0.9)

    asked = {**PROMPT, "sampling": {"max_tokens": 3, "landing": False}, "search": {"critic": "evaluators"}}
    async with serving(Script(reply=line, weights=weights)) as served:
        body = (await served.post("/v1/refine", asked)).json()
        found = await samples(served)

    assert (body["text"], body["improved"]) == ("Waves.", True)
    assert body["score"] < body["rounds"][0]["candidates"][0]["score"]
    assert value(found, "refine_score_gain_count", task="general") == 1
    assert value(found, "refine_score_gain_sum", task="general") == 0


async def test_a_critique_moves_judges_critics_and_evaluators() -> None:
    async with serving() as served:
        await served.post("/v1/critique", {**PROMPT, **SALT, "candidate": "Sand."})
        found = await samples(served)

    assert value(found, "requests_total", endpoint="/v1/critique", status="200") == 1
    assert value(found, "step_seconds_count", role="judge", model="scripted") == 4
    assert value(found, "step_seconds_count", role="critique", model="scripted") == 5
    assert value(found, "evaluator_seconds_count", evaluator="keywords") == 1
    assert value(found, "evaluator_seconds_count", evaluator="judge") == 1
    assert value(found, "evaluator_errors_total", evaluator="judge") == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refine_moves_rounds_stops_scores_and_every_role(stream: bool) -> None:
    asked: dict[str, Any] = {**PROMPT, **SALT}
    async with serving() as served:
        if stream:
            _, body = (await served.stream("/v1/refine", asked))[-1]
        else:
            body = (await served.post("/v1/refine", asked)).json()
        found = await samples(served)

    assert value(found, "requests_total", endpoint="/v1/refine", status="200") == 1
    assert value(found, "first_event_seconds_count", endpoint="/v1/refine") == 1
    assert value(found, "refine_rounds_count", task="general") == 1
    assert value(found, "refine_rounds_sum", task="general") == len(body["rounds"]) - 1 >= 1
    assert value(found, "refine_stops_total", task="general", reason=body["stop_reason"]) == 1
    assert value(found, "refine_score_sum", stage="draft") == body["rounds"][0]["candidates"][0]["score"]
    assert value(found, "refine_score_sum", stage="final") == body["score"]
    assert body["score"] - body["rounds"][0]["candidates"][0]["score"] == pytest.approx(0.7)
    assert value(found, "refine_score_gain_bucket", task="general", le="0.5") == 0
    assert value(found, "refine_score_gain_bucket", task="general", le="0.75") == 1
    without = sum(not ended["accepted"] for ended in body["rounds"])
    assert value(found, "rounds_without_gain_total", task="general") == without >= 1
    for role, usage in body["usage"]["by_role"].items():
        for kind in ("prompt", "cached", "completion"):
            assert value(found, "tokens_total", role=role, model="scripted", kind=kind) == usage[f"{kind}_tokens"]


async def test_every_sample_that_the_documented_queries_read_is_on_the_page() -> None:
    document = (Path(__file__).parents[2] / "docs/reference/metrics.md").read_text()
    queries = "\n".join(re.findall(r"^```promql\n(.*?)^```$", document, re.MULTILINE | re.DOTALL))
    read = set(re.findall(r"redraft_\w+", queries))
    async with serving() as served:
        await served.post("/v1/refine", {**PROMPT, **SALT})
        page = (await served.client.get("/metrics")).text

    assert read
    assert {name for name in read if not re.search(rf"^{name}[ {{]", page, re.MULTILINE)} == set()


async def test_refusals_count_by_status_and_by_reason() -> None:
    async with serving(max_programs=1, max_queued=0) as served:
        await served.post("/v1/refine", {**PROMPT, "surprise": 1})
        await served.client.get("/somewhere")
        reached = asyncio.Event()
        stall(served.engine, lambda call: True, reached.set)
        leaving = asyncio.create_task(served.post("/v1/generate", PROMPT))
        await reached.wait()
        await served.post("/v1/refine", PROMPT)
        busy = await samples(served)
        leaving.cancel()
        await served.at_rest()
        served.app.state.admission.drain()
        await served.post("/v1/generate", PROMPT)
        found = await samples(served)

    assert value(busy, "requests_in_progress") == 1
    assert value(found, "requests_in_progress") == 0
    assert value(found, "requests_total", endpoint="/v1/refine", status="422") == 1
    assert value(found, "requests_total", endpoint="/v1/refine", status="503") == 1
    assert value(found, "requests_total", endpoint="unmatched", status="404") == 1
    assert value(found, "requests_total", endpoint="/v1/generate", status="499") == 1
    assert value(found, "requests_shed_total", reason="overloaded") == 1
    assert value(found, "requests_shed_total", reason="draining") == 1


async def test_the_state_is_what_the_readiness_route_says() -> None:
    failure: asyncio.Future[ServedEngine] = asyncio.get_running_loop().create_future()
    async with serving(start=lambda *_: failure) as served:
        starting = await state(served)
        failure.set_exception(EngineUnavailable("no server answers"))
        await served.until(lambda: bool(served.failures))
        failed = await state(served)
    async with serving() as served:
        ready = await state(served)
        served.engine.kill()
        dead = await state(served)
        served.app.state.admission.drain()
        draining = await state(served)

    assert [starting, failed, ready] == ["starting", "engine_dead", "ready"]
    assert [dead, draining] == ["engine_dead", "draining"]


async def test_the_state_tells_that_no_server_of_a_remote_engine_answers() -> None:
    async def start(*_: object) -> ServedEngine:
        return await start_remote("someone's", Servers(("http://127.0.0.1:9",), "model"), Tokenizers())

    async with serving(start=start) as served:
        while (unavailable := await state(served)) == "starting":
            await asyncio.sleep(0)
    assert unavailable == "engine_unavailable"


async def state(served: Served) -> str:
    """The one state that is 1, which is the code of the readiness route's refusal."""
    found = await samples(served)
    [state] = [dict(labels)["state"] for (name, labels), value in found.items() if name == "redraft_state" and value]
    ready = await served.client.get("/health/ready")
    assert ready.json().get("code", "ready") == state
    return state


async def test_a_request_that_waits_is_counted_as_queued() -> None:
    async with serving(Script(reply=reply), max_programs=1) as served:
        stall(served.engine, lambda call: True)
        tasks = [asyncio.create_task(served.post("/v1/generate", PROMPT)) for _ in range(3)]
        await served.until(lambda: served.app.state.admission.queued == 2)
        found = await samples(served)
        for task in tasks:
            task.cancel()
        await served.at_rest()

    assert (value(found, "requests_in_progress"), value(found, "requests_queued")) == (1, 2)


async def test_verified_texts_are_counted_for_their_writer_with_what_they_cost() -> None:
    async with serving() as served:
        verified = (await served.post("/v1/refine", {**PROMPT, **SALT, "search": {"rounds": 1}})).json()
        await served.post("/v1/refine", {**PROMPT, "search": {"rounds": 0}})  # nothing verifies it
        given = await served.post("/v1/refine", {**PROMPT, **SALT, "draft": "Salt.", "search": {"rounds": 0}})
        found = await samples(served)

    assert verified["passed"] is True
    assert given.json()["passed"] is True
    assert value(found, "first_drafts_total", model="scripted", outcome="failed") == 1
    assert not any(name == "redraft_first_drafts_total" and ("outcome", "passed") in labels for name, labels in found)
    assert value(found, "verified_texts_total", model="scripted", outcome="passed") == 2
    totals = [body["usage"]["total"] for body in (verified, given.json())]
    tokens = sum(total["prompt_tokens"] + total["completion_tokens"] for total in totals)
    assert value(found, "verified_tokens_total", model="scripted") == tokens > 0
