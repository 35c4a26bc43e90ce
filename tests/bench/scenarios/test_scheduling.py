"""The scheduling bench: the mix, the settings of the arms, and what their runs are compared by."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice

import pytest
from pydantic import BaseModel

from bench.harness.open_loop import Answer
from bench.harness.spread import Spread, compare_pairs
from bench.scenarios.scheduling import (
    ARMS,
    Outcome,
    Run,
    Size,
    compare_arms,
    count_calls,
    environment,
    make_run,
    mean_seconds,
    p95_seconds,
    programs,
    table,
)
from service.settings import Settings
from service.wire.requests import CritiqueRequest, RefineRequest
from tests.support.serving import Served

MODELS: Mapping[str, type[BaseModel]] = {"/v1/critique": CritiqueRequest, "/v1/refine": RefineRequest}
BASELINE, OTHER = ARMS


def run(arm: str, *seconds: float, size: Size = "short", makespan: float = 10.0, failed: int = 0) -> Run:
    return Run(arm, makespan, [Outcome(size, each, calls=2) for each in seconds], failed)


def rows(text: str, start: str) -> list[list[str]]:
    """The cells after the first of every row that begins so."""
    found = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [[cell.strip() for cell in line.strip("|").split("|")][1:] for line in found]


def test_every_deck_has_the_same_mix() -> None:
    drawn = list(islice(programs(seed=1), 60))
    decks = [drawn[begin : begin + 20] for begin in (0, 20, 40)]

    for deck in decks:
        assert Counter(program.size for program in deck) == {"short": 16, "medium": 3, "long": 1}
        assert Counter(program.path for program in deck) == {"/v1/refine": 12, "/v1/critique": 8}
    presets = [program.body["search"]["preset"] for program in drawn if program.size == "long"]
    assert presets == ["beam", "adaptive", "beam"]


def test_a_seed_gives_the_same_programs_and_no_two_alike() -> None:
    first, again, other = (list(islice(programs(seed), 200)) for seed in (1, 1, 2))

    assert first == again
    assert first != other
    bodies = {json.dumps(program.body) for program in (*first, *other)}
    assert len(bodies) == 400
    assert {program.size for program in first[:10]} > {"short"}  # in random order, not one size after the other


def test_programs_are_valid_requests() -> None:
    for program in islice(programs(seed=1), 40):
        assert MODELS[program.path].model_validate_json(json.dumps(program.body))


@pytest.mark.parametrize("size", ["short", "medium", "long"])
async def test_the_service_runs_them_and_tells_their_calls(served: Served, size: Size) -> None:
    for program in [each for each in islice(programs(seed=1), 40) if each.size == size]:
        response = await served.post(program.path, program.body)
        assert response.status_code == 200, response.text
        assert count_calls(response.content) == len(served.engine.calls)
        served.engine.calls.clear()


def test_arms_differ_by_the_engines_policy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def settings_of(arm: str) -> tuple[dict[str, object], dict[str, str]]:
        found = dict(environment(ARMS[arm], max_num_seqs=8))
        return json.loads(found.pop("REDRAFT_ENGINE_ARGS")), found

    (baseline, rest), (other, others) = settings_of(BASELINE), settings_of(OTHER)
    assert baseline == {**other, "scheduling_policy": "fcfs"}
    assert other == {"max_num_seqs": 8}
    assert rest == others
    for name, value in environment(ARMS[BASELINE], max_num_seqs=8).items():
        monkeypatch.setenv(name, value)
    assert Settings().engine_args == baseline


def test_a_run_has_its_results_and_counts_what_failed() -> None:
    def answer(due: float, ended: float, status: int | None) -> Answer:
        return Answer(due, due, ended, status, {}, b'{"usage": {"total": {"calls": 7}}}')

    found = make_run("arm", 100.0, [("long", answer(101, 104, 200)), ("short", answer(102, 110, 503))])

    assert found == Run("arm", 10.0, [Outcome("long", 3.0, 7)], failed=1)
    assert found.throughput == 0.1


def test_both_kinds_of_answer_tell_their_calls() -> None:
    assert count_calls(b'{"usage": {"calls": 4}}') == 4
    assert count_calls(b'{"usage": {"total": {"calls": 9}, "by_role": {}}}') == 9


def test_ratios_are_of_all_runs_and_of_each_repetition() -> None:
    before = [run(BASELINE, 10.0, 20.0), run(BASELINE, 30.0)]
    after = [run(OTHER, 5.0, 5.0), run(OTHER, 20.0)]

    assert compare_pairs(before, after, mean_seconds) == Spread(2.0, 1.5, 3.0)
    assert p95_seconds([run(OTHER, *range(101))]) == 95.0


@pytest.mark.parametrize(
    ("seconds", "makespan", "met"),
    [
        ((10.0, 10.0), 10.0, "yes"),
        ((10.1, 10.1), 10.0, "**no**"),
        ((10.0, 10.0), 10.4, "**no**"),  # throughput falls to 0.96
    ],
)
def test_an_arm_is_held_against_the_baseline(seconds: Sequence[float], makespan: float, met: str) -> None:
    text = compare_arms([run(BASELINE, 15.0, 15.0), run(OTHER, *seconds, makespan=makespan)])

    assert rows(text, OTHER)[0][-1] == met


def test_p95_alone_is_enough() -> None:
    text = compare_arms([run(BASELINE, 10.0, 1000.0), run(OTHER, 600.0, 600.0)])

    mean, p95, throughput, met = rows(text, OTHER)[0]
    assert (mean, p95) == ("0.84 (0.84 to 0.84)", "1.58 (1.58 to 1.58)")
    assert (throughput, met) == ("1.00 (1.00 to 1.00)", "yes")


def test_arms_are_told_whole_and_by_size() -> None:
    text = table([run("a", 1.0, 3.0), run("b", 5.0, failed=2), run("a", 8.0, size="long", makespan=5.0)])

    whole, short, long = rows(text, "a")
    assert whole == ["all", "3", "2.0", "4.0", "3.0", "7.5", "7.9", "0.20", "0"]
    assert short[:4] == ["short", "2", "2.0", "2.0"]
    assert long[:4] == ["long", "1", "2.0", "8.0"]
    assert rows(text, "b")[0][-1] == "2"
