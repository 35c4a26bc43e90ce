"""The traces of the whole service, as a collector gets them over OTLP/HTTP."""

import asyncio
import json
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes, url_attributes
from opentelemetry.semconv.schemas import Schemas

from service.app import TracingUnavailable, create_app
from service.engines.base import Sample
from service.engines.remote.connect import Tokenizers, connect
from service.engines.remote.replicas import ReplicatedEngine
from service.engines.scripted import EngineCall, Script
from service.engines.served import ServedEngine
from service.errors import EngineDead
from service.evaluators.external.webhook_client import Webhooks, WebhookSettings
from service.evaluators.toolbox import Toolbox
from service.settings import Settings
from tests.docs.test_docs import ROOT, quoted, table
from tests.support.collector import Collector, ReceivedSpan, collecting
from tests.support.listener import answered, listening
from tests.support.scripts import role_of, stall
from tests.support.serving import frames, serving

TRACING = ROOT / "docs/operate/tracing.md"
MARK = "marzipan"
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
REMOTE = {"server.address", "server.port", "gen_ai.response.id", "gen_ai.response.model"}
"""What only the calls of remote engines have."""
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
REFINE: dict[str, Any] = {
    "prompt": f"Write about {MARK}.",
    "draft": f"A first {MARK}.",
    "criteria": [{"name": f"{MARK}ness", "question": f"Is it {MARK}?"}, {"name": "taste", "question": "Is it sweet?"}],
    "principles": [f"Be {MARK}."],
    "evaluators": [
        {"type": "keywords", "include": [f"{MARK} pie"]},
        {"type": "length", "unit": "words", "max": 1, "hard": False},
        {"type": "webhook", "name": "style"},
    ],
    "search": {"rounds": 2, "branches": 2, "critic": "model", "carry": "best"},
    "stop": {"patience": 2},
    "sampling": {"stop": [f"{MARK}!"], "seed": 7, "top_p": 0.9, "max_tokens": 99},
}


def reply(call: Sample) -> str:
    if call.schema is not None:
        return json.dumps({"issues": [f"More {MARK}."]})
    return f"A {MARK} {call.sampling.seed if call.sampling else 0}."


def family(collector: Collector, span: ReceivedSpan) -> Any:
    """A span's name, and what is below it, in the order of the names."""
    return span.name, sorted((family(collector, child) for child in collector.below(span)), key=str)


def ancestors(collector: Collector, span: ReceivedSpan) -> list[str]:
    """The names of the spans around a span, from the inside out."""
    by_id = {each.id: each for each in collector.spans}
    found = []
    while parent := by_id.get(span.parent):
        found.append(parent.name)
        span = parent
    return found


