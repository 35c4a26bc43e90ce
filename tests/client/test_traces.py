"""Stored traces, feedback and preferences through both clients, against the whole service."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from redraft import ProblemError, traces
from service.api import traces as bodies
from tests.client.test_drift import model_shape
from tests.support.callers import WAYS, calling
from tests.support.serving import Served

SALT = {"type": "keywords", "include": ["salt"]}


@pytest.mark.parametrize("way", WAYS)
async def test_a_trace_is_judged_exported_and_deleted(way: str, working: Served) -> None:
    async with calling(way, working.client.base_url) as client:
        first = await client.ask("generate", prompt="Sing.", store=True)
        result = await client.ask("refine", prompt="Write.", evaluators=[SALT], search={"rounds": 1}, store=True)
        edit = await client.ask("feedback", program=result.id, kind="edit", value="Salty waves.")
        choice = await client.ask("feedback", program=result.id, kind="choice", value="c1", over=["c0"])
        trace = await client.ask("trace", trace_id=result.id)
        pairs = await client.events("preferences", format="openai", since=datetime(2026, 1, 1, tzinfo=UTC))
        listed = await client.ask("traces", limit=1)
        older = await client.ask("traces", before=result.id)
        none = await client.ask("traces", until=datetime(2020, 1, 1, tzinfo=UTC), task="general", model="scripted")
        await client.ask("delete_trace", trace_id=result.id)
        with pytest.raises(ProblemError) as unknown:
            await client.ask("trace", trace_id=result.id)
        assert await client.ask("delete_traces") == 1

    assert (edit.candidate, edit.value, choice.candidate, choice.over) == ("c1", "Salty waves.", "c1", ("c0",))
    assert [one.kind for one in trace.feedback] == ["edit", "choice"]
    assert trace.account["selected"] == "c1"
    assert [pair["preferred_output"][0]["content"] for pair in pairs] == ["Salty waves.", "Salt waves."]
    assert ([one.id for one in listed], [one.id for one in older], none) == ([result.id], [first.id], ())
    assert unknown.value.status == 404


@pytest.mark.parametrize("way", WAYS)
async def test_preferences_that_the_service_cannot_finish_raise(way: str) -> None:
    problem = {"type": "/problems#x", "title": "Gone", "status": 503, "detail": "away", "code": "store_unavailable"}

    def answer(request: httpx.Request) -> httpx.Response:
        lines: list[dict[str, Any]] = [{"prompt": []}, {"error": problem}]
        return httpx.Response(200, text="".join(f"{httpx.Response(200, json=line).text}\n" for line in lines))

    async with calling(way, handler=answer) as client:
        with pytest.raises(ProblemError, match="away"):
            await client.events("preferences")


@pytest.mark.parametrize(
    ("result", "body"),
    [
        (traces.Feedback, bodies.FeedbackBody),
        (traces.TraceSummary, bodies.TraceBody),
        (traces.Trace, bodies.WholeTraceBody),
        (traces.TraceList, bodies.TraceListBody),
        (traces.Deleted, bodies.DeletedBody),
    ],
)
def test_results_have_the_fields_of_the_service(result: type[BaseModel], body: type[BaseModel]) -> None:
    assert model_shape(result, "validation", words=False) == model_shape(body, "serialization", words=False)
