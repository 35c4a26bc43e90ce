"""Both clients against the whole service over real HTTP."""

import hashlib
from typing import Any

import httpx
import pytest

import redraft
from redraft import (
    AsyncRedraft,
    Busy,
    CandidateAdded,
    CandidateEvaluated,
    Critiqued,
    Delta,
    GenerateResult,
    InvalidRequest,
    Redraft,
    RefineResult,
    RoundEnded,
    Started,
    TextBegun,
    TextDelta,
    Unauthorized,
)
from service.engines.scripted import EngineCall, Script
from service.errors import EngineDead
from tests.support.callers import WAYS, calling
from tests.support.scripts import stall
from tests.support.serving import Served, serving

REFINE: dict[str, Any] = {
    "prompt": "Write about the sea.",
    "evaluators": [{"type": "keywords", "include": ["salt"]}],
    "judge": False,
    "search": {"critic": "model"},
}


def settled(answer: dict[str, Any]) -> dict[str, Any]:
    """Without what differs from one run of a script to the next."""
    kept = {name: value for name, value in answer.items() if name not in ("id", "timing")}
    if rounds := kept.get("rounds"):
        kept["rounds"] = [{**told, "seconds": None} for told in rounds]
    return kept


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("generate", {"prompt": ["One?", "Two?"], "n": 2, "sampling": {"max_tokens": 9}}),
        ("critique", {"prompt": "Write.", "candidate": "Sand.", "evaluators": REFINE["evaluators"]}),
        ("refine", REFINE),
        ("refine", {**REFINE, "trace": False}),
        ("refine", {"messages": [{"role": "user", "content": "Write."}], "search": {"critic": "factored"}}),
    ],
)
async def test_results_hold_all_that_the_service_sent(
    served: Served, way: str, method: str, fields: dict[str, Any]
) -> None:
    await served.post(f"/v1/{method}", fields)  # from now on the engine's cache does the same each time
    shown = (await served.post(f"/v1/{method}", fields)).json()
    async with calling(way, served.client.base_url) as caller:
        result = await caller.ask(method, **fields)

    sent = result.model_dump(mode="json", exclude_unset=True)
    assert settled(sent) == settled(shown)
    assert sent.keys() == shown.keys()
    assert sent["timing"].keys() == shown["timing"].keys()


@pytest.mark.parametrize("way", WAYS)
async def test_a_streamed_refine_tells_each_event_and_ends_with_the_result(served: Served, way: str) -> None:
    async with calling(way, served.client.base_url) as caller:
        await caller.ask("refine", **REFINE)  # from now on the engine's cache does the same each time
        events = await caller.events("stream_refine", **REFINE)
        whole = await caller.ask("refine", **REFINE)

    assert [type(event) for event in events] == [
        Started,
        *(CandidateAdded, CandidateEvaluated, RoundEnded),
        *(Critiqued, CandidateAdded, CandidateEvaluated, RoundEnded),
        RefineResult,
    ]
    assert [event.text for event in events if isinstance(event, CandidateAdded)] == ["Waves.", "Salt waves."]
    told = events[4]
    assert (told.candidate, told.issues, told.round) == ("c0", ("missing: salt", "Say more."), 1)
    assert [(remark.message, remark.criterion) for remark in told.remarks] == [("Say more.", None)]
    assert told.fault_probability > 0.5
    assert settled(events[-1].model_dump()) == settled(whole.model_dump())


@pytest.mark.parametrize("way", WAYS)
async def test_a_streamed_refine_tells_texts_while_they_are_written_if_asked(served: Served, way: str) -> None:
    async with calling(way, served.client.base_url) as caller:
        events = await caller.events("stream_refine", deltas=True, **REFINE)

    written = [event.text for event in events if isinstance(event, TextDelta)]
    added = [event for event in events if isinstance(event, CandidateAdded)]
    assert written == [event.text for event in added] == ["Waves.", "Salt waves."]
    assert [(event.round, event.index) for event in added] == [(0, 0), (1, 0)]
    begun = [event for event in events if isinstance(event, TextBegun)]
    assert [(event.round, event.index, event.form, event.parent) for event in begun] == [
        (event.round, event.index, event.form, event.parent) for event in added
    ]


@pytest.mark.parametrize("way", WAYS)
async def test_a_streamed_generate_ends_with_the_texts_that_its_deltas_join_to(way: str) -> None:
    # The separators are no ends of lines in a stream of events.
    script = Script(reply=lambda call: f"to {call.prompt}\u2028and\x85 ön\n")
    async with serving(script) as served, calling(way, served.client.base_url) as caller:
        *deltas, result = await caller.events("stream_generate", prompt=["One?", "Two?"], n=2)

    assert isinstance(result, GenerateResult)
    assert {type(delta) for delta in deltas} == {Delta}
    texts = [f"to {prompt}\u2028and\x85 ön\n" for prompt in ("One?", "One?", "Two?", "Two?")]
    assert [choice.text for choice in result.choices] == texts
    assert sorted(text for text in texts) == sorted(
        "".join(d.text for d in deltas if (d.prompt_index, d.index) == place)
        for place in {(d.prompt_index, d.index) for d in deltas}
    )


