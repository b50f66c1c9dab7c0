"""ros2_control's joint_trajectory_controller and the simulator's are sent the same, good and bad.

Each takes what the other takes, but for what the simulator refuses by intent (docs/ros.md), and what they are given
leads both along the same way.
"""

from __future__ import annotations

import copy
import math
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import launch_testing
import launch_testing.asserts
import node_actions
import numpy as np
from builtin_interfaces.msg import Duration, Time
from control_msgs.action import FollowJointTrajectory
from control_msgs.msg import JointTolerance, JointTrajectoryControllerState
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from rclpy.action import ActionClient
from ros_graph import RosGraph
from rosgraph_msgs.msg import Clock
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from ros_nodes.commands.trajectory_messages import nanoseconds, read_trajectory

LAUNCH_FILE = Path(__file__).resolve().parents[3] / "launch" / "ros2_control.launch.py"
JOINTS = ("pusher_x", "pusher_y")
SIMULATED = "simulated"
SECOND = 10**9
Goal = FollowJointTrajectory.Goal


def generate_test_description() -> tuple[LaunchDescription, dict[str, Any]]:
    simulator = node_actions.simulator(namespace=SIMULATED, max_steps=10**6)
    controllers = IncludeLaunchDescription(PythonLaunchDescriptionSource(str(LAUNCH_FILE)))
    return node_actions.description(controllers, simulator), {"simulator": simulator}


def duration(seconds: float) -> Duration:
    return Duration(sec=math.floor(seconds), nanosec=round(seconds % 1 * SECOND))


