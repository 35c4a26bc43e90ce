"""The overload bench: what counts at a level, and what the highest level is held against."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from bench.harness.open_loop import Answer
from bench.harness.page import tabulate
from bench.scenarios.overload import COLUMNS, Level, Load, Sample, check_bars, make_program, take_samples
from service.wire.requests import RefineRequest

MIB = 2**20
LOAD = Load(factor=4.0, rate=2.0, seconds=30.0, warm_up=10.0)
STARTED = 1000.0


def result(due: float, seconds: float = 1.0) -> Answer:
    """Of a program due so many seconds after the begin."""
    return Answer(STARTED + due, STARTED + due, STARTED + due + seconds, 200, {}, b"")


def refusal(due: float, seconds: float = 0.01, late: float = 0.0, status: int = 503) -> Answer:
    sent = STARTED + due + late
    return Answer(STARTED + due, sent, sent + seconds, status, {"Retry-After": "3"}, b"")


def level(answers: Sequence[Answer], sizes: Sequence[int] = (100, 100, 100), load: Load = LOAD) -> Level:
    """``sizes``: MiB, at the begin, the middle and the end of the window."""
    times = (load.warm_up, (load.warm_up + load.seconds) / 2, load.seconds - 1)
    samples = [Sample(STARTED + time, size * MIB) for time, size in zip(times, sizes, strict=True)]
    return Level(load, STARTED, answers, samples)


def row(text: str, start: str) -> list[str]:
    """The cells of the row whose first cell begins so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_only_the_window_counts() -> None:
    found = level([result(5.0), result(9.5), result(20.0), result(29.5), refusal(5.0), refusal(15.0)])

    assert found.goodput == 2 / 20.0  # ended at 10.5 and 21, not at 6 and 30.5
    assert found.offered == 3 / 20.0  # due at 20, 29.5 and 15
    assert found.shed == 1 / 3
    assert [answer.due - STARTED for answer in found.accepted] == [20.0, 29.5]
    assert len(found.refused) == 2  # of the whole level


def test_what_is_neither_a_result_nor_a_refusal_is_a_failure() -> None:
    broken = Answer(STARTED, STARTED, STARTED + 1, None, {}, b"")
    found = level([result(12.0), refusal(12.0), refusal(12.0, status=429), replace(broken, status=500), broken, broken])

    assert found.failures == {"500": 1, "no answer": 2}
    assert len(found.refused) == 2


def test_refusals_without_a_retry_after_are_counted() -> None:
    silent = replace(refusal(12.0), headers={})

    assert level([refusal(12.0)]).unannounced == 0
    assert level([refusal(12.0), silent]).unannounced == 1
    assert "| yes | yes |" in check_bars([level([refusal(12.0)])])
    assert "| no | **no** |" in check_bars([level([silent])])


def test_memory_grows_from_the_begin_of_the_window_to_its_end() -> None:
    found = level([result(12.0)], (100, 130, 110))
    early, late = Sample(STARTED, 50 * MIB), Sample(STARTED + 40, 150 * MIB)
    found = replace(found, samples=[early, *found.samples, late])

    assert found.memory == (100 * MIB, 110 * MIB, 150 * MIB)
    assert found.growth == pytest.approx(0.1)


def test_a_level_is_a_row() -> None:
    text = tabulate(COLUMNS, [level([result(12.0, 2.0), refusal(13.0, 0.01, late=0.02)], (100, 130, 110))])

    assert row(text, "4 times") == [
        "4 times, 30 s",
        "0.10",
        "0.05",
        "50%",
        "2.0 s, 2.0 s",
        "1",
        "10.0 ms, 10.0 ms",
        "30.0 ms, 30.0 ms",
        "0",
        "0",
        "100, 110, 130 MiB",
        "+10.0%",
    ]


@pytest.mark.parametrize(("results", "share", "met"), [(9, "90.0%", "yes"), (8, "80.0%", "**no**")])
def test_goodput_is_held_against_the_best_level(results: int, share: str, met: str) -> None:
    best = level([result(12.0)] * 10, load=replace(LOAD, factor=1.0))
    highest = level([result(12.0)] * results)

    assert row(check_bars([best, highest]), "goodput")[1:] == [share, met]


@pytest.mark.parametrize(
    ("answers", "measured", "met"),
    [
        ([refusal(12.0, 0.049)], "49.0 ms", "yes"),
        ([refusal(12.0, 0.051)], "51.0 ms", "**no**"),
        ([refusal(12.0, 0.049, late=0.1)], "49.0 ms", "yes"),  # the client's own lateness is not the service's
        ([result(12.0)], "none came", "**no**"),
    ],
)
def test_refusals_are_held_against_a_limit(answers: Sequence[Answer], measured: str, met: str) -> None:
    assert row(check_bars([level([result(12.0), *answers])]), "99 % of refusals")[1:] == [measured, met]


@pytest.mark.parametrize(("end", "growth", "met"), [(110, "+10.0%", "yes"), (111, "+11.0%", "**no**")])
def test_growth_is_held_against_a_limit(end: int, growth: str, met: str) -> None:
    assert row(check_bars([level([result(12.0)], (100, 100, end))]), "memory")[1:] == [f"{growth} in 20 s", met]


def test_programs_are_valid_and_unlike() -> None:
    bodies = [make_program(number) for number in range(200)]

    assert all(RefineRequest.model_validate(body, strict=False) for body in bodies)
    assert len({body["prompt"] for body in bodies}) == 200


def test_without_any_result_no_bar_is_met_by_goodput() -> None:
    assert row(check_bars([level([refusal(12.0)])]), "goodput")[1:] == ["0.0%", "**no**"]


async def test_samples_are_taken_beside_the_work() -> None:
    sizes = iter(range(1000))

    async with asyncio.timeout(5), take_samples(lambda: next(sizes), every=0.01) as samples:
        while len(samples) < 3:
            await asyncio.sleep(0.01)
    taken = len(samples)
    await asyncio.sleep(0.05)

    assert len(samples) == taken
    assert [sample.size for sample in samples] == list(range(taken))


async def test_a_sample_that_cannot_be_taken_is_no_secret() -> None:
    def gone() -> int:
        raise ProcessLookupError

    with pytest.raises(ProcessLookupError):
        async with take_samples(gone, every=0.01):
            await asyncio.sleep(0.05)
