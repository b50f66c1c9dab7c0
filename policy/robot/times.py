"""Times and durations of messages in nanoseconds. Not all that the message types can hold are ones.

Messages are told by their attributes alone, so that those of rclpy and of the package `rosbags` are read alike.
"""

from __future__ import annotations

from typing import Protocol

SECOND = 1_000_000_000
"""In nanoseconds."""


class Stamp(Protocol):
    """`builtin_interfaces/Time` or `Duration`."""

    sec: int
    nanosec: int


class ImpossibleTimeError(ValueError):
    """A time or duration that nothing shows; the message says which and why."""


def time_ns(time: Stamp) -> int:
    """A time in ns, from 0 to the last one that a message can hold, so that it can be sent on.

    Raises:
        ImpossibleTimeError: for one before 0, or nanoseconds that make a second or more.
    """
    if time.sec < 0:
        raise ImpossibleTimeError(f"{time.sec} s is before all clocks")
    return _nanoseconds(time)


def duration_ns(duration: Stamp) -> int:
    """A duration in ns, which may be negative.

    Raises:
        ImpossibleTimeError: for nanoseconds that make a second or more.
    """
    return _nanoseconds(duration)


def _nanoseconds(value: Stamp) -> int:
    if value.nanosec >= SECOND:
        raise ImpossibleTimeError(f"{value.nanosec} ns beside {value.sec} s make a second or more")
    return int(value.sec) * SECOND + int(value.nanosec)
