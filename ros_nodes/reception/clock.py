"""Simulated time that may be anything: rclpy dies of some of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rosgraph_msgs.msg import Clock

from policy.robot.times import ImpossibleTimeError, time_ns
from ros_nodes.reception.refusals import Refusals


class ClockGuard(Node):
    """A node that refuses impossible times on `/clock`, and keeps the time that it had.

    rclpy's TimeSource makes a time of each message in the subscription's callback. That raises for negative seconds,
    which ends the node; seconds and nanoseconds that together leave the range of a message's stamp wrap in the next
    stamp that the node sends. TimeSource subscribes through its node, in the node's constructor or whenever
    `use_sim_time` becomes true, so the callback is wrapped there. Comes before the node's class in the bases.
    """

    _clock_refusals: Refusals | None = None  # made at the first need, which is in the constructor of Node

    @property
    def clock_refusals(self) -> Refusals:
        """What was refused on `/clock` so far."""
        if self._clock_refusals is None:
            self._clock_refusals = Refusals("time", self.get_logger().warning)
        return self._clock_refusals

    def create_subscription(
        self, msg_type: Any, topic: str, callback: Callable[[Any], Any], *arguments: Any, **options: Any
    ) -> Any:
        if msg_type is Clock:
            callback = self._guarded(callback)
        return super().create_subscription(msg_type, topic, callback, *arguments, **options)

    def _guarded(self, callback: Callable[[Clock], Any]) -> Callable[[Clock], None]:
        def receive(message: Clock) -> None:
            try:
                time_ns(message.clock)
            except ImpossibleTimeError as error:
                self.clock_refusals.add("clock", "time", str(error))
                return
            callback(message)

        return receive
