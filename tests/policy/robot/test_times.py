from __future__ import annotations

from types import SimpleNamespace as Time

import pytest

from policy.robot.times import ImpossibleTimeError, duration_ns, time_ns

LAST = 2**31 - 1
"""Largest number of seconds that a message can hold."""


@pytest.mark.parametrize(
    ("sec", "nanosec", "expected"),
    [(0, 0, 0), (0, 1, 1), (3, 5, 3_000_000_005), (LAST, 999_999_999, LAST * 10**9 + 999_999_999)],
)
def test_times_that_a_clock_shows_are_nanoseconds(sec: int, nanosec: int, expected: int) -> None:
    assert time_ns(Time(sec=sec, nanosec=nanosec)) == expected


@pytest.mark.parametrize(
    ("sec", "nanosec"), [(-1, 0), (-1, 10**9), (-(2**31), 2**32 - 1), (0, 10**9), (LAST, 2**32 - 1)]
)
def test_times_that_no_clock_shows_are_errors(sec: int, nanosec: int) -> None:
    with pytest.raises(ImpossibleTimeError, match=str(sec)):
        time_ns(Time(sec=sec, nanosec=nanosec))


def test_durations_may_be_negative_but_have_no_more_nanoseconds_than_a_second() -> None:
    assert duration_ns(Time(sec=-1, nanosec=5)) == -999_999_995
    with pytest.raises(ImpossibleTimeError, match="1000000000 ns beside -1 s"):
        duration_ns(Time(sec=-1, nanosec=10**9))
