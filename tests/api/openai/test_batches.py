"""OpenAI's own client uploads files, and has them answered line by line."""

import asyncio
import hashlib
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from service.engines.base import Sample, Usage
from service.engines.scripted import Script
from service.refinement.scheduling import priority
from tests.support.batches import CHAT, begin, client_at, ended, json_lines, make_chat, make_line, results, upload
from tests.support.scripts import stall
from tests.support.serving import Served, reply, serving

LINES = [make_chat(f"line-{number}", f"Write about wave {number}.") for number in range(5)]


@pytest.fixture
async def client(working: Served) -> AsyncIterator[AsyncOpenAI]:
    async with client_at(str(working.client.base_url)) as client:
        yield client


async def test_the_synchronous_client_has_a_file_answered(working: Served) -> None:
    def work() -> tuple[Any, list[dict[str, Any]]]:
        with OpenAI(base_url=f"{working.client.base_url}/v1", api_key="none", max_retries=0) as client:
            file = client.files.create(file=("lines.jsonl", json_lines(LINES)), purpose="batch")
            batch = client.batches.create(
                input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"job": "waves"}
            )
            while batch.status != "completed":
                time.sleep(0.05)
                batch = client.batches.retrieve(batch.id)
            assert batch.output_file_id
            return batch, [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]

    async with asyncio.timeout(30):
        batch, answers = await asyncio.to_thread(work)

    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (5, 5, 0)
    assert (batch.metadata, batch.error_file_id, batch.errors) == ({"job": "waves"}, None, None)
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    assert batch.expires_at == batch.created_at + 86_400
    assert [answer["custom_id"] for answer in answers] == [line["custom_id"] for line in LINES]
    assert {answer["response"]["status_code"] for answer in answers} == {200}
    assert {answer["response"]["body"]["choices"][0]["message"]["content"] for answer in answers} == {"Waves."}
    assert (
        len({answer["id"] for answer in answers}) == len({answer["response"]["body"]["id"] for answer in answers}) == 5
    )
    assert {answer["error"] for answer in answers} == {None}
    used = [answer["response"]["body"]["usage"] for answer in answers]
    assert batch.model == "scripted"
    assert batch.usage.input_tokens == sum(usage["prompt_tokens"] for usage in used) > 0
    assert batch.usage.output_tokens == sum(usage["completion_tokens"] for usage in used) > 0
    assert batch.usage.total_tokens == batch.usage.input_tokens + batch.usage.output_tokens
    cached = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in used)
    assert batch.usage.input_tokens_details.cached_tokens == cached
    assert batch.usage.output_tokens_details.reasoning_tokens == 0
    assert all(set(answer["response"]) == {"status_code", "request_id", "body"} for answer in answers)


@pytest.mark.parametrize(
    ("url", "body", "shown"),
    [
        ("/v1/responses", {"model": "scripted", "input": "Write."}, ("object", "response")),
        ("/v1/generate", {"prompt": "Write."}, ("model", "scripted")),
        ("/v1/critique", {"prompt": "Write.", "candidate": "Waves."}, ("model", "scripted")),
        ("/v1/refine", {"prompt": "Write.", "search": {"rounds": 1}}, ("stop_reason", "rounds")),
    ],
)
async def test_every_endpoint_answers_its_lines(
    client: AsyncOpenAI, url: str, body: dict[str, Any], shown: tuple[str, str]
) -> None:
    batch = await ended(client, (await begin(client, [make_line("a", url, body)], url)).id)
    [answer] = await results(client, batch.output_file_id)

    assert answer["response"]["body"][shown[0]] == shown[1]


async def test_lines_that_fail_are_in_the_file_of_errors(client: AsyncOpenAI) -> None:
    lines = [LINES[0], make_chat("wrong", "Write.", temperature=9), make_chat("streamed", "Write.", stream=True)]
    batch = await ended(client, (await begin(client, lines)).id)
    wrong, streamed = await results(client, batch.error_file_id)

    assert batch.request_counts is not None
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 1, 2)
    assert (wrong["custom_id"], wrong["error"], wrong["response"]["status_code"]) == ("wrong", None, 400)
    assert wrong["response"]["body"]["error"]["param"] == "temperature"
    assert streamed["response"]["body"]["error"]["param"] == "stream"


