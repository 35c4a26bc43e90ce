"""Canaries in their folder: what trials decide, and which orders are refused."""

import math
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from operator import methodcaller
from pathlib import Path

import pytest

from service.learning.canary import Canaries, Canary, Trial, count_trials, judge
from service.learning.registry import Refused, Registry
from tests.support.adapters import add_adapter

ROOT = Path(__file__).parents[2]


MOST_WRONG = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1_000)
"""Of 1,000 simulations, within three standard errors."""


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def add(registry: Registry, weights: str, *, passed: bool = True) -> str:
    decisions = ("promote",) if passed else ()
    return add_adapter(registry, registry.folder, weights, *decisions, against=registry.current)


def trials(number: int, draw: Callable[[], tuple[float, float]]) -> Sequence[Trial]:
    drawn = [draw() for _ in range(number)]
    return [Trial(program=str(n), candidate=mine, incumbent=others) for n, (mine, others) in enumerate(drawn)]


def drafts(draws: random.Random, better_by: float = 0.0, each: int = 2) -> tuple[float, float]:
    """The shares of passing drafts of both, for a prompt that may be easy or hard."""
    probability = draws.betavariate(0.21, 1.29) * (1 - abs(better_by))
    mine, others = probability + max(better_by, 0.0), probability + max(-better_by, 0.0)
    return tuple(sum(draws.random() < p for _ in range(each)) / each for p in (mine, others))  # type: ignore[return-value]


@pytest.mark.parametrize("each", [1, 2])
def test_a_candidate_that_writes_as_the_incumbent_does_is_seldom_promoted_however_often_one_looks(each: int) -> None:
    draws = random.Random(each)
    verdicts = Counter(judge(trials(300, lambda: drafts(draws, each=each)), attempt=1) for _ in range(1_000))
    assert verdicts["better"] <= 50
    assert verdicts["worse"] / 1_000 <= MOST_WRONG


def test_all_candidates_against_one_incumbent_share_the_error() -> None:
    draws = random.Random(3)
    promoted = sum(
        any(judge(trials(150, lambda: drafts(draws)), attempt) == "better" for attempt in range(1, 11))
        for _ in range(200)
    )
    assert promoted <= 200 * 0.05 + 3 * math.sqrt(200 * 0.05 * 0.95)


def test_a_good_candidate_is_found_and_a_bad_one_too() -> None:
    draws = random.Random(4)
    good = Counter(judge(trials(400, lambda: drafts(draws, 0.15)), attempt=1) for _ in range(100))
    bad = Counter(judge(trials(400, lambda: drafts(draws, -0.15)), attempt=1) for _ in range(100))
    assert good["better"] >= 90
    assert bad["worse"] >= 90


def test_trials_that_nobody_wins_decide_nothing() -> None:
    assert judge([], attempt=1) == "undecided"
    assert judge(trials(2_000, lambda: (1.0, 1.0)), attempt=1) == "undecided"


def test_trials_are_counted() -> None:
    found = [Trial(program=str(n), candidate=c, incumbent=0.5) for n, c in enumerate((1.0, 0.5, 0.0, 1.0))]
    tally = count_trials(found)
    assert (tally.trials, tally.gain) == (4, 0.125)
    assert tally.wins == {"candidate": 2, "even": 1, "incumbent": 1}
    assert count_trials([]).gain is None


def test_a_canary_runs_until_it_is_ended_once(registry: Registry) -> None:
    digest = add(registry, "one")
    canary = registry.start_canary(digest, 0.5)

    assert Registry(registry.folder).canaries.running == canary
    assert (canary.against, canary.share, canary.attempt) == ("", 0.5, 1)
    assert registry.end_canary(canary, "worse", "because")
    assert not registry.end_canary(canary, "better", "late")
    assert registry.canaries.running is None
    ended = registry.canaries.last(digest)
    assert ended is not None
    assert (ended.verdict, ended.reason) == ("worse", "because")


def test_one_that_is_better_may_be_promoted_without_an_exam_or_is_at_once(registry: Registry) -> None:
    first, second = add(registry, "one", passed=False), add(registry, "two")
    canary = registry.start_canary(first, 0.5, force=True)
    with pytest.raises(Refused, match="has not sat an exam"):
        registry.promote(first)
    registry.end_canary(canary, "better", "because")
    assert registry.current == ""

    registry.end_canary(registry.start_canary(second, 0.5, promotes=True), "better", "because")
    assert (registry.current, registry.previous) == (second, "")
    with pytest.raises(Refused, match="has not sat an exam"):
        registry.promote(first)  # it was better than the base, which serves no more
    registry.rollback()
    registry.promote(first)
    assert registry.current == first


