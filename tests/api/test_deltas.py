"""Texts of a refine on the wire, while they are written."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from service.engines.scripted import Script
from tests.support.serving import Frame, Served, serving

HOSTILE = 'data: {}\r\n\r\nevent: done\u2028<script>"\x00\u202e\ud83d\ude00'.encode("utf-16", "surrogatepass").decode(
    "utf-16"
)
REFINE: Mapping[str, Any] = {
    "prompt": "Write.",
    "evaluators": [{"type": "keywords", "include": ["salt"]}],
    "search": {"drafts": 2, "rounds": 1, "critic": "evaluators", "repairs": False, "constraints": "off"},
    "judge": False,
}


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(Script(reply=lambda call: f"{HOSTILE} {call.prompt[:40]} {call.sampling.seed}")) as served:
        yield served


def joined(frames: list[Frame]) -> dict[tuple[int, int], str]:
    texts: dict[tuple[int, int], str] = {}
    for name, data in frames:
        if name == "writing":
            texts[data["round"], data["index"]] = ""
        elif name == "delta":
            texts[data["round"], data["index"]] += data["text"]
    return texts


async def test_pieces_join_to_the_candidates_whatever_is_in_them(served: Served) -> None:
    frames = await served.stream("/v1/refine", {**REFINE, "deltas": True})

    candidates = [data for name, data in frames if name == "candidate"]
    assert len(candidates) == 3
    assert joined(frames) == {(each["round"], each["index"]): each["text"] for each in candidates}
    assert all(HOSTILE in text for text in joined(frames).values())
    begun = [data for name, data in frames if name == "writing"]
    assert [(data["form"], data["parent"]) for data in begun] == [
        (each["form"], each["parent"]) for each in sorted(candidates, key=lambda each: (each["round"], each["index"]))
    ]


async def test_without_them_the_stream_is_as_it_was(served: Served) -> None:
    plain = await served.stream("/v1/refine", REFINE)
    shown = await served.stream("/v1/refine", {**REFINE, "deltas": True})

    assert {name for name, _ in plain} == {"started", "candidate", "evaluation", "critique", "round", "done"}
    assert not any("index" in data for _, data in plain)
    others = [(name, data) for name, data in shown if name not in ("writing", "delta")]
    assert [name for name, _ in others] == [name for name, _ in plain]
    texts = [[data["text"] for name, data in frames if name == "candidate"] for frames in (plain, others)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("more", [{}, {"stream": False}])
async def test_they_need_a_stream(served: Served, more: Mapping[str, Any]) -> None:
    response = await served.post("/v1/refine", {**REFINE, "deltas": True, **more})

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == ["deltas"]
    assert served.engine.calls == []


async def test_a_job_takes_none(tmp_path: Path) -> None:
    async with serving(store=str(tmp_path / "jobs.db")) as served:
        preference = {"Prefer": "respond-async"}
        for body, field in (({"deltas": True}, "deltas"), ({"deltas": True, "stream": True}, "stream")):
            response = await served.post("/v1/refine", {**REFINE, **body}, headers=preference)
            assert [error["field"] for error in response.json()["errors"]] == [field]


async def test_an_answer_that_is_sent_again_has_the_same_pieces(served: Served) -> None:
    asked = {**REFINE, "stream": True, "deltas": True}
    first, second = [
        (await served.post("/v1/refine", asked, headers={"Idempotency-Key": "once"})).content for _ in range(2)
    ]

    assert b"event: delta" in first
    assert first == second
