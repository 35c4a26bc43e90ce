"""Values over repetitions, and ratios of arms that ran in pairs."""

from bench.harness.spread import Spread, compare_pairs, format_number


def test_a_spread_is_the_median_with_its_extremes() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)


def test_a_format_is_that_of_each_number() -> None:
    assert f"{Spread(2.0, 1.5, 3.0):.2f}" == "2.00 (1.50 to 3.00)"
    assert str(Spread(2000.4, 1.5, 30.0)) == "2,000 (1.5 to 30)"


def test_pairs_are_compared_together_and_one_by_one() -> None:
    assert compare_pairs([[8.0], [2.0]], [[2.0], [2.0]], lambda runs: sum(map(sum, runs))) == Spread(2.5, 1.0, 4.0)


def test_a_number_has_three_digits_or_all_before_the_point() -> None:
    assert [format_number(value) for value in (0.12345, 9.999, 99.96, 1234.5)] == ["0.123", "10", "100", "1,234"]
