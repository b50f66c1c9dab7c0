"""What is wrong with a source of messages, said before it is recorded. Knows no ROS.

Times are integer nanoseconds of the recorder's clock.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from policy.robot.description import Source
from policy.robot.message_types import Message
from policy.robot.messages import command_points, measurement
from policy.robot.observation_history import RejectedObservation, SourceSlice, check_age
from policy.robot.times import SECOND
from ros_nodes.recorder.camera_check import CameraCheck

WINDOW = 2 * SECOND
"""How long the newest measurements count."""

LISTENED = SECOND
"""How long a source must have been heard before its rate can be judged."""

SLOWEST = 0.9
"""Share of the wanted rate below which a source is too slow, as arrivals jitter."""


class TopicMonitor:
    """The newest messages of one source.

    Args:
        source: what is taken of them.
        period_ns: control period that the source must keep up with; None where nobody has said one.
        may_lead: whether stamps may be ahead of the clock. A simulated clock arrives over the network as they do.

    Attributes:
        camera: looks at its pictures; None for a source of numbers.
        messages: number since `restart`.
        refused: number of those that no observation can be made of.
        largest_gap_ns: longest time since `restart` between two measurements.
    """

    def __init__(self, source: Source, period_ns: int | None, *, may_lead: bool) -> None:
        self.source = source
        self.camera = CameraCheck(source) if source.is_camera else None
        self._period_ns = period_ns
        self._may_lead = may_lead
        self._slice = SourceSlice(
            name=source.name, first=0, size=0, max_age_ns=round(source.max_age * SECOND)
        )
        self._arrivals: deque[int] = deque()  # of measurements with a stamp of their own
        self._stamp: int | None = None
        self._bad: tuple[int, str] | None = None
        self.restart()

    def restart(self) -> None:
        """Count anew, as a new episode begins. What is known of the source stays."""
        self.messages = 0
        self.refused = 0
        self.largest_gap_ns = 0

    def add(self, message: Message, now_ns: int) -> None:
        """Take note of a message that arrives now."""
        self.messages += 1
        if self._arrivals and now_ns < self._arrivals[-1]:  # the clock was set back, and stamps are with it
            self._arrivals.clear()
            self._stamp = None
        try:
            stamp = self._checked_stamp(message, now_ns)
        except RejectedObservation as rejection:
            self.refuse(str(rejection), now_ns)
            return
        if stamp == self._stamp:
            return
        self._stamp = stamp
        if self._arrivals and self.messages > 1:
            self.largest_gap_ns = max(self.largest_gap_ns, now_ns - self._arrivals[-1])
        self._arrivals.append(now_ns)
        while self._arrivals[0] < now_ns - WINDOW:
            self._arrivals.popleft()

    def refuse(self, why: str, now_ns: int) -> None:
        """Take note of a message that no observation can be made of."""
        self.refused += 1
        self._bad = now_ns, why

    def _checked_stamp(self, message: Message, now_ns: int) -> int:
        """When a message was taken.

        Raises:
            RejectedObservation: if it would be refused as an observation or a command.
        """
        source = self.source
        if self.camera is not None:
            stamp = self.camera.stamp(message, now_ns)
            self._check_stamp(stamp, now_ns)
            return stamp
        size = source.kind.count(message, source.fields) if source.kind.count else source.size or 0
        if not source.kind.observed:  # its times lie ahead
            command_points(message, source, size=size, now_ns=now_ns)
            return now_ns
        stamp, values = measurement(message, source, size=size, now_ns=now_ns)
        if not np.isfinite(values).all():
            raise RejectedObservation(
                "not_finite", f"number {int(np.argmin(np.isfinite(values)))} is not finite"
            )
        self._check_stamp(stamp, now_ns)
        return stamp

    def _check_stamp(self, stamp: int, now_ns: int) -> None:
        check_age(self._slice, stamp, now_ns, may_lead=self._may_lead)
        if self._stamp is not None and stamp < self._stamp:
            late = (self._stamp - stamp) / SECOND
            self._stamp = stamp
            raise RejectedObservation("order", f"stamped {late:.3f} s before its predecessor")

    def rate(self) -> float | None:
        """Measurements a second, None where too few are there to tell."""
        if len(self._arrivals) < 2 or self._arrivals[-1] == self._arrivals[0]:
            return None
        return (len(self._arrivals) - 1) * SECOND / (self._arrivals[-1] - self._arrivals[0])

    def silence(self, now_ns: int) -> str | None:
        """How long nothing new was heard, naming the source, or None while something is."""
        if not self._arrivals:
            return f"{self.source.name}: nothing received on {self.source.topic}"
        age = (now_ns - self._arrivals[-1]) / SECOND
        if age > self.source.max_age:
            return f"{self.source.name}: nothing new for {age:.2f} s, max_age is {self.source.max_age:.2f} s"
        return None

    def refusal(self, now_ns: int) -> str | None:
        """What was wrong with the newest messages, naming the source, or None."""
        if self._bad is not None and 0 <= now_ns - self._bad[0] <= WINDOW:
            return f"{self.source.name}: {self._bad[1]}"
        return None

    def fault(self, now_ns: int) -> str | None:
        """Why an episode should not begin, naming the source, or None."""
        found = self.refusal(now_ns) or self.silence(now_ns)
        if found is not None or self._period_ns is None:
            return found
        rate, wanted = self.rate(), SECOND / self._period_ns
        if rate is None or self._arrivals[-1] - self._arrivals[0] < LISTENED - self._period_ns:
            return f"{self.source.name}: heard for less than {LISTENED / SECOND:g} s"
        if rate < SLOWEST * wanted:
            return f"{self.source.name}: {rate:.1f} Hz, slower than the {wanted:g} Hz of the demonstrations"
        return None
