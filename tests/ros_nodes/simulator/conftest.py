from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

STEP = 100_000_000
"""A control step in ns."""


def stamp_of(message: Any) -> int:
    """In ns."""
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


class Simulator:
    """A simulator process, with an ear on what it says and a hand on its pusher."""

    def __init__(self, graph: Any, **parameters: Any) -> None:
        from sensor_msgs.msg import JointState
        from std_msgs.msg import Float64MultiArray
        from trajectory_msgs.msg import JointTrajectory

        self.graph = graph
        self.process = graph.start("ros_nodes.simulator.simulator_node", **parameters)
        self.publisher = graph.publisher(JointTrajectory, "/pusher_controller/joint_trajectory")
        self.joints = graph.listen(JointState, "/joint_states")
        self.episode = graph.listen(Float64MultiArray, "/pusht_simulator/episode")

    def reset(self, seed: int) -> str:
        """Begin an episode and wait until it is heard of; returns the service's message."""
        from std_srvs.srv import Trigger

        self.graph.set_parameters("pusht_simulator", seed=seed)
        before = self.time if self.joints else 0
        self.episode.clear()
        message = str(self.graph.call(Trigger, "/pusht_simulator/reset").message)
        # The clock jumps at a reset; what comes late from before is dropped.
        self.graph.spin_until(
            lambda: (
                (self.joints and self.time > before + 5 * STEP)
                and any(status.data[:2].tolist() == [seed, 0] for status in self.episode)
            ),
            "a new episode",
        )
        self.joints[:] = [observed for observed in self.joints if stamp_of(observed) > before + 5 * STEP]
        return message

    def send(self, targets: Any, start: int = 0) -> None:
        """Send a trajectory: targets (P, 2), one per control step after a start in ns."""
        self.publisher.publish(self.trajectory(targets, start))

    @staticmethod
    def trajectory(targets: Any, start: int = 0) -> Any:
        from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

        message = JointTrajectory(joint_names=["pusher_x", "pusher_y"])
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(start, 10**9)
        for number, target in enumerate(targets, start=1):
            point = JointTrajectoryPoint(positions=[float(value) for value in target])
            point.time_from_start.sec, point.time_from_start.nanosec = divmod(number * STEP, 10**9)
            message.points.append(point)
        return message

    @property
    def time(self) -> int:
        return stamp_of(self.joints[-1])

    @property
    def position(self) -> list[float]:
        return list(self.joints[-1].position)

    def wait(self, time: int) -> None:
        """Until it observed a time in ns."""
        self.graph.spin_until(lambda: self.joints and self.time >= time, f"simulation time {time}")

    def wait_for_position(self, position: Any) -> None:
        """Until the pusher is at a position in px.

        What was received last may be long past on a busy machine, so that no time counts from it: whoever waits for
        an answer, and then for so many steps more, may read where the pusher was before.
        """
        expected = pytest.approx(list(position), abs=0.5)
        self.graph.spin_until(lambda: self.position == expected, f"the pusher at {position}")

    def wait_for_step(self, step: int) -> None:
        self.graph.spin_until(lambda: self.episode[-1].data[1] >= step, f"step {step}")

    def positions(self) -> list[list[float]]:
        """One per time that it observed, in order."""
        by_time = {stamp_of(message): list(message.position) for message in self.joints}
        return [by_time[time] for time in sorted(by_time)]


@pytest.fixture
def simulate(graph: Any) -> Callable[..., Simulator]:
    return lambda **parameters: Simulator(graph, **parameters)