async def test_a_refine_is_one_trace_nested_as_its_work_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async with collecting(monkeypatch) as collector, listening(answered({"score": 0.5})) as hook:
        webhooks = Webhooks({"style": WebhookSettings(url=hook.url)})
        async with serving(Script(reply=reply), tools=Toolbox(webhooks), tracing=True) as served:
            response = await served.post(
                "/v1/refine", REFINE, headers={"traceparent": TRACEPARENT, "x-request-id": "r-1"}
            )
        done = response.json()

    assert response.status_code == 200, response.text
    spans = collector.spans
    assert {span.trace for span in spans} == {TRACE}
    [root] = [span for span in spans if span.parent == CALLER]
    assert root.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/refine",
        "http.response.status_code": 200,
        "url.path": "/v1/refine",
        "url.scheme": "http",
        "redraft.request_id": "r-1",
    }
    judged: Any = ("evaluate judge", [("chat scripted", [])] * 3)  # two criteria, and the text is weighed
    evaluated = [judged, *[(f"evaluate {name}", []) for name in ("keywords", "length", "webhook")]]
    revised = [*[("chat scripted", [])] * 2, *sorted(evaluated * 2, key=str)]
    criticised = [*[("chat scripted", [])] * 2, *revised]  # once: the second round has the same parent
    rounds = [("round", evaluated), ("round", criticised), ("round", revised)]
    assert family(collector, root) == ("POST /v1/refine", [("refine", sorted(rounds, key=str))])
    assert all(span.began <= span.ended for span in spans)
    assert not any(span.failed for span in spans)

    [program] = collector.named("refine")
    assert program.attributes == {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.agent.name": "general",
        "redraft.program": done["id"],
        "redraft.task": "general",
        "redraft.stop_reason": done["stop_reason"],
        "redraft.rounds": 2,
        "redraft.selected": done["selected"]["candidate"],
        "redraft.score.draft": pytest.approx(done["rounds"][0]["candidates"][0]["score"]),
        "redraft.score": pytest.approx(done["score"]),
        "redraft.passed": False,
    }
    assert [(r.attributes["redraft.round"], r.attributes["redraft.candidates"]) for r in collector.named("round")] == [
        (0, 1),
        (1, 2),
        (2, 2),
    ]
    calls = collector.named("chat scripted")
    assert Counter(call.attributes["redraft.role"] for call in calls) == {"judge": 15, "critique": 2, "revise": 4}
    total = done["usage"]["total"]
    told = ("gen_ai.usage.input_tokens", "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.output_tokens")
    counted = ("prompt_tokens", "cached_tokens", "completion_tokens")
    assert [sum(call.attributes[name] for call in calls) for name in told] == [total[name] for name in counted]
    revision = next(call for call in calls if call.attributes["redraft.role"] == "revise")
    assert revision.client
    assert (
        revision.attributes.items()
        >= {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "scripted",
            "gen_ai.request.model": "scripted",
            "gen_ai.request.max_tokens": 99,
            "gen_ai.request.top_p": 0.9,
        }.items()
    )
    assert revision.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    outputs = {call.attributes["redraft.role"]: call.attributes.get("gen_ai.output.type") for call in calls}
    assert outputs == {"judge": None, "critique": "json", "revise": "text"}
    keywords = collector.named("evaluate keywords")[0]
    assert keywords.attributes == {
        "gen_ai.evaluation.name": "keywords",
        "gen_ai.evaluation.score.value": 0.0,
        "redraft.evaluator.authority": "verifier",
        "redraft.evaluator.hard": True,
        "redraft.evaluator.passed": False,
        "redraft.evaluator.failed": False,
    }
    assert keywords.events == [
        (
            "gen_ai.evaluation.result",
            {
                "gen_ai.evaluation.name": "keywords",
                "gen_ai.evaluation.score.label": "fail",
                "gen_ai.evaluation.score.value": 0.0,
            },
        )
    ]
    [(_, judgement)] = collector.named("evaluate judge")[0].events
    assert judgement.keys() == {"gen_ai.evaluation.name", "gen_ai.evaluation.score.value"}
    assert collector.resource["service.name"] == "redraft"
    assert collector.schema_url in {schema.value for schema in Schemas}

    sent = [request.headers["traceparent"] for request in hook.requests]
    assert sorted(sent) == sorted(f"00-{TRACE}-{span.id}-01" for span in collector.named("evaluate webhook"))

    assert MARK in response.text
    assert not [body for body in collector.bodies if MARK.encode() in body]


