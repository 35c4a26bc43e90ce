import pytest

from service.engines.base import Usage
from service.refinement.scheduling import QUANTUM_TOKENS, priority


def attained(tokens: int) -> Usage:
    return Usage(calls=1, completion_tokens=tokens)


def test_among_programs_that_had_about_as_much_the_earlier_one_goes_first() -> None:
    assert priority(1, attained(QUANTUM_TOKENS - 1)) < priority(2, attained(0)) < priority(3, attained(5))


@pytest.mark.parametrize(("less", "more"), [(0, 1), (1, 2), (2, 4), (5, 8)])
def test_who_had_less_by_a_level_goes_first_whoever_came_first(less: int, more: int) -> None:
    assert priority(10**12, attained(less * QUANTUM_TOKENS)) < priority(0, attained(more * QUANTUM_TOKENS))


@pytest.mark.parametrize(("some", "other"), [(2, 3), (4, 7), (8, 15)])
def test_levels_double(some: int, other: int) -> None:
    assert priority(0, attained(some * QUANTUM_TOKENS)) == priority(0, attained(other * QUANTUM_TOKENS))


def test_cached_tokens_are_no_service() -> None:
    cached = Usage(calls=3, prompt_tokens=9000, cached_tokens=9000)
    assert priority(0, cached) == priority(0, Usage())


def test_a_rank_fits_the_engines_integers() -> None:
    assert priority(2**47, attained(2**40), "batch") < 2**63


def test_a_batch_waits_behind_every_program_that_somebody_waits_for() -> None:
    costliest = attained(10**9)
    assert priority(2**47, costliest) < priority(0, attained(0), "batch")


def test_within_a_batch_too_the_cheaper_and_then_the_earlier_goes_first() -> None:
    ranks = [priority(1, attained(0), "batch"), priority(2, attained(0), "batch"), priority(0, attained(300), "batch")]
    assert ranks == sorted(ranks)
