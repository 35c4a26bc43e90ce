"""Responses in the background by OpenAI's own client against the whole service."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response

from service.engines.scripted import Script
from tests.support.scripts import stall
from tests.support.serving import Served, reply, serving

SEA = "Write about the sea."
SALT = {"redraft": {"evaluators": [{"type": "keywords", "include": ["salt"]}], "judge": False}}
TOOL: Any = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": False}
WAITING = ("queued", "in_progress")


def client_of(served: Served, key: str = "none") -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{served.client.base_url}/v1", api_key=key, max_retries=0)


@pytest.fixture
async def client(working: Served) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(working) as client:
        yield client


@asynccontextmanager
async def stalled(place: str, **settings: Any) -> AsyncIterator[tuple[Served, AsyncOpenAI]]:
    """A service whose engine never answers."""
    async with serving(store=place, **settings) as served, client_of(served) as client:
        stall(served.engine, lambda call: True)
        yield served, client


async def ended(client: AsyncOpenAI, response: Response) -> Response:
    """The response, once it has ended."""
    async with asyncio.timeout(30):
        while response.status in WAITING:
            await asyncio.sleep(0.005)
            response = await client.responses.retrieve(response.id)
    return response


async def begin(client: AsyncOpenAI, model: str = "scripted", **fields: Any) -> Response:
    response: Response = await client.responses.create(model=model, input=SEA, background=True, **fields)
    return response


async def test_a_response_in_the_background_has_the_answer_that_it_would_have_had(client: AsyncOpenAI) -> None:
    at_once = await client.responses.create(model="scripted", input=SEA, instructions="Be brief.", metadata={"a": "b"})
    begun = await begin(client, instructions="Be brief.", metadata={"a": "b"})
    response = await ended(client, begun)

    assert (begun.status, begun.background, begun.output, begun.error) == ("queued", True, [], None)
    assert begun.model_extra is not None
    assert begun.model_extra["store"] is True
    assert begun.id == response.id
    assert begun.id.startswith("resp_")
    assert (response.status, response.output_text) == ("completed", at_once.output_text)
    assert (response.instructions, response.metadata) == ("Be brief.", {"a": "b"})
    assert (response.created_at, response.usage) == (begun.created_at, at_once.usage)


async def test_a_refine_in_the_background_has_its_account(client: AsyncOpenAI, working: Served) -> None:
    response = await ended(client, await begin(client, "scripted:refine", extra_body=SALT))
    job = (await working.client.get("/v1/jobs")).json()["jobs"][0]
    whole = (await working.client.get(f"/v1/jobs/{job['id']}")).json()

    assert response.output_text == "Salt waves."
    assert response.model_extra is not None
    assert response.model_extra["redraft"]["stop_reason"] == "target"
    assert (job["kind"], job["state"]) == ("response", "completed")
    assert job["id"].removeprefix("job-") == response.id.removeprefix("resp_")
    assert (whole["result"]["id"], whole["error"]) == (response.id, None)


async def test_the_synchronous_client_works_in_the_background(working: Served) -> None:
    def work() -> tuple[Response, list[str]]:
        with OpenAI(base_url=f"{working.client.base_url}/v1", api_key="none", max_retries=0) as client:
            response = client.responses.create(model="scripted:refine", input=SEA, background=True, extra_body=SALT)
            while response.status in WAITING:
                response = client.responses.retrieve(response.id)
            with client.responses.retrieve(response.id, stream=True) as stream:
                kinds: list[str] = [event.type for event in stream]
            client.responses.delete(response.id)
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve(response.id)
            return response, kinds

    response, kinds = await asyncio.to_thread(work)

    assert response.output_text == "Salt waves."
    assert (kinds[0], kinds[1], kinds[-1]) == ("response.created", "response.queued", "response.completed")


async def test_it_streams_from_its_creation_and_can_be_resumed_after_every_event(client: AsyncOpenAI) -> None:
    stream = await begin(client, "scripted:refine", stream=True, extra_body=SALT)
    events = [event async for event in stream]  # type: ignore[attr-defined]
    response = events[-1].response
    for cut in range(len(events)):
        resumed = await client.responses.retrieve(response.id, stream=True, starting_after=cut)
        assert [event async for event in resumed] == events[cut + 1 :]

    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:3]] == ["response.created", "response.queued", "response.in_progress"]
    assert [event.response.status for event in events[:3]] == ["queued", "queued", "in_progress"]
    told = [event.model_extra["redraft"]["event"] for event in events if event.model_extra]
    assert {"started", "candidate", "evaluation", "critique", "round"} == set(told)
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert deltas == [response.output_text] == ["Salt waves."]
    assert events[-1].type == "response.completed"


async def test_the_stream_s_helper_follows_a_response_in_the_background(client: AsyncOpenAI) -> None:
    async with client.responses.stream(model="scripted", input=SEA, background=True) as stream:
        response = await stream.get_final_response()
    async with client.responses.stream(response_id=response.id, starting_after=2) as stream:
        kinds = [event.type async for event in stream]

    assert response.output_text == "Waves."
    assert kinds[0] == "response.output_item.added"
    assert kinds[-1] == "response.completed"


async def test_its_events_are_live(place: str) -> None:
    async with stalled(place) as (served, client):
        stream = await begin(client, stream=True)
        kinds: list[str] = []
        async for event in stream:  # type: ignore[attr-defined]
            kinds.append(event.type)
            if event.type == "response.queued":
                await served.until(lambda: served.engine.in_flight == 1)
                await client.responses.cancel(event.response.id)
        response = await client.responses.retrieve(event.response.id)

    assert kinds == ["response.created", "response.queued", "response.in_progress", "response.incomplete"]
    assert response.status == event.response.status == "cancelled"


async def test_a_response_that_waits_or_works_can_be_cancelled(place: str) -> None:
    async with stalled(place, max_jobs=1) as (served, client):
        working = await begin(client)
        await served.until(lambda: served.engine.in_flight == 1)
        waiting = await begin(client)
        states = [(await client.responses.retrieve(each.id)).status for each in (working, waiting)]
        cancelled = [await client.responses.cancel(each.id) for each in (waiting, working)]
        again = await client.responses.cancel(working.id)

    assert states == ["in_progress", "queued"]
    assert [each.status for each in (*cancelled, again)] == ["cancelled"] * 3
    assert [each.error for each in cancelled] == [None, None]


async def test_a_cancelled_refine_keeps_its_best(place: str) -> None:
    async with serving(store=place) as served, client_of(served) as client:
        stall(served.engine, lambda call: len(served.engine.calls) > 1)
        begun = await begin(client, "scripted:refine", extra_body=SALT)
        await served.until(lambda: len(served.engine.calls) == 2 and served.engine.in_flight == 1)
        cancelled = await client.responses.cancel(begun.id)

    assert (cancelled.status, cancelled.output_text) == ("cancelled", "Waves.")
    assert cancelled.incomplete_details is None


async def test_a_response_that_has_ended_cannot_be_cancelled_any_more(client: AsyncOpenAI) -> None:
    response = await ended(client, await begin(client))

    assert await client.responses.cancel(response.id) == response


async def test_a_deleted_response_ends_and_is_gone(place: str) -> None:
    async with stalled(place) as (served, client):
        begun = await begin(client)
        await served.until(lambda: served.engine.in_flight == 1)
        deleted = await served.client.delete(f"/v1/responses/{begun.id}")
        await served.at_rest()
        jobs = (await served.client.get("/v1/jobs")).json()["jobs"]
        with pytest.raises(openai.NotFoundError):
            await client.responses.cancel(begun.id)

    assert deleted.json() == {"id": begun.id, "object": "response", "deleted": True}
    assert jobs == []


async def test_a_response_outlives_the_service(place: str) -> None:
    async with stalled(place) as (served, client):
        begun = await begin(client, "scripted:refine", extra_body=SALT)
        await served.until(lambda: served.engine.in_flight == 1)
    async with serving(store=place) as served, client_of(served) as client:
        response = await ended(client, begun)
    async with serving(store=place) as served, client_of(served) as client:
        again = await client.responses.retrieve(response.id)

    assert (response.status, response.output_text) == ("completed", "Salt waves.")
    assert again == response


async def test_a_failure_is_told_by_the_response_and_its_stream(place: str) -> None:
    def broken(call: object) -> None:
        raise KeyError("a bug")

    async with serving(Script(reply=reply, fault=broken), store=place) as served, client_of(served) as client:
        response = await ended(client, await begin(client))
        stream = await client.responses.retrieve(response.id, stream=True)
        with pytest.raises(openai.APIError) as raised:
            async for _ in stream:
                pass
        page = await served.client.get(f"/v1/responses/{response.id}?stream=true")

    assert (response.status, response.output) == ("failed", [])
    assert response.error is not None
    assert response.error.code == "server_error"
    assert raised.value.code == "internal_error"
    assert page.text.rstrip().split("event: ")[-1].startswith("response.failed")


@pytest.mark.parametrize("stream", [False, True])
async def test_the_same_key_gives_the_same_response_also_after_a_restart(place: str, stream: bool) -> None:
    headers = {"Idempotency-Key": "a-1"}
    body = {"model": "scripted:refine", "input": SEA, "background": True, "stream": stream}
    answers = []
    for _ in range(2):
        async with serving(store=place) as served:
            asked = [served.post("/v1/responses", body, headers=headers) for _ in range(10)]
            answers += await asyncio.gather(*asked)
            jobs = (await served.client.get("/v1/jobs")).json()["jobs"]

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert len(jobs) == 1


async def test_a_forced_call_can_be_made_in_the_background(place: str) -> None:
    async with serving(Script(), store=place) as served, client_of(served) as client:
        response = await ended(client, await begin(client, tools=[TOOL], tool_choice="required"))
        stream = await client.responses.retrieve(response.id, stream=True)
        kinds = [event.type async for event in stream]

    assert [item.type for item in response.output] == ["function_call"]
    assert "response.function_call_arguments.done" in kinds


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"store": False}, "store"),
        ({"tools": [TOOL]}, "background"),
        ({"background": "yes"}, "background"),
        ({"redraft": {"task": "none"}}, "redraft.task"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "https://a.b/c"}]}]}, None),
    ],
)
async def test_what_cannot_be_followed_is_refused_before_it_is_taken_on(
    working: Served, body: dict[str, Any], param: str | None
) -> None:
    response = await working.post("/v1/responses", {"model": "scripted", "input": SEA, "background": True, **body})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == param or param is None
    assert (await working.client.get("/v1/jobs")).json()["jobs"] == []


async def test_without_a_store_nothing_works_in_the_background(served: Served) -> None:
    refused = await served.post("/v1/responses", {"model": "scripted", "input": SEA, "background": True})
    missing = await served.client.get("/v1/responses/resp_1")

    assert (refused.status_code, missing.status_code) == (400, 404)
    assert refused.json()["error"]["param"] == "background"
    for answer in (refused, missing):
        assert "REDRAFT_STORE" in answer.json()["error"]["message"]


@pytest.mark.parametrize("query", ["stream=yes", "stream=true&starting_after=x", "starting_after=1"])
async def test_a_stream_that_is_asked_for_wrongly_is_refused(working: Served, query: str) -> None:
    response = await working.client.get(f"/v1/responses/resp_{'0' * 32}?{query}")

    assert response.status_code == 400


async def test_a_response_is_its_caller_s_own_and_no_other_job_is_one(place: str) -> None:
    keys = ",".join(f"{name}:{hashlib.sha256(name.encode()).hexdigest()}" for name in ("ann", "bob"))
    async with serving(store=place, api_keys=keys) as served, client_of(served, "ann") as ann:
        begun = await begin(ann)
        headers = {"Prefer": "respond-async", "Authorization": "Bearer ann"}
        job = (await served.post("/v1/generate", {"prompt": SEA}, headers=headers)).json()
        async with client_of(served, "bob") as bob:
            for read in (bob.responses.retrieve, bob.responses.cancel, bob.responses.delete):
                with pytest.raises(openai.NotFoundError):
                    await read(begun.id)
        with pytest.raises(openai.NotFoundError):
            await ann.responses.retrieve(job["id"].replace("job-", "resp_"))
        assert (await ann.responses.retrieve(begun.id)).id == begun.id


async def test_a_full_service_takes_on_what_works_in_the_background(place: str) -> None:
    async with stalled(place, max_programs=1, max_queued=0, max_jobs=1, max_queued_jobs=1) as (served, client):
        busy = asyncio.create_task(served.post("/v1/generate", {"prompt": SEA}))
        await served.until(lambda: served.engine.in_flight == 1)
        begun = await begin(client)
        with pytest.raises(openai.InternalServerError) as at_once:
            await client.responses.create(model="scripted", input=SEA)
        busy.cancel()
        await asyncio.wait([busy])
        await client.responses.cancel(begun.id)

    assert begun.status == "queued"
    assert at_once.value.code == "overloaded"


async def test_unusual_line_ends_are_escaped(place: str) -> None:
    async with serving(Script(reply=lambda call: "a\u2028b\u0085c"), store=place) as served:
        async with client_of(served) as client:
            response = await ended(client, await begin(client))
        text = (await served.client.get(f"/v1/responses/{response.id}")).text

    assert response.output_text == "a\u2028b\u0085c"
    assert "\\u2028b\\u0085" in text
    assert json.loads(text)["output"][0]["content"][0]["text"] == response.output_text
