"""The measured side of a controller: trajectories in, its state out at every update."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import rclpy
from control_msgs.msg import JointTrajectoryControllerState
from numpy.typing import NDArray
from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory

from ros_nodes.commands.chunk_messages import trajectory_message
from ros_nodes.commands.chunk_points import ChunkPoints
from ros_nodes.commands.trajectory_messages import nanoseconds

CONTROLLER, JOINTS = "pusher_controller", ("pusher_x", "pusher_y")


@dataclass
class Recording:
    """What a controller said of each update: time in s, commanded positions (J,), largest error of a joint."""

    times: list[float] = field(default_factory=list)
    positions: list[list[float]] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)

    def commanded(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Times (T,) in s and positions (T, J), each time once."""
        times, first = np.unique(self.times, return_index=True)
        return times, np.array(self.positions)[first]


class ControllerPeer(Node):
    """Publishes trajectories to a joint_trajectory_controller and records its state."""

    def __init__(self) -> None:
        super().__init__("seams")
        self.recording = Recording()
        self._publisher = self.create_publisher(JointTrajectory, f"{CONTROLLER}/joint_trajectory", 10)
        self.create_subscription(
            JointTrajectoryControllerState, f"{CONTROLLER}/controller_state", self._on_state, 100
        )

    def now(self) -> float:
        return float(self.get_clock().now().nanoseconds) / 1e9

    def spin_until(self, done: Callable[[], bool], *, seconds: float = 60.0) -> None:
        """Serve the node until something holds.

        Raises:
            RuntimeError: if it does not within so many seconds.
        """
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{CONTROLLER} did not answer within {seconds:g} s, see log.txt")
            rclpy.spin_once(self, timeout_sec=0.005)

    def wait_for_controller(self) -> None:
        """Until it updates, and takes trajectories."""
        self.recording = Recording()
        self.spin_until(lambda: bool(self._publisher.get_subscription_count() and self.recording.times))

    def send(self, points: ChunkPoints) -> None:
        self._publisher.publish(trajectory_message(points, JOINTS))

    def _on_state(self, state: JointTrajectoryControllerState) -> None:
        self.recording.times.append(nanoseconds(state.header.stamp) / 1e9)
        self.recording.positions.append(list(state.output.positions))
        self.recording.errors.append(max(map(abs, state.error.positions), default=0.0))