def trajectory(*points: tuple[float, ...], stamp_ns: int = 0, order: int = 0) -> JointTrajectory:
    """Points (time in s, position, velocity, acceleration) of both joints, as many of these as the order + 1."""
    message = JointTrajectory(joint_names=list(JOINTS))
    message.header.stamp = Time(sec=stamp_ns // SECOND, nanosec=stamp_ns % SECOND)
    for time, *numbers in points:
        names = ("positions", "velocities", "accelerations")[: order + 1]
        values = {name: [float(number)] * 2 for name, number in zip(names, numbers, strict=False)}
        message.points.append(JointTrajectoryPoint(time_from_start=duration(time), **values))
    return message


def of_point(index: int, **values: Any) -> Callable[[Goal, int], None]:
    def change(goal: Goal, now: int) -> None:
        for name, value in values.items():
            setattr(goal.trajectory.points[index], name, value)

    return change


def begun(seconds: float) -> Callable[[Goal, int], None]:
    """Stamped so many seconds from now."""

    def change(goal: Goal, now: int) -> None:
        stamp = now + round(seconds * SECOND)
        goal.trajectory.header.stamp = Time(sec=stamp // SECOND, nanosec=stamp % SECOND)

    return change


def named(*names: str) -> Callable[[Goal, int], None]:
    return lambda goal, now: setattr(goal.trajectory, "joint_names", list(names))


def tolerance(**values: Any) -> Callable[[Goal, int], None]:
    return lambda goal, now: setattr(goal, "path_tolerance", [JointTolerance(**values)])


BOTH_TAKE: dict[str, Callable[[Goal, int], None]] = {
    "plain": lambda goal, now: None,
    "first point in the past": begun(-1.0),
    "in the future": begun(1.0),
    "negative first time": of_point(0, time_from_start=duration(-0.5)),
    "joints in another order": named(*reversed(JOINTS)),
    "last velocity 1e-7": of_point(-1, velocities=[0.0, 1e-7]),
    "tolerance": tolerance(name="pusher_x", position=5.0),
}
BOTH_REFUSE: dict[str, Callable[[Goal, int], None]] = {
    "over": begun(-60.0),
    "unknown joint": named("pusher_x", "elbow"),
    "one joint": named("pusher_x"),
    "no points": lambda goal, now: setattr(goal.trajectory, "points", []),
    "times that do not increase": of_point(1, time_from_start=duration(0.5)),
    "velocities of one joint": of_point(0, velocities=[1.0]),
    "efforts": of_point(0, effort=[1.0, 1.0]),
    "last velocity 2e-7": of_point(-1, velocities=[0.0, 2e-7]),
}
THE_SIMULATOR_REFUSES: dict[str, Callable[[Goal, int], None]] = {
    "tolerance of an unknown joint": tolerance(name="elbow", position=5.0),
    "negative tolerance": tolerance(name="pusher_x", position=-0.5),
    "accelerations without velocities": of_point(0, accelerations=[1.0, 1.0]),
    "a joint twice": named("pusher_x", "pusher_x"),
    "NaN": of_point(0, positions=[math.nan, 1.0]),
}
"""And the controller does not. What makes it command anything comes last."""


class TestConformity(unittest.TestCase):
    graph: ClassVar[RosGraph]
    states: ClassVar[list[Any]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.graph = RosGraph()
        cls.states = cls.graph.listen(
            JointTrajectoryControllerState, "/pusher_controller/controller_state", depth=100
        )
        cls.publisher = cls.graph.publisher(JointTrajectory, "/pusher_controller/joint_trajectory")
        cls.clock = cls.graph.listen(Clock, "/clock")
        names = ("/pusher_controller", f"/{SIMULATED}/pusher_controller")
        cls.clients = [
            ActionClient(cls.graph.node, FollowJointTrajectory, f"{name}/follow_joint_trajectory")
            for name in names
        ]
        for client in cls.clients:
            cls.graph.spin_until(client.server_is_ready, "an action server")

    @classmethod
    def tearDownClass(cls) -> None:
        cls.graph.close()

    def now(self) -> int:
        return int(self.graph.node.get_clock().now().nanoseconds)

    def accepted(self, change: Callable[[Goal, int], None]) -> tuple[bool, bool]:
        """Whether the controller takes a goal, and whether the simulator does."""
        here = self.states[-1].feedback.positions[0]
        futures = []
        for client, now in zip(self.clients, (self.now(), nanoseconds(self.clock[-1].clock)), strict=True):
            goal = Goal(trajectory=trajectory((0.5, here), (10.0, here + 1)))
            change(goal, now)
            futures.append(client.send_goal_async(copy.deepcopy(goal)))
        self.graph.spin_until(lambda: all(future.done() for future in futures), "answers to goals")
        there, simulated = (bool(future.result().accepted) for future in futures)
        return there, simulated

    def test_both_take_and_refuse_the_same_but_for_what_the_simulator_refuses_by_intent(self) -> None:
        for changes, expected in (
            (BOTH_TAKE, (True, True)),
            (BOTH_REFUSE, (False, False)),
            (THE_SIMULATOR_REFUSES, (True, False)),
        ):
            answers = {name: self.accepted(change) for name, change in changes.items()}
            different = {name: answer for name, answer in answers.items() if answer != expected}
            assert not different, f"{different} should be {expected}"

    def follow(self, message: JointTrajectory) -> float:
        """Largest distance in px of the controller's way from the simulator's, from when it takes a trajectory."""
        before = len(self.states)
        end = nanoseconds(message.header.stamp) + nanoseconds(message.points[-1].time_from_start)
        self.publisher.publish(message)
        self.graph.spin_until(lambda: nanoseconds(self.states[-1].header.stamp) > end, "its end")
        states = self.states[before:]
        times = [nanoseconds(state.header.stamp) for state in states]

        def distance(taken: int) -> float:
            """If it was taken at that update."""
            feedback = states[taken].feedback
            simulated = read_trajectory(
                message,
                JOINTS,
                now=times[taken],
                position=feedback.positions,
                velocity=feedback.velocities,
            )
            return max(
                float(np.abs(np.subtract(simulated.sample(time), state.reference.positions)).max())
                for time, state in zip(times[taken:], states[taken:], strict=True)
                if time <= end
            )

        # Nobody tells at which update the controller took it: early on.
        return min(distance(taken) for taken in range(len(states) // 2))

    def test_a_way_that_both_take_is_the_same(self) -> None:
        ways = {
            "lines": (0, [(0.3, 2.0), (0.6, -3.0)]),
            "cubics": (1, [(0.3, 2.0, 30.0), (0.6, -3.0, 0.0)]),
            "quintics": (2, [(0.3, 2.0, 30.0, -200.0), (0.6, -3.0, 0.0, 0.0)]),
            "a first point in the past": (1, [(-0.2, -9.0, 0.0), (0.2, 4.0, 20.0), (0.6, -3.0, 0.0)]),
        }
        for name, (order, points) in ways.items():
            here, now = self.states[-1].feedback.positions[0], self.now()
            absolute = [(time, here + way, *rest) for time, way, *rest in points]
            message = trajectory(*absolute, stamp_ns=now, order=order)
            distance = self.follow(message)
            print(f"{name}: {distance:.4f} px apart")
            assert distance < 0.1, name
            if order:  # what the velocities change is more than that
                read = [
                    read_trajectory(way, JOINTS, now=now, position=(here, here))
                    for way in (message, trajectory(*absolute, stamp_ns=now))
                ]
                times = [now + SECOND * tenth // 20 for tenth in range(12)]
                apart = [np.subtract(*(way.sample(time) for way in read)) for time in times]
                assert np.abs(apart).max() > 0.5, name

    def test_a_way_that_replaces_another_begins_where_the_joints_are_and_as_fast(self) -> None:
        here, now = self.states[-1].feedback.positions[0], self.now()
        self.publisher.publish(trajectory((1.0, here + 30, 0.0), stamp_ns=now, order=1))
        self.graph.spin_until(
            lambda: nanoseconds(self.states[-1].header.stamp) > now + SECOND // 2, "it is on its way"
        )
        distance = self.follow(trajectory((0.5, here, 0.0), stamp_ns=self.now(), order=1))
        print(f"replaced: {distance:.4f} px apart")
        assert distance < 0.1


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_all_end_cleanly(self, proc_info) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