@pytest.mark.parametrize("way", WAYS)
async def test_models_and_tasks(served: Served, way: str) -> None:
    async with calling(way, served.client.base_url) as caller:
        model, *_ = await caller.ask("models")
        tasks = await caller.ask("tasks")

    assert model.id == "scripted"
    assert {"general", "summarize"} <= {task.name for task in tasks}
    assert all(task.description for task in tasks)


@pytest.mark.parametrize("way", WAYS)
async def test_leaving_a_stream_ends_its_work(served: Served, way: str) -> None:
    stall(served.engine, lambda call: True)
    async with calling(way, served.client.base_url) as caller:
        events = await caller.events("stream_refine", until=Started, **REFINE)
        await served.at_rest()

    assert [type(event) for event in events] == [Started]


@pytest.mark.parametrize("way", WAYS)
async def test_a_refused_request_names_its_fields(served: Served, way: str) -> None:
    async with calling(way, served.client.base_url) as caller:
        for method, ask in (("refine", caller.ask), ("stream_refine", caller.events)):
            with pytest.raises(InvalidRequest) as caught:
                await ask(method, prompt="Write.", search={"rounds": -1})

            error = caught.value
            assert (error.status, error.code) == (422, "invalid_request")
            assert [problem.field for problem in error.errors] == ["search.rounds"]
            assert error.detail.startswith("search.rounds: ")
            assert str(error) == f"{error.title}: {error.detail}"
            assert error.request_id
        assert caller.waits == []


@pytest.mark.parametrize("way", WAYS)
async def test_keys(way: str) -> None:
    async with serving(api_keys=f"someone:{hashlib.sha256(b'open').hexdigest()}") as served:
        for key in (None, "shut"):
            async with calling(way, served.client.base_url, key) as caller:
                with pytest.raises(Unauthorized) as told_as_openai_would:
                    await caller.ask("models")
                with pytest.raises(Unauthorized) as told:
                    await caller.ask("generate", prompt="Write.")
                assert told_as_openai_would.value.code == told.value.code == "unauthorized"
                assert told_as_openai_would.value.detail == told.value.detail
        async with calling(way, served.client.base_url, "open") as caller:
            assert (await caller.ask("generate", prompt="Write.")).choices[0].text == "Waves."


@pytest.mark.parametrize("way", WAYS)
async def test_a_problem_within_a_stream_is_raised_after_the_events_before_it(way: str) -> None:
    def dying(call: EngineCall) -> None:
        raise EngineDead("it was killed")

    async with serving(Script(fault=dying)) as served, calling(way, served.client.base_url) as caller:
        with pytest.raises(Busy) as caught:
            await caller.events("stream_refine", **REFINE)
        assert (caught.value.code, caught.value.detail) == ("engine_dead", "it was killed")
        assert caught.value.request_id
        assert caller.waits == []


async def test_a_client_closes_what_it_has_opened_itself(served: Served) -> None:
    url = str(served.client.base_url)
    async with AsyncRedraft(url) as client:
        await client.models()
    with pytest.raises(RuntimeError, match="closed"):
        await client.models()

    async with httpx.AsyncClient() as lent:
        async with AsyncRedraft(url, http_client=lent) as client:
            await client.models()
        assert not lent.is_closed

    with httpx.Client() as also_lent:
        with Redraft(url, http_client=also_lent), Redraft(url) as owner:
            pass
        assert not also_lent.is_closed
    with pytest.raises(RuntimeError, match="closed"):
        owner.models()


def test_a_url_without_its_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="localhost:8000"):
        Redraft("localhost:8000")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key", ["voilà", "keyÅ", "ключ", " 鍵\n"])
async def test_a_key_may_have_any_characters(way: str, key: str) -> None:
    digest = hashlib.sha256(key.strip().encode()).hexdigest()
    async with (
        serving(api_keys=f"someone:{digest}") as served,
        calling(way, served.client.base_url, key) as caller,
    ):
        assert (await caller.ask("generate", prompt="Write.")).choices[0].text == "Waves."


def test_keys_are_not_shown() -> None:
    with Redraft(api_key="hush") as client:
        assert "hush" not in repr(vars(client))


def test_public_names() -> None:
    public = [name for name, value in vars(redraft).items() if isinstance(value, type) and not name.startswith("_")]
    assert sorted([*public, "GenerateEvent", "RefineEvent"]) == sorted(redraft.__all__) == redraft.__all__