def test_one_that_is_better_is_not_promoted_if_it_was_to_forget_meanwhile(registry: Registry) -> None:
    digest = add(registry, "one")
    canary = registry.start_canary(digest, 0.5, promotes=True)
    registry.amend(digest, methodcaller("without", ["ref-1"]))

    with pytest.raises(Refused, match="traces that it learned from were withdrawn"):
        registry.end_canary(canary, "better", "because")
    assert registry.current == ""
    assert registry.canaries.running == canary


def test_what_cannot_be_tried_is_refused_with_the_reason(registry: Registry) -> None:
    serves, passed, failed = add(registry, "one"), add(registry, "two"), add(registry, "three", passed=False)
    registry.promote(serves)
    worse = add(registry, "four")
    registry.end_canary(registry.start_canary(worse, 0.5), "worse", "it lost")

    for digest, reason in (
        (serves, "it serves already"),
        (failed, "has not sat an exam"),
        (passed, "its exam was against another model"),
        (worse, r"its canary was worse than what serves \(it lost\)"),
        ("nothing", "there is no adapter nothing"),
    ):
        with pytest.raises(Refused, match=reason):
            registry.start_canary(digest, 0.5)
    with pytest.raises(Refused, match="its canary was worse"):
        registry.start_canary(worse, 0.5, force=True)
    with pytest.raises(Refused, match=r"its canary was worse than what serves \(it lost\)"):
        registry.promote(worse)
    with pytest.raises(Refused, match="no canary runs"):
        registry.stop_canary()
    registry.start_canary(passed, 0.5, force=True)
    with pytest.raises(Refused, match=f"the canary of {passed} runs: stop it first"):
        registry.start_canary(failed, 0.5, force=True)
    with pytest.raises(Refused, match=f"no canary of {failed} runs"):
        registry.stop_canary(failed)
    assert registry.stop_canary(passed).candidate == passed


def test_one_that_tries_its_luck_again_goes_on_with_its_trials(registry: Registry) -> None:
    one, two = add(registry, "one"), add(registry, "two")
    registry.start_canary(one, 0.5)
    registry.canaries.add(one, "", Trial(program="a", candidate=1.0, incumbent=0.0))
    registry.stop_canary()
    other = registry.start_canary(two, 0.5)
    registry.stop_canary()
    again = registry.start_canary(one, 0.1)

    assert (other.attempt, again.attempt) == (2, 1)
    assert [trial.program for trial in registry.canaries.trials(one, "")] == ["a"]
    assert registry.canaries.trials(two, "") == []


def test_a_cut_line_costs_its_own_trial_and_a_program_is_counted_once(registry: Registry, tmp_path: Path) -> None:
    digest = add(registry, "one")
    registry.start_canary(digest, 0.5)
    for program in ("a", "b"):
        registry.canaries.add(digest, "", Trial(program=program, candidate=1.0, incumbent=0.0))
    file = tmp_path / "canaries" / f"{digest}-base" / "trials.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    for program in ("a", "c"):
        registry.canaries.add(digest, "", Trial(program=program, candidate=0.0, incumbent=0.0))

    found = registry.canaries.trials(digest, "")
    assert [(trial.program, trial.candidate) for trial in found] == [("a", 1.0), ("c", 0.0)]


def test_processes_that_share_the_folder_add_to_the_same_trials(registry: Registry, tmp_path: Path) -> None:
    digest = add(registry, "one")
    registry.start_canary(digest, 0.5)
    program = (
        "import sys\nfrom pathlib import Path\nfrom service.learning.canary import Canaries, Trial\n"
        "for number in range(200):\n    Canaries(Path(sys.argv[1])).add(sys.argv[2], '', "
        "Trial(program=f'{sys.argv[3]} {number}', candidate=1.0, incumbent=0.0))"
    )
    command = [sys.executable, "-c", program, str(tmp_path), digest]
    processes = [subprocess.Popen([*command, name], cwd=ROOT) for name in ("a", "b")]
    assert [process.wait() for process in processes] == [0, 0]

    found = [trial.program.split() for trial in registry.canaries.trials(digest, "")]
    assert Counter(name for name, _ in found) == {"a": 200, "b": 200}
    for name in ("a", "b"):
        assert [int(number) for each, number in found if each == name] == list(range(200))


def test_a_damaged_record_is_no_canary(registry: Registry, tmp_path: Path) -> None:
    digest = add(registry, "one")
    registry.start_canary(digest, 0.5)
    (tmp_path / "canaries" / f"{digest}-base" / "canary.json").write_text("{")

    assert registry.canaries.running is None
    assert registry.canaries.last(digest) is None
    assert isinstance(registry.start_canary(digest, 0.5), Canary)
    assert isinstance(Canaries(tmp_path).running, Canary)
