"""Whether a controller runs, by the state that joint_trajectory_controller publishes at every update."""

from __future__ import annotations

import time

from control_msgs.msg import JointTrajectoryControllerState
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy

STATE = "controller_state"
TYPE = "control_msgs/msg/JointTrajectoryControllerState"
SILENCE = 0.5
"""Seconds without an update after which a controller counts as not running."""


class ControllerWatch:
    """Listens to a controller's state, where there is one: an inactive, hanging or killed controller falls silent.

    Neither its topic nor its action server tells: an inactive controller keeps both, and DDS takes 10 s to notice
    that a process was killed.

    Args:
        node: node to listen with.
        interface: name of the controller's topic or action; the state's topic lies beside it.
    """

    def __init__(self, node: LifecycleNode, interface: str) -> None:
        self._node = node
        controller, slash, _ = interface.rpartition("/")
        # Raw: a controller may update 1000 times a second, and only that it does is of interest.
        self._subscription = node.create_subscription(
            JointTrajectoryControllerState,
            f"{controller}{slash}{STATE}",
            self._on_state,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
            raw=True,
        )
        self._heard: float | None = None  # or when its state's topic appeared

    def silence(self) -> str | None:
        """Why the controller seems not to run, or None; None as well for one that publishes no state."""
        topic, now = self._subscription.topic_name, time.monotonic()
        publishers = self._node.get_publishers_info_by_topic(topic)
        if not any(publisher.topic_type == TYPE for publisher in publishers):
            self._heard = None
            return None
        if self._heard is None:
            self._heard = now
        seconds = now - self._heard
        if seconds <= SILENCE:
            return None
        return f"{topic} is silent for {seconds:.1f} s: the controller is inactive, or hangs"

    def close(self) -> None:
        self._node.destroy_subscription(self._subscription)

    def _on_state(self, message: bytes) -> None:
        self._heard = time.monotonic()
