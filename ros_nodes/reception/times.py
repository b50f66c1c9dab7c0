"""Times and durations of messages in nanoseconds. Not all that the message types can hold are ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ros_nodes.commands.trajectory_execution import SECOND

if TYPE_CHECKING:
    from builtin_interfaces.msg import Duration, Time


class ImpossibleTimeError(ValueError):
    """A time or duration that nothing shows; the message says which and why."""


def time_ns(time: Time) -> int:
    """A time in ns, from 0 to the last one that a message can hold, so that it can be sent on.

    Raises:
        ImpossibleTimeError: for one before 0, or nanoseconds that make a second or more.
    """
    if time.sec < 0:
        raise ImpossibleTimeError(f"{time.sec} s is before all clocks")
    return _nanoseconds(time)


def duration_ns(duration: Duration) -> int:
    """A duration in ns, which may be negative.

    Raises:
        ImpossibleTimeError: for nanoseconds that make a second or more.
    """
    return _nanoseconds(duration)


def _nanoseconds(value: Time | Duration) -> int:
    if value.nanosec >= SECOND:
        raise ImpossibleTimeError(f"{value.nanosec} ns beside {value.sec} s make a second or more")
    return int(value.sec) * SECOND + int(value.nanosec)
