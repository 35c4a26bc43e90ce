"""Texts that a database does not take, wherever a request may state one: over HTTP, on each kind of database."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from tests.api.test_jobs import PREFER, ended
from tests.support.serving import Served, serving

STRANGE = ("%00", "a%00b", "%ED%A0%80", "%FF", "a" * 5_000, "%E2%80%A8", "..%2F..%2Fetc")
QUERIES = ("before", "after", "task", "model", "since", "until", "limit", "order", "purpose", "format", "stream")
REFUSED = (400, 404, 422)
EDIT = {"kind": "edit", "value": "Salt\0 waves."}


def routes(served: Served) -> Iterator[tuple[str, APIRoute]]:
    for route in served.app.routes:
        if isinstance(route, APIRoute):
            for method in route.methods:
                yield method, route


async def ask(served: Served, method: str, path: str) -> httpx.Response:
    return await served.client.request(method, path, json={} if method == "POST" else None)


async def test_no_id_in_a_path_reaches_the_database_that_it_does_not_take(place: str) -> None:
    async with serving(store=place, stored_traces=True) as served:
        paths = [(method, route.path_format) for method, route in routes(served) if route.param_convertors]
        assert len(paths) > 15
        for method, path in paths:
            for name in STRANGE:
                filled = "/".join(name if part.startswith("{") else part for part in path.split("/"))
                answer = await ask(served, method, filled)
                assert answer.status_code in REFUSED, (method, filled, answer.text)


async def test_no_query_reaches_the_database_that_it_does_not_take(place: str) -> None:
    async with serving(store=place, stored_traces=True) as served:
        paths = [route.path for method, route in routes(served) if method == "GET" and not route.param_convertors]
        for path in paths:
            for field in QUERIES:
                for value in STRANGE:
                    answer = await served.client.get(f"{path}?{field}={value}")
                    assert answer.status_code < 500, (path, field, value, answer.text)


@pytest.mark.parametrize("path", ["/v1/jobs?before", "/v1/traces?before", "/v1/traces?task", "/v1/traces?model"])
async def test_a_name_with_control_characters_is_refused_by_its_field(working: Served, path: str) -> None:
    answer = await working.client.get(f"{path}=a%00")

    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"field": path.partition("?")[2], "message": "should have printable characters only"}
    ]


async def test_texts_of_bodies_may_hold_what_no_column_takes(place: str) -> None:
    """They are kept as JSON, which escapes it."""
    prompt = "Write\0 about \U0001f600."
    metadata = {"a\0": "b\0"}
    background = {"model": "scripted", "input": prompt, "background": True, "metadata": metadata}
    async with serving(store=place, stored_traces=True) as served:
        program = (await served.post("/v1/generate", {"prompt": prompt, "store": True})).json()["id"]
        trace = (await served.client.get(f"/v1/traces/{program}")).json()
        feedback = await served.post("/v1/feedback", {"program": program, **EDIT})
        accepted = await served.post("/v1/generate", {"prompt": prompt}, headers=PREFER)
        job = await ended(served, accepted.headers["location"])
        response = (await served.post("/v1/responses", background)).json()
        shown = (await served.client.get(f"/v1/responses/{response['id']}")).json()

    assert trace["account"]["request"]["prompt"] == prompt
    assert (feedback.status_code, feedback.json()["value"]) == (201, EDIT["value"])
    assert job["state"] == "completed"
    assert shown["metadata"] == metadata


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/batches", {"input_file_id": "file-\0", "endpoint": "/v1/generate", "completion_window": "24h"}),
        ("/v1/feedback", {"program": "ref-\0", "kind": "thumb", "value": "up"}),
        ("/v1/feedback", {"program": "ref-0", "kind": "thumb", "value": "up\0"}),
        ("/v1/feedback", {"program": "ref-0", "kind": "thumb", "value": "up", "candidate": "c0\0"}),
    ],
)
async def test_an_id_in_a_body_is_refused_if_it_cannot_be_one(place: str, path: str, body: dict[str, Any]) -> None:
    async with serving(store=place, stored_traces=True) as served:
        answer = await served.post(path, body)

    assert answer.status_code in REFUSED, answer.text


@pytest.mark.parametrize("body", [b'{"prompt": "\\ud800"}', b'{"prompt": "\xed\xa0\x80"}', b'{"\\ud800": 1}'])
async def test_half_a_surrogate_pair_ends_with_the_body(place: str, body: bytes) -> None:
    async with serving(store=place, stored_traces=True) as served:
        headers = {**PREFER, "Content-Type": "application/json"}
        answer = await served.client.post("/v1/refine", content=body, headers=headers)

    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("key", [b'"\xff"', b"a\x7fb", b'"a\\\x01"', "ä".encode()])
async def test_an_idempotency_key_is_printable_ascii(place: str, key: bytes) -> None:
    async with serving(store=place) as served:
        headers = [(b"Idempotency-Key", key), (b"Content-Type", b"application/json")]
        answer = await served.client.post("/v1/generate", content=b'{"prompt": "Write."}', headers=headers)

    assert answer.status_code in (400, 422), answer.text
