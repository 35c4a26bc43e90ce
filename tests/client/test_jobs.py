"""Jobs through both clients, against the whole service."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from redraft import (
    AsyncRedraft,
    CritiqueResult,
    GenerateResult,
    ProblemError,
    Redraft,
    RefineResult,
    RoundEnded,
    Started,
    UnexpectedAnswer,
)
from redraft.jobs import AsyncJob, Job
from service.engines.scripted import Script
from tests.support.receiver import ReceiverServer
from tests.support.serving import Served, reply, serving

SLOW = Script(reply=reply, seconds_per_token=0.05)
MANY_ROUNDS: dict[str, Any] = {"prompt": "Write.", "search": {"rounds": 9}, "stop": {"patience": 9}}


@pytest.fixture
async def slow(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(SLOW, store=str(tmp_path / "jobs.db")) as served:
        yield served


async def test_a_job_is_waited_for(working: Served) -> None:
    def call() -> RefineResult:
        with Redraft(str(working.client.base_url)) as client:
            job: Job[RefineResult] = client.refine(prompt="Write.", search={"rounds": 1}, background=True)
            assert job.status().id == job.id
            return job.wait()

    assert (await asyncio.to_thread(call)).text == "Waves."


async def test_a_job_is_awaited(working: Served) -> None:
    async with AsyncRedraft(str(working.client.base_url)) as client:
        job: AsyncJob[RefineResult] = await client.refine(prompt="Write.", search={"rounds": 1}, background=True)
        assert (await job.status()).id == job.id
        assert (await job.wait()).text == "Waves."


async def test_a_notice_of_a_job_s_end_is_sent_and_sent_again(tmp_path: Path) -> None:
    def call(url: str, receiver: ReceiverServer) -> list[str]:
        with Redraft(url) as client:
            job = client.refine(prompt="Write.", search={"rounds": 1}, background=True, notify=f"{receiver.url}/a,b;c")
            states = []
            for _ in range(2):
                while (found := job.notice()).state != "delivered":
                    time.sleep(0.01)
                states += [found.state, job.send_notice().state]
            return states

    async with ReceiverServer().listening() as server:
        receivers = {"billing": server.configuration(tmp_path)}
        async with serving(store=str(tmp_path / "jobs.db"), notice_receivers=receivers) as served:
            url = str(served.client.base_url)
            states = await asyncio.to_thread(call, url, server)
            async with AsyncRedraft(url) as client:
                job = await client.generate(prompt="Write.", background=True, notify=f"{server.url}/async")
                while (waited := await job.notice()).state != "delivered":
                    await asyncio.sleep(0.01)
                again = await job.send_notice()
                await server.until(4)

    assert states == ["delivered", "pending", "delivered", "pending"]
    assert waited.url == again.url == f"{server.url}/async"
    assert {seen.path for seen in server.seen} == {"/hooks/a,b;c", "/hooks/async"}


async def test_every_kind_of_job_has_the_result_of_its_kind(working: Served) -> None:
    async with AsyncRedraft(str(working.client.base_url)) as client:
        generated = await (await client.generate(prompt="Write.", n=2, background=True)).wait()
        reviewed = await (await client.critique(prompt="Write.", candidate="Waves.", background=True)).wait()

    assert isinstance(generated, GenerateResult)
    assert [choice.text for choice in generated.choices] == ["Waves.", "Waves."]
    assert isinstance(reviewed, CritiqueResult)
    assert reviewed.feedback == "Say more."


async def test_a_job_of_openai_s_client_is_not_this_client_s(working: Served) -> None:
    body = {"model": "scripted", "input": "Write.", "background": True}
    begun = (await working.post("/v1/responses", body)).json()
    job_id = begun["id"].replace("resp_", "job-")
    async with AsyncRedraft(str(working.client.base_url)) as client:
        listed = await client.jobs()
        with pytest.raises(UnexpectedAnswer, match="kind response"):
            await client.job(job_id)

    assert [(job.id, job.kind) for job in listed] == [(job_id, "response")]


async def test_the_events_begin_with_the_first_and_end_with_the_result(working: Served) -> None:
    def call() -> list[Any]:
        with Redraft(str(working.client.base_url)) as client:
            job = client.refine(prompt="Write.", search={"rounds": 1}, background=True)
            with job.events() as events:
                return list(events)

    found = await asyncio.to_thread(call)
    assert isinstance(found[0], Started)
    assert isinstance(found[-1], RefineResult)
    assert [event.round for event in found if isinstance(event, RoundEnded)] == [0, 1]


async def test_a_job_is_found_again_by_its_id(working: Served) -> None:
    async with AsyncRedraft(str(working.client.base_url)) as client:
        begun = [await client.generate(prompt="Write.", background=True) for _ in range(3)]
        texts = [await (await client.job(job.id)).wait() for job in begun]
        listed = await client.jobs(limit=2)
        older = await client.jobs(before=listed[-1].id)

    assert all(isinstance(text, GenerateResult) for text in texts)
    assert {job.id for job in listed + older} == {job.id for job in begun}
    assert len(listed) == 2


async def test_a_cancelled_job_has_the_best_so_far(slow: Served) -> None:
    async with AsyncRedraft(str(slow.client.base_url)) as client:
        job = await client.refine(**MANY_ROUNDS, background=True)
        async with job.events() as events:
            async for event in events:
                if isinstance(event, RoundEnded):
                    break
        assert (await job.cancel()).state == "cancelled"
        result = await job.wait()

    assert result.stop_reason == "cancelled"
    assert result.text


async def test_a_job_without_a_result_raises_its_problem(working: Served) -> None:
    async with AsyncRedraft(str(working.client.base_url)) as client:
        job = await client.refine(prompt="word " * 9_000, background=True)
        with pytest.raises(ProblemError) as waited:
            await job.wait()
        with pytest.raises(ProblemError) as followed:
            async with job.events() as events:
                _ = [event async for event in events]

    assert (waited.value.code, followed.value.code) == ("prompt_too_long", "prompt_too_long")


async def test_waiting_ends_in_time_and_the_job_goes_on(slow: Served) -> None:
    async with AsyncRedraft(str(slow.client.base_url)) as client:
        job = await client.refine(**MANY_ROUNDS, background=True)
        with pytest.raises(TimeoutError):
            await job.wait(timeout=0.05)
        assert (await job.status()).finished_at is None


async def test_a_service_without_jobs_is_named_as_the_reason(served: Served) -> None:
    async with AsyncRedraft(str(served.client.base_url)) as client:
        with pytest.raises(UnexpectedAnswer, match="it has no jobs"):
            await client.refine(prompt="Write.", background=True)


class Cut(httpx.AsyncByteStream):
    """Cuts a stream of events after every one."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        rest = b""
        async for chunk in self._stream:
            rest += chunk
            if b"\n\n" in rest:
                yield rest.partition(b"\n\n")[0] + b"\n\n"
                raise httpx.ReadError("cut")
        yield rest

    async def aclose(self) -> None:
        await self._stream.aclose()


class Cutting(httpx.AsyncHTTPTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if request.url.path.endswith("/events") and response.status_code == 200:
            assert isinstance(response.stream, httpx.AsyncByteStream)
            response.stream = Cut(response.stream)
        return response


async def test_a_stream_that_is_cut_at_every_event_is_resumed(working: Served) -> None:
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0)

    url = str(working.client.base_url)
    async with (
        httpx.AsyncClient(transport=Cutting()) as http,
        AsyncRedraft(url, http_client=http, sleep=sleep) as client,
    ):
        job = await client.refine(prompt="Write.", search={"rounds": 2}, background=True)
        async with job.events() as events:
            cut = [event async for event in events]
    async with AsyncRedraft(url) as client, (await client.job(job.id)).events() as events:
        whole = [event async for event in events]

    assert cut == whole
    assert len(whole) > 5