async def test_a_file_with_wrong_lines_fails_with_their_numbers(client: AsyncOpenAI) -> None:
    content = b"\n".join(
        [
            json.dumps(LINES[0]).encode(),
            b"",
            b"{",
            json.dumps(LINES[0]).encode(),
            json.dumps({**LINES[1], "url": "/v1/generate", "method": "GET"}).encode(),
            json.dumps({**LINES[2], "more": 1}).encode(),
            json.dumps({"custom_id": "\x00", "method": "POST", "url": CHAT}).encode(),
        ]
    )
    batch = await ended(client, (await begin(client, content)).id)

    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("failed", None, None)
    assert batch.failed_at
    assert batch.errors
    assert batch.errors.data
    assert [(error.line, error.code, error.param) for error in batch.errors.data] == [
        (3, "invalid_json_line", None),
        (4, "duplicate_custom_id", "custom_id"),
        (5, "invalid_method", "method"),
        (5, "invalid_url", "url"),
        (6, "unknown_parameter", "more"),
        (7, "missing_required_parameter", "body"),
        (7, "invalid_custom_id", "custom_id"),
    ]


async def test_a_batch_that_is_cancelled_gives_what_it_has(tmp_path: Path) -> None:
    async with serving(store=str(tmp_path / "store.db"), max_batch_programs=1) as served:
        stall(served.engine, lambda call: "wave 3" in call.prompt)
        async with client_at(str(served.client.base_url)) as client:
            batch = await begin(client, LINES)
            async with asyncio.timeout(20):
                while (found := await client.batches.retrieve(batch.id)).request_counts.completed < 3:  # type: ignore[union-attr]
                    await asyncio.sleep(0.02)
            cancelling = await client.batches.cancel(batch.id)
            batch = await ended(client, batch.id)
            again = await client.batches.cancel(batch.id)
            answered, others = await results(client, batch.output_file_id), await results(client, batch.error_file_id)

    assert found.status == "in_progress"
    assert cancelling.status == "cancelling"
    assert (batch.status, again.status) == ("cancelled", "cancelled")
    assert [answer["custom_id"] for answer in answered] == ["line-0", "line-1", "line-2"]
    assert [other["custom_id"] for other in others] == ["line-3", "line-4"]
    assert {other["error"]["code"] for other in others} == {"batch_cancelled"}
    assert {other["response"] for other in others} == {None}


async def test_a_batch_whose_time_is_over_expires_with_what_it_has(tmp_path: Path) -> None:
    async with serving(store=str(tmp_path / "store.db"), max_batch_programs=1) as served:
        stall(served.engine, lambda call: "wave 2" in call.prompt)
        async with client_at(str(served.client.base_url)) as client:
            batch = await begin(client, LINES)
            await served.until(lambda: served.engine.in_flight == 1)
            age(tmp_path / "store.db", 86_400)
            batch = await ended(client, batch.id)
            answered, others = await results(client, batch.output_file_id), await results(client, batch.error_file_id)

    assert (batch.status, bool(batch.expired_at), batch.completed_at) == ("expired", True, None)
    assert len(answered) < 3
    assert len(answered) + len(others) == 5
    assert {other["error"]["code"] for other in others} == {"batch_expired"}


def age(place: Path, seconds: float) -> None:
    """Let the batches in a database be older."""
    with closing(sqlite3.connect(place)) as database:
        database.execute("UPDATE redraft_batches SET created = created - ?", (seconds,))
        database.commit()


async def test_lines_wait_behind_other_requests_and_are_counted(tmp_path: Path) -> None:
    ranks: list[int] = []
    async with serving(store=str(tmp_path / "store.db")) as served, client_at(str(served.client.base_url)) as client:
        stream = served.engine.stream

        def noted(sample: Sample, **options: Any) -> Any:
            ranks.append(options["priority"])
            return stream(sample, **options)

        served.engine.stream = noted  # type: ignore[method-assign]
        await ended(client, (await begin(client, LINES)).id)
        metrics = (await served.client.get("/metrics")).text

    assert len(ranks) == 5
    assert min(ranks) >= priority(0, Usage(), "batch")
    assert 'redraft_batch_lines_total{status="200"} 5.0' in metrics


async def test_batches_take_turns(tmp_path: Path) -> None:
    script = Script(reply=reply, seconds_per_call=0.01)
    async with (
        serving(script, store=str(tmp_path / "store.db"), max_batch_programs=1) as served,
        client_at(str(served.client.base_url)) as client,
    ):
        long = await begin(client, [make_chat(f"{number}", "Write at length.") for number in range(200)])
        short = await ended(client, (await begin(client, LINES)).id)
        other = await client.batches.retrieve(long.id)
        await client.batches.cancel(long.id)

    assert short.status == "completed"
    assert other.status == "in_progress"


