"""One short measurement of jobs against requests, on a real server."""

import pytest

from bench.scenarios.jobs import (
    ARMS,
    Options,
    Wave,
    busy_milliseconds,
    measure_arms,
    measure_steps,
    programs_per_minute,
)


def test_the_speed_of_several_waves_is_over_all_of_them() -> None:
    waves = [Wave(2, 60.0, 0.1, 9.0), Wave(4, 60.0, 0.5, 9.0)]

    assert programs_per_minute(waves) == pytest.approx(3.0)
    assert busy_milliseconds(waves) == pytest.approx(100.0)


async def test_each_arm_makes_the_same_calls() -> None:
    waves = await measure_arms(Options(programs=2, waves=1, repetitions=1))

    assert waves.keys() == ARMS.keys()
    assert {wave.programs for each in waves.values() for wave in each} == {2}
    assert len({wave.calls for each in waves.values() for wave in each}) == 1


async def test_steps_are_recorded_by_several_jobs_at_once() -> None:
    step = await measure_steps(2)

    assert 0 < step.least <= step.value <= step.most