async def test_a_trace_goes_on_at_the_server_of_a_remote_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    async with collecting(monkeypatch) as collector, serving(tracing=True) as remote:
        url = str(remote.client.base_url)

        async def start(_: Settings, tokenizers: Tokenizers) -> ServedEngine:
            connect_here = partial(connect, model="scripted", tokenizers=tokenizers)
            return await ReplicatedEngine.start("scripted", {url: partial(connect_here, url)})

        async with serving(start=start, tracing=True) as front:
            async with asyncio.timeout(10):
                while (await front.client.get("/health/ready")).status_code != 200:
                    await asyncio.sleep(0.02)
            response = await front.post("/v1/refine", {"prompt": "Write.", "search": {"rounds": 1, "critic": "model"}})
            assert response.status_code == 200
            await front.post("/v1/generate", {"prompt": "Write.", "stream": True})
        await remote.at_rest()

    for program in ("refine", "generate"):
        [traced] = [span for span in collector.named(program) if not _is_remote(collector, span)]
        answered_there = [
            span
            for span in collector.named("POST /v1/chat/completions")
            if span.trace == traced.trace and ancestors(collector, span)[0] == "chat scripted"
        ]
        calls = [
            span
            for span in collector.named("chat scripted")
            if span.trace == traced.trace and _is_ours(collector, span) and not span.failed  # it cannot weigh
        ]
        assert {span.parent for span in answered_there} == {span.id for span in calls}
        assert calls
        for call in calls:
            assert call.attributes["server.address"] == "127.0.0.1"
            assert call.attributes["server.port"] == remote.client.base_url.port
            assert call.attributes["gen_ai.response.model"] == "scripted"
        ids = [call.attributes["gen_ai.response.id"] for call in calls]
        assert len(set(ids)) == len(ids)
        assert not {"server.address", "gen_ai.response.id"} & traced.attributes.keys()


def _is_remote(collector: Collector, span: ReceivedSpan) -> bool:
    return "POST /v1/chat/completions" in ancestors(collector, span)


def _is_ours(collector: Collector, span: ReceivedSpan) -> bool:
    return not _is_remote(collector, span)


@pytest.mark.parametrize("sent", ["", "garbage", f"00-{'0' * 32}-{CALLER}-01", f"ff-{TRACE}-{CALLER}-01"])
async def test_what_is_no_trace_context_begins_a_trace(monkeypatch: pytest.MonkeyPatch, sent: str) -> None:
    async with collecting(monkeypatch) as collector, serving(tracing=True) as served:
        await served.post("/v1/generate", {"prompt": "Why?"}, headers={"traceparent": sent})

    request, program, call = collector.spans
    assert (request.parent, program.parent, call.parent) == ("", request.id, program.id)
    assert request.trace not in (TRACE, "0" * 32)


async def test_a_trace_that_its_beginner_does_not_record_is_not_recorded_here(monkeypatch: pytest.MonkeyPatch) -> None:
    async with collecting(monkeypatch) as collector, listening(answered({"score": 1})) as hook:
        webhooks = Webhooks({"style": WebhookSettings(url=hook.url)})
        body = {"prompt": "Why?", "candidate": "So.", "judge": False, "feedback": False}
        async with serving(tools=Toolbox(webhooks), tracing=True) as served:
            await served.post(
                "/v1/critique",
                {**body, "evaluators": [{"type": "webhook", "name": "style"}]},
                headers={"traceparent": f"00-{TRACE}-{CALLER}-00", "tracestate": "vendor=1"},
            )

    assert collector.spans == []
    [asked] = hook.requests
    assert asked.headers["traceparent"].startswith(f"00-{TRACE}-")
    assert asked.headers["traceparent"].endswith("-00")
    assert asked.headers["tracestate"] == "vendor=1"


async def test_log_lines_say_to_which_trace_they_belong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from service.cli.server import configure_logging

    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        configure_logging("info")
        async with collecting(monkeypatch) as collector, serving(tracing=True) as served:
            await served.post("/v1/generate", {"prompt": "Why?"})
    finally:
        root.handlers[:] = before
        root.setLevel(level)

    [request] = collector.named("POST /v1/generate")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    told = {line["message"]: (line.get("trace_id"), line.get("span_id")) for line in lines}
    assert told["request"] == told["program ended"] == (request.trace, request.id)


async def test_the_routes_that_machines_poll_are_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    async with collecting(monkeypatch) as collector, serving(tracing=True) as served:
        for path in ("/health/live", "/health/ready", "/metrics", "/v1/tasks/general", "/v1/nothing"):
            await served.client.get(path)

    assert [(span.name, span.attributes["http.response.status_code"]) for span in collector.spans] == [
        ("GET /v1/tasks/{name}", 200),
        ("GET", 404),
    ]


