"""What counts as the engine's time, and one short measurement of a real server."""

import asyncio
import json
from pathlib import Path

import pytest

from bench.scenarios.overhead import (
    CALLS_FILE,
    SECONDS_PER_CALL,
    Answer,
    Overhead,
    TimedEngine,
    covered_seconds,
    gaps,
    measure_overhead,
)
from service.engines.base import Choose, Sample
from service.engines.conversation import Conversation, Turn

REQUEST = Conversation(Turn("user", "Why? (1)"))


def test_calls_at_the_same_time_are_covered_once() -> None:
    assert covered_seconds([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 1.6)]) == pytest.approx(4.0)
    assert covered_seconds([]) == 0.0


def test_a_gap_begins_with_the_last_end_before_it() -> None:
    together = [(0.0, 2.0), (0.0, 3.0), (3.5, 4.0), (3.6, 5.0)]

    assert gaps(together) == pytest.approx([0.5, 0.6])


def test_added_is_what_the_engine_did_not_take() -> None:
    calls = {"a": [(10.0, 10.03), (10.04, 10.07)], "b": [(10.0, 10.02)]}
    answers = [Answer("a", 200, 0.09), Answer("b", 503, 0.01), Answer("c", 503, 0.01)]

    found = Overhead.of(answers, calls, seconds=2.0)

    assert found.added == pytest.approx([0.03])
    assert found.added_to_script == pytest.approx([0.05])
    assert found.gaps == pytest.approx([0.01])
    assert (found.errors, found.rate) == (2, 1.5)


async def test_the_engine_notes_its_calls_by_the_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = tmp_path / "calls.json"
    monkeypatch.setenv(CALLS_FILE, str(notes))
    engine = TimedEngine()

    draft = await engine.call(Sample(REQUEST))
    judged = REQUEST.with_reply(draft).with_user("Rate it.")
    await asyncio.gather(engine.call(Choose(judged, tuple("12345"))), engine.call(Sample(judged)))
    await engine.close()

    intervals = json.loads(notes.read_text())["Why? (1)"]
    assert len(intervals) == 3
    assert all(ended - began >= SECONDS_PER_CALL for began, ended in intervals)
    assert 2 * SECONDS_PER_CALL <= covered_seconds(intervals) < 3 * SECONDS_PER_CALL


async def test_a_server_is_measured_without_errors() -> None:
    found = await measure_overhead(rate=20.0, seconds=1.0)

    assert found.errors == 0
    assert len(found.added) == len(found.added_to_script) > 5
    assert min(found.added) > 0.0
    assert len(found.gaps) == 16 * len(found.added)  # of 17 calls, all but the draft's
    assert found.table().count("\n") == 4
