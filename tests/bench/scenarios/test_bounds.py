"""The check of bounds: what it asks for, what it takes for a fault, and how it goes on where it stopped."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from bench.harness.results import Records
from bench.scenarios.bounds import (
    KINDS,
    Check,
    Ended,
    Kind,
    Options,
    Tokens,
    Wave,
    find_faults,
    make_request,
    summarize,
)
from service.refinement.program import PRESETS
from service.wire.requests import RefineRequest

SPENT = Tokens(900, 100)
DONE = Ended("beam", 1_000.0, 200, None, "budget", 1_000, None, 0)
OUT_OF_TIME = Ended("vote", 0.5, 503, "deadline_exceeded", None, 0, 0.1, 0)


def wave(kind: Kind, *ended: Ended, number: int = 0) -> Wave:
    return Wave(kind, number, ended, SPENT, SPENT, 0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_requests_are_valid_and_over_every_preset(kind: Kind) -> None:
    draws = random.Random(1)
    requests = [RefineRequest.model_validate_json(json.dumps(make_request(kind, draws))) for _ in range(100)]

    presets = {request.search.preset for request in requests}
    assert presets == ({"best_of_n"} if kind == "abort" else set(PRESETS))
    assert all((request.budget.tokens is None) == (kind != "budget") for request in requests)
    assert all((request.budget.seconds is None) == (kind != "deadline") for request in requests)


def test_a_wave_in_which_everything_holds_has_no_faults() -> None:
    assert find_faults(wave("budget", DONE)) == []
    assert find_faults(wave("deadline", OUT_OF_TIME)) == []


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        (wave("budget", replace(DONE, tokens=1_001)), "beam spent 1001 of 1000 tokens"),
        (wave("budget", replace(DONE, status=503, code="overloaded")), "503 overloaded"),
        (wave("budget", OUT_OF_TIME), "503 deadline_exceeded"),
        (wave("deadline", replace(OUT_OF_TIME, code="engine_unavailable")), "503 engine_unavailable"),
        (wave("deadline", replace(OUT_OF_TIME, status=None, code=None)), "None"),
        (replace(wave("abort", DONE), counted=Tokens(900, 101)), "the engine counted"),
        (replace(wave("abort", DONE), idle_seconds=None), "still had work"),
    ],
)
def test_faults_are_found(broken: Wave, fault: str) -> None:
    [found] = find_faults(broken)

    assert found.startswith(f"{broken.kind} 0: ")
    assert fault in found
    assert found in summarize([broken])


def test_the_check_goes_on_with_the_kind_that_has_come_least_far(tmp_path: Path) -> None:
    results = tmp_path / "bounds.jsonl"
    options = Options(refines=4, aborted=10, results=results)
    for found in (wave("budget", DONE, DONE), wave("deadline", OUT_OF_TIME), wave("abort", replace(DONE, lost=9))):
        Records[Wave](results, Wave).append(found)

    check = Check(options)
    following = check.next_wave()
    check.add(wave("deadline", *[OUT_OF_TIME] * 3, number=1))
    then = check.next_wave()

    assert (following, then) == (("deadline", 1), ("budget", 1))
    assert Check(replace(options, minutes=0.0)).next_wave() is None
    assert Check(replace(options, refines=2, aborted=9)).next_wave() is None