def dying(call: EngineCall) -> None:
    if role_of(call) == "draft":
        raise EngineDead(f"it choked on {MARK}")


async def test_a_failure_marks_what_failed_by_its_kind_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with collecting(monkeypatch) as collector, serving(Script(fault=dying), tracing=True) as served:
        response = await served.post("/v1/refine", {"prompt": "Why?"})

    assert response.status_code == 503
    assert [(span.name, span.failed, span.attributes.get("error.type")) for span in collector.spans] == [
        ("POST /v1/refine", True, "503"),
        ("refine", True, "EngineDead"),
        ("round", True, "EngineDead"),
        ("chat scripted", True, "EngineDead"),
    ]
    assert all((span.message, span.events) == ("", []) for span in collector.spans)
    assert not [body for body in collector.bodies if MARK.encode() in body]


async def test_an_evaluator_that_fails_is_marked_and_its_program_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async with collecting(monkeypatch) as collector, listening(answered({}, 500)) as hook:
        webhooks = Webhooks({"style": WebhookSettings(url=hook.url)})
        async with serving(tools=Toolbox(webhooks), tracing=True) as served:
            evaluators = [{"type": "webhook", "name": "style"}]
            body = {"prompt": "Why?", "evaluators": evaluators, "search": {"rounds": 0}, "judge": False}
            assert (await served.post("/v1/refine", body)).status_code == 200

    [evaluation] = collector.named("evaluate webhook")
    assert evaluation.attributes["redraft.evaluator.failed"] is True
    failure = {"gen_ai.evaluation.name": "webhook", "error.type": "evaluation_failed"}
    assert evaluation.events == [("gen_ai.evaluation.result", failure)]
    assert [span.name for span in collector.spans if span.failed] == ["evaluate webhook"]


