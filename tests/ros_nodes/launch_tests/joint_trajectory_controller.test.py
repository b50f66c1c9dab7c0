"""The policy moves ros2_control's own joint_trajectory_controller on mock hardware, by topic and by action.

A path tolerance of 8 px stops the robot whenever the controller cannot follow, as config/ros2_control.yaml has it.
"""

from __future__ import annotations

import time
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import launch_testing
import launch_testing.asserts
import node_actions
import numpy as np
import torch
from control_msgs.msg import JointTrajectoryControllerState
from controller_manager_msgs.srv import SwitchController
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from policy_peer import PolicyPeer, observation
from ros_graph import RosGraph

from policy import DiffusionPolicy, Range

REPOSITORY = Path(__file__).resolve().parents[3]
LAUNCH_FILE = REPOSITORY / "launch" / "ros2_control.launch.py"
REFUSALS = ("tolerance violation", "rejected", "Can't accept", "Empty trajectory", "does not match")
ACTIONS = (250.0, 262.0)
"""Range in px of the policy's actions, next to where the mock hardware starts."""


def generate_test_description() -> tuple[LaunchDescription, dict[str, Any]]:
    node = node_actions.policy(use_sim_time=False)
    controllers = IncludeLaunchDescription(PythonLaunchDescriptionSource(str(LAUNCH_FILE)))
    return node_actions.description(controllers, node), {"node": node}


def calm_policy(checkpoint: str, folder: str) -> str:
    """The file of a policy like another one, whose actions stay within a few px."""
    policy = DiffusionPolicy.load(checkpoint)
    low, high = (torch.full((2,), value) for value in ACTIONS)
    normalizer = replace(policy.normalizer, action=Range(low, high))
    file = Path(folder) / "calm.safetensors"
    replace(policy, normalizer=normalizer).save(file)
    return str(file)


def text_of(proc_output: Any) -> str:
    """All that the processes have printed."""
    return "".join(output.text.decode(errors="replace") for output in proc_output)


class TestJointTrajectoryController(unittest.TestCase):
    graph: ClassVar[RosGraph]
    policy: ClassVar[PolicyPeer]
    states: ClassVar[list[Any]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.graph = RosGraph()
        cls.policy = PolicyPeer(cls.graph)
        cls.states = cls.graph.listen(
            JointTrajectoryControllerState, "/pusher_controller/controller_state", depth=100
        )

    @classmethod
    def tearDownClass(cls) -> None:
        cls.graph.close()

    def start(self, test_args: dict[str, str], output: str) -> None:
        self.addCleanup(self.end)
        checkpoint = calm_policy(test_args["checkpoint"], test_args["folder"])
        for name, value in (("output", output), ("checkpoint", checkpoint)):
            self.graph.set_parameters("policy", **{name: value})
        # The controllers measure the pusher; the test is the camera that sees the block.
        assert self.policy.transition("configure")
        assert self.policy.transition("activate")
        self.graph.spin_until(self.policy.keypoints.get_subscription_count, "the policy listens")

    def end(self) -> None:
        if self.policy.state() == "active":
            assert self.policy.transition("deactivate")
        if self.policy.state() == "inactive":
            assert self.policy.transition("cleanup")

    def see(self, done: Any, what: str) -> None:
        """Send keypoints, one observation a control period, until something holds."""
        sent = 0.0

        def go_on() -> bool:
            nonlocal sent
            if time.monotonic() - sent >= 0.1:
                sent = time.monotonic()
                self.policy.send_keypoints(self.policy.now(), observation(0)[:18])
            return bool(done())

        self.graph.spin_until(go_on, what)

    def chunks(self) -> int:
        return int(self.policy.values().get("chunks", 0))

    def positions(self, since: int) -> tuple[Any, Any]:
        """Times and commanded positions since a number of states."""
        states = self.states[since:]
        times = np.array([state.header.stamp.sec + state.header.stamp.nanosec / 1e9 for state in states])
        times, first = np.unique(times, return_index=True)
        return times, np.array([list(states[index].output.positions) for index in first])

    def assert_stands_still_soon(self) -> None:
        """A stop takes a control period, and a message its way."""
        self.graph.spin_for(0.3)
        before = len(self.states)
        self.graph.spin_until(lambda: len(self.states) > before + 30, "the controller goes on")
        _, positions = self.positions(before)
        assert np.ptp(positions, axis=0).max() < 0.01

    def check(self, test_args: dict[str, str], proc_output: Any, output: str) -> None:
        printed = len(text_of(proc_output))
        self.start(test_args, output)
        before = len(self.states)
        self.see(lambda: self.chunks() >= 8, "chunks")
        values = self.policy.values()
        for name in ("goals_rejected", "goals_aborted", "goals_unanswered", "non_finite_chunks"):
            assert values[name] == "0", (name, values)
        times, positions = self.positions(before)
        assert np.ptp(positions, axis=0).max() > 1, "the robot moves"
        speed = np.abs(np.diff(positions, axis=0) / np.diff(times)[:, None]).max()
        print(f"{output}: fastest {speed:.0f} px/s")
        # Points are at most 12 px and at least 0.1 s apart. A jump onto one within an update would be 1200 px/s.
        assert speed < 400
        assert self.policy.transition("deactivate")
        self.assert_stands_still_soon()
        told = text_of(proc_output)[printed:]
        assert not [text for text in REFUSALS if text in told], told[-3000:]

    def test_it_follows_chunks_by_topic_and_stops(self, test_args, proc_output) -> None:
        self.check(test_args, proc_output, "topic")

    def test_it_follows_chunks_by_action_and_stops(self, test_args, proc_output) -> None:
        self.check(test_args, proc_output, "follow_joint_trajectory")

    def test_it_stops_when_observations_are_lost(self, test_args) -> None:
        self.start(test_args, "topic")
        self.see(lambda: self.chunks() >= 2, "chunks")
        stops = int(self.policy.values()["stops"])
        self.graph.spin_until(lambda: "keypoints: " in self.policy.diagnostics[-1].message, "they are missed")
        self.assert_stands_still_soon()
        assert int(self.policy.values()["stops"]) <= stops + 1

    def test_a_controller_that_is_switched_off_is_named_and_served_again(self, test_args) -> None:
        for output in ("topic", "follow_joint_trajectory"):
            self.start(test_args, output)
            self.see(lambda: self.chunks() >= 2, "chunks")
            self.switch(deactivate_controllers=["pusher_controller"])
            off = time.monotonic()

            def named() -> bool:
                return "controller_state is silent" in self.policy.diagnostics[-1].message

            self.see(named, "the silent controller is named")
            print(f"{output}: named after {time.monotonic() - off:.2f} s")
            self.switch(activate_controllers=["pusher_controller"])
            before = self.chunks()
            self.see(lambda before=before: self.chunks() >= before + 2, "chunks again")
            self.end()

    def switch(self, **controllers: list[str]) -> None:
        request = SwitchController.Request(strictness=SwitchController.Request.STRICT, **controllers)
        assert self.graph.call(SwitchController, "/controller_manager/switch_controller", request).ok


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_all_end_cleanly(self, proc_info) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
