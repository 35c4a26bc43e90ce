"""Stored traces for tests, without programs that write them."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from service.programs.ids import make_id
from service.store.opening import open_database
from service.traces.database import TraceDatabase
from service.traces.store import Feedback, FeedbackKind, WholeTrace
from service.traces.trace import Trace, TraceSummary

WAVES = [{"role": "user", "content": "Write about waves.", "images": 0}]


@asynccontextmanager
async def trace_store(place: Path | str) -> AsyncIterator[TraceDatabase]:
    """A store of traces that nobody else uses."""
    database = open_database(str(place))
    try:
        yield TraceDatabase(database)
    finally:
        await database.close()


def make_trace(document: Mapping[str, Any] | None = None, **fields: Any) -> Trace:
    """A trace; ``fields`` are those of its summary."""
    summary: dict[str, Any] = {
        "id": make_id("ref"),
        "caller": "ann",
        "kind": "refine",
        "task": "general",
        "model": "scripted",
        "created": time.time(),
        "score": 0.5,
        "passed": True,
        "tokens": 7,
    }
    return Trace(TraceSummary(**{**summary, **fields}), document or make_document([candidate("c0", "Waves.")]))


def make_document(candidates: Sequence[Mapping[str, Any]], **fields: Any) -> dict[str, Any]:
    return {"prompts": [WAVES], "candidates": list(candidates), "selected": candidates[0]["id"], **fields}


def candidate(its_id: str, text: str, *evaluations: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    plain = {"prompt": 0, "round": 0, "form": "draft", "parent": None, "finish_reason": "stop"}
    return {**plain, "id": its_id, "text": text, "evaluations": list(evaluations), **fields}


def verified(score: float, *, hard: bool = True, **fields: Any) -> dict[str, Any]:
    """The evaluation of a verifier."""
    issues = [] if score == 1.0 else [{"rule": "include", "message": "missing: salt", "instruction": "Use salt."}]
    return {
        "evaluator": "keywords",
        "authority": "verifier",
        "hard": hard,
        "weight": 1.0,
        "passed": score == 1.0,
        "score": score,
        "stderr": None,
        "criteria": [],
        "issues": issues,
        "error": None,
        **fields,
    }


def judged(score: float, stderr: float = 0.05) -> dict[str, Any]:
    """The evaluation of a model as a judge."""
    line = {"name": "fluency", "score": score, "stderr": stderr, "mass": 1.0}
    return verified(score, hard=False) | {
        "evaluator": "judge",
        "authority": "judge",
        "passed": None,
        "stderr": stderr,
        "criteria": [line],
        "issues": [],
    }


def feedback(trace: Trace, kind: FeedbackKind, its_candidate: str, value: Any) -> Feedback:
    return Feedback(trace.summary.id, kind, its_candidate, value, time.time())


def with_feedback(document: Mapping[str, Any], *given: tuple[FeedbackKind, str, Any]) -> WholeTrace:
    trace = make_trace(document)
    return WholeTrace(trace, [feedback(trace, *one) for one in given])
