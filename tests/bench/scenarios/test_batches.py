"""The batch benchmark's arithmetic, and its lines against the service."""

from collections.abc import Sequence

import pytest

from bench.harness.open_loop import Answer, unlimited_client
from bench.harness.page import tabulate
from bench.scenarios.batches import COLUMNS, Batch, Wave, check_bars, make_line, ratio, send_batch
from tests.support.serving import Served


def wave(seconds: Sequence[float], batch: Batch | None = None) -> Wave:
    answers = [Answer(0.0, 0.0, ended, 200, {}, b"") for ended in seconds]
    return Wave([*answers, Answer(0.0, 0.0, 99.0, 503, {}, b"")], 10.0, batch)


def test_a_ratio_is_that_of_all_waves_with_the_extremes_of_pairs() -> None:
    batch = Batch(2, [1.0, 20.0], {200: 2})
    waves = [wave([1.0, 1.0]), wave([1.2, 1.2], batch), wave([3.0, 3.0], batch), wave([2.0, 2.0])]
    found = ratio(waves, 50)
    assert (found.value, found.least, found.most) == pytest.approx((2.1 / 1.5, 1.2, 1.5))
    assert "| 2 of 2 batches | yes |" in check_bars(waves)
    assert "**no**" in check_bars(waves), "1.4 times is too much"
    assert "| with a batch | 3 | 1 | 1.20 | 1.20 | 2 of 200 | 1 | 20 |" in tabulate(COLUMNS, waves[1:2])


def test_a_batch_that_lacks_a_line_is_told() -> None:
    waves = [wave([1.0]), wave([1.0], Batch(2, [1.0], {200: 1}))]
    assert "| 0 of 1 batches | **no** |" in check_bars(waves)


async def test_every_line_is_one_that_the_service_answers(served: Served) -> None:
    async with unlimited_client(str(served.client.base_url)) as client:
        batch = await send_batch(client, lines=9, first=100)
    assert batch.complete
    assert len({make_line(number)["body"]["prompt"] for number in range(9)}) == 9
    assert {make_line(number)["url"] for number in range(9)} == {"/v1/generate", "/v1/critique", "/v1/refine"}