async def test_lists_are_paged_and_newest_first(client: AsyncOpenAI) -> None:
    file = await upload(client, LINES[:1])
    made = [
        await client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h") for _ in range(5)
    ]
    listed = [batch.id async for batch in client.batches.list(limit=2)]
    for batch in made:
        await ended(client, batch.id)
    outputs = [file.id async for file in client.files.list(purpose="batch_output", limit=2, order="asc")]
    inputs = [file.id async for file in client.files.list(purpose="batch")]

    assert listed == [batch.id for batch in reversed(made)]
    assert outputs == [(await client.batches.retrieve(batch.id)).output_file_id for batch in made]
    assert inputs == [file.id]


async def test_a_caller_sees_its_own_files_and_batches_only(tmp_path: Path) -> None:
    keys = ",".join(f"{name}:{hashlib.sha256(name.encode()).hexdigest()}" for name in ("ann", "ben"))
    async with serving(store=str(tmp_path / "store.db"), api_keys=keys) as served:
        url = str(served.client.base_url)
        async with client_at(url, "ann") as ann, client_at(url, "ben") as ben:
            file = await upload(ann, LINES[:1])
            batch = await ann.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
            refused = 0
            for call in (
                ben.files.retrieve(file.id),
                ben.files.content(file.id),
                ben.files.delete(file.id),
                ben.batches.retrieve(batch.id),
                ben.batches.cancel(batch.id),
            ):
                with pytest.raises(openai.NotFoundError):
                    await call
                refused += 1
            with pytest.raises(openai.BadRequestError) as wrong:
                await ben.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
            seen = [*(await ben.files.list()).data, *(await ben.batches.list()).data]
            done = await ended(ann, batch.id)

    assert (refused, seen, done.status) == (5, [], "completed")
    assert wrong.value.param == "input_file_id"


async def test_the_same_request_under_one_key_makes_one_batch(client: AsyncOpenAI) -> None:
    file = await upload(client, LINES[:1])
    made = [
        await client.batches.create(
            input_file_id=file.id,
            endpoint=CHAT,
            completion_window="24h",
            extra_headers={"Idempotency-Key": "one"},
        )
        for _ in range(3)
    ]

    assert len({batch.id for batch in made}) == 1
    assert len((await client.batches.list()).data) == 1


async def test_without_a_store_files_and_batches_are_refused_with_the_reason(served: Served) -> None:
    async with client_at(str(served.client.base_url)) as client:
        with pytest.raises(openai.NotFoundError, match="REDRAFT_STORE"):
            await upload(client, LINES)
        with pytest.raises(openai.NotFoundError, match="REDRAFT_STORE"):
            await client.batches.list()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"input_file_id": "file-unknown"}, "input_file_id"),
        ({"input_file_id": "file-\x00"}, "input_file_id"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 5}}, "output_expires_after.seconds"),
        ({"more": 1}, "more"),
    ],
)
async def test_a_batch_that_cannot_be_is_refused_with_the_field(
    working: Served, client: AsyncOpenAI, fields: dict[str, Any], param: str
) -> None:
    file = await upload(client, LINES[:1])
    body = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h", **fields}
    response = await working.post("/v1/batches", body)

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_files_with_results_expire_as_the_request_says(client: AsyncOpenAI) -> None:
    file = await upload(client, LINES[:1])
    batch = await client.batches.create(
        input_file_id=file.id,
        endpoint=CHAT,
        completion_window="24h",
        output_expires_after={"anchor": "created_at", "seconds": 3_600},
    )
    output = (await ended(client, batch.id)).output_file_id
    assert output
    found = await client.files.retrieve(output)

    assert found.expires_at
    assert abs(found.expires_at - found.created_at - 3_600) <= 1
    assert (found.purpose, found.filename) == ("batch_output", f"{batch.id}_output.jsonl")


async def test_the_input_may_be_deleted_once_the_batch_has_begun(tmp_path: Path) -> None:
    script = Script(reply=reply, seconds_per_call=0.02)
    async with (
        serving(script, store=str(tmp_path / "store.db"), max_batch_programs=1) as served,
        client_at(str(served.client.base_url)) as client,
    ):
        batch = await begin(client, LINES)
        await served.until(lambda: bool(served.engine.calls))
        await client.files.delete(batch.input_file_id)
        done = await ended(client, batch.id)

    assert done.request_counts
    assert (done.status, done.request_counts.completed) == ("completed", 5)