async def test_a_budget_that_is_spent_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    async with collecting(monkeypatch) as collector, serving(tracing=True) as served:
        body = {"prompt": "Why?", "budget": {"calls": 1}, "search": {"rounds": 2}}
        assert (await served.post("/v1/refine", body)).json()["stop_reason"] == "budget"

    assert [span.name for span in collector.spans if span.failed] == []
    assert len(collector.named("chat scripted")) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_what_a_client_leaves_is_given_up_and_has_not_failed(
    monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    async with collecting(monkeypatch) as collector, serving(tracing=True) as served:
        reached = asyncio.Event()
        stall(served.engine, lambda call: role_of(call) == "judge", reached.set)
        asking = asyncio.create_task(served.post("/v1/refine", {"prompt": "Why?", "stream": stream}))
        async with asyncio.timeout(5):
            await reached.wait()
        asking.cancel()
        await asyncio.wait([asking])
        await served.at_rest()

    assert [span.name for span in collector.spans if span.failed] == []
    given_up = {span.name for span in collector.spans if span.attributes.get("redraft.cancelled")}
    assert given_up == {"refine", "round", "evaluate judge", "chat scripted"}
    [request] = collector.named("POST /v1/refine")
    assert request.attributes["http.response.status_code"] == (200 if stream else 499)


async def test_a_stream_s_spans_end_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with collecting(monkeypatch) as collector, serving(tracing=True) as served:
        body = {"prompt": "Why?", "n": 2, "stream": True}
        async with served.client.stream("POST", "/v1/generate", json=body) as response:
            names = [name async for name, _ in frames(response)]

    assert names[-1] == "done"
    [request] = collector.named("POST /v1/generate")
    assert family(collector, request) == ("POST /v1/generate", [("generate", [("chat scripted", [])] * 2)])


async def test_programs_side_by_side_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(reply=reply, seconds_per_call=0.002)
    async with collecting(monkeypatch) as collector, serving(script, tracing=True) as served:
        bodies = [{"prompt": f"Why {number}?", "search": {"rounds": 1, "critic": "model"}} for number in range(8)]
        await asyncio.gather(*(served.post("/v1/refine", body) for body in bodies))

    roots = collector.named("POST /v1/refine")
    assert len({root.trace for root in roots}) == 8
    assert len({str(family(collector, root)) for root in roots}) == 1
    assert all(span.trace == root.trace for root in roots for span in _descendants(collector, root))


def _descendants(collector: Collector, span: ReceivedSpan) -> Sequence[ReceivedSpan]:
    children = collector.below(span)
    return [*children, *(each for child in children for each in _descendants(collector, child))]


@pytest.mark.parametrize("collector_does", ["refuse", "fail", "hang"])
async def test_a_collector_that_cannot_be_used_disturbs_no_request(
    monkeypatch: pytest.MonkeyPatch, collector_does: str
) -> None:
    async def hang(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    async with collecting(monkeypatch, hang if collector_does == "hang" else answered({}, 503)) as collector:
        if collector_does == "refuse":
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        async with asyncio.timeout(10), serving(tracing=True) as served:
            for _ in range(5):
                assert (await served.post("/v1/generate", {"prompt": "Why?"}, timeout=1)).status_code == 200
                await asyncio.sleep(0.02)
    assert (collector.listener.connections > 0) == (collector_does != "refuse")


async def test_a_part_of_the_traces_can_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "drafts")
    async with collecting(monkeypatch) as collector, serving(tracing=True) as served:
        await served.post("/v1/generate", {"prompt": "Why?"})
        await served.post("/v1/generate", {"prompt": "Why?"}, headers={"traceparent": TRACEPARENT})

    assert {span.trace for span in collector.spans} == {TRACE}
    assert collector.resource["service.name"] == "drafts"


def conventional() -> set[str]:
    modules = (gen_ai_attributes, http_attributes, url_attributes, server_attributes, error_attributes)
    return {value for module in modules for name, value in vars(module).items() if name.isupper() and "." in str(value)}


async def test_attributes_are_the_documented_ones_and_conventional(monkeypatch: pytest.MonkeyPatch) -> None:
    async with collecting(monkeypatch) as collector, serving(Script(reply=reply), tracing=True) as served:
        evaluators = [{"type": "keywords", "include": ["pie"]}]
        await served.post("/v1/refine", {"prompt": "Why?", "sampling": {"seed": 1}, "evaluators": evaluators})
        await served.post("/v1/generate", {"prompt": "Why?", "n": 2})

    known = [span.attributes for span in collector.spans]
    known += [attributes for span in collector.spans for _, attributes in span.events]
    names = {name for attributes in known for name in attributes}
    described = {name for row in table(TRACING, "Spans") for name in quoted(row[1]) if "." in name}
    assert names == described - {"error.type", "redraft.cancelled"} - REMOTE  # nothing failed and nobody left
    assert {name for name in described if not name.startswith("redraft.")} <= conventional()


def test_tracing_without_its_packages_keeps_the_service_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "service.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracingUnavailable, match="extra 'tracing'"):
        create_app(Settings(engine="scripted", tracing=True))


def test_a_variable_without_sense_keeps_the_service_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")
    with pytest.raises(TracingUnavailable, match="OpenTelemetry"):
        create_app(Settings(engine="scripted", tracing=True))


SERVE_ONE = """
import asyncio, sys
from tests.support.serving import serving

async def main():
    async with serving() as served:
        response = await served.post("/v1/refine", {"prompt": "Why?", "search": {"rounds": 1}})
        assert response.status_code == 200, response.text

asyncio.run(main())
print(sorted(name for name in sys.modules if name.startswith("opentelemetry")))
print("service.spans" in sys.modules, "service.tracing" in sys.modules)
"""


async def test_without_tracing_nothing_of_opentelemetry_is_imported() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE_ONE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    told, failed = await process.communicate()
    assert process.returncode == 0, failed.decode()
    assert told.decode().splitlines() == ["[]", "True False"]
