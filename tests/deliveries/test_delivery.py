"""When the attempts of a delivery are made."""

from itertools import accumulate

import pytest

from service.deliveries.delivery import DELAYS_SECONDS, JITTER, next_delay

HOUR = 3600.0


def test_attempts_are_made_over_three_days_and_then_no_more() -> None:
    delays = [next_delay(attempt, 1.0) for attempt in range(1, 11)]

    assert delays[-1] is None
    assert [round(seconds / HOUR, 2) for seconds in accumulate(delay for delay in delays if delay)] == [
        *(0.0, 0.08, 0.58, 2.58, 7.58, 17.58, 31.58, 51.58, 75.58)
    ]


@pytest.mark.parametrize(
    ("retry_after", "delay"), [(0.0, 300.0), (299.0, 300.0), (900.0, 900.0), (1e12, DELAYS_SECONDS[-1])]
)
def test_a_receiver_can_ask_for_more_time_but_not_for_more_than_a_day(retry_after: float, delay: float) -> None:
    assert next_delay(2, 1.0, retry_after) == delay


def test_notices_that_failed_together_are_not_sent_together_again() -> None:
    least, most = (next_delay(4, jitter) for jitter in JITTER)

    assert least is not None
    assert most is not None
    assert most - least == pytest.approx(0.4 * 2 * HOUR)
