"""policy.launch.py's policy moves ros2_control's own joint_trajectory_controller on mock hardware, in both outputs.

A path tolerance of 8 px stops the robot whenever the controller cannot follow, as config/ros2_control.yaml has it.
"""

from __future__ import annotations

import os
import signal
import time
import unittest
from typing import Any

import launch_testing
import launch_testing.tools
import node_actions
import numpy as np
from control_msgs.action import FollowJointTrajectory
from controller_manager_msgs.srv import SwitchController
from controller_test_case import LAUNCH_FOLDER, OUTPUTS, ControllerTestCase
from launch import LaunchDescription
from launch.actions import ExecuteProcess, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from rclpy.action import ActionClient

from ros_nodes.commands.chunk_messages import trajectory_message
from ros_nodes.commands.chunk_points import stop_at

REFUSALS = ("tolerance violation", "rejected", "Can't accept", "Empty trajectory", "does not match")
JOINTS = ("pusher_x", "pusher_y")
KEEPS_ON = ["sleep", "infinity"]
BY_ACTION = node_actions.policy("by_action", use_sim_time=False, output="follow_joint_trajectory")


def generate_test_description() -> tuple[LaunchDescription, dict[str, Any]]:
    arguments = {"params_file": str(node_actions.ROBOT), "autostart": "false"}
    policy = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(LAUNCH_FOLDER / "policy.launch.py")),
        launch_arguments=list(arguments.items()),
    )
    # A launch whose processes are all over ends, and its tests with it.
    return node_actions.description(policy, ExecuteProcess(cmd=KEEPS_ON)), {}


class TestJointTrajectoryController(ControllerTestCase):
    def check(self, test_args: dict[str, str], output: str) -> None:
        printed = len(self.controllers_said())
        self.start(test_args, output)
        before = len(self.states)
        self.see_chunks(8)
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
        told = self.controllers_said()[printed:]
        assert not [text for text in REFUSALS if text in told], told[-3000:]

    def test_it_follows_chunks_by_topic_and_stops(self, test_args) -> None:
        self.check(test_args, "topic")

    def test_it_follows_chunks_by_action_and_stops(self, test_args) -> None:
        self.check(test_args, "follow_joint_trajectory")

    def test_it_stops_when_observations_are_lost(self, test_args) -> None:
        self.start(test_args, "topic")
        self.see_chunks(2)
        stops = int(self.policy.values()["stops"])
        self.graph.spin_until(lambda: "keypoints: " in self.policy.diagnostics[-1].message, "they are missed")
        self.assert_stands_still_soon()
        assert int(self.policy.values()["stops"]) <= stops + 1

    def test_one_that_is_switched_off_is_named_and_served_again(self, test_args) -> None:
        for output in OUTPUTS:
            self.start(test_args, output)
            self.see_chunks(2)
            self.switch(deactivate_controllers=["pusher_controller"])
            self.see_that_it_is_named(output)
            self.switch(activate_controllers=["pusher_controller"])
            self.see_chunks(2)
            self.end()

    def test_one_that_is_killed_is_named_and_served_again(self, test_args) -> None:
        for output in OUTPUTS:
            self.start(test_args, output)
            self.see_chunks(2)
            self.kill_controllers()
            self.see_that_it_is_named(output)
            self.start_controllers()
            self.see_chunks(2)
            self.end()

    def see_that_it_is_named(self, output: str) -> None:
        begun = time.monotonic()
        self.see(lambda: "controller_state is silent" in self.policy.diagnostics[-1].message, "it is named")
        print(f"{output}: named after {time.monotonic() - begun:.2f} s")

    def switch(self, **controllers: list[str]) -> None:
        request = SwitchController.Request(strictness=SwitchController.Request.STRICT, **controllers)
        assert self.graph.call(SwitchController, "/controller_manager/switch_controller", request).ok

    def test_a_goal_of_another_client_is_told_of_and_replaced_by_the_next_chunk(self, test_args) -> None:
        self.start(test_args, "follow_joint_trajectory")
        self.see_chunks(2)
        action = "/pusher_controller/follow_joint_trajectory"
        client = ActionClient(self.graph.node, FollowJointTrajectory, action)
        self.graph.spin_until(client.server_is_ready, "the action server")
        other = stop_at(
            np.array([256.0, 256.0]), now_ns=self.policy.now(), period_ns=5 * 10**9, velocities=True
        )
        goal = FollowJointTrajectory.Goal(trajectory=trajectory_message(other, JOINTS))
        future = client.send_goal_async(goal)
        self.see(future.done, "an answer")
        assert future.result().accepted
        result = future.result().get_result_async()
        self.see(result.done, "its end")
        assert result.result().result.error_code == FollowJointTrajectory.Result.INVALID_GOAL
        self.see_chunks(2)
        values = self.policy.values()
        assert int(values["goals_aborted"]) == 1, values
        assert (values["goals_rejected"], values["goals_unanswered"]) == ("0", "0")
        client.destroy()

    def test_the_robot_stops_when_the_policys_process_is_terminated(
        self, launch_service, proc_info, proc_output, test_args
    ) -> None:
        # Its last chunk would take 1.5 s.
        self.bring_up(test_args, output="topic", trajectory__tail_points=7)
        self.see_chunks(2)
        (policy,) = [info for info in proc_info if info.cmd != KEEPS_ON]
        os.kill(policy.pid, signal.SIGTERM)
        self.assert_stands_still_soon()
        self.policy.name = "/by_action"
        with launch_testing.tools.launch_process(launch_service, BY_ACTION, proc_info, proc_output):
            self.bring_up(test_args, trajectory__tail_points=7)
            self.see_chunks(2)
            process = node_actions.Process(BY_ACTION, proc_info, proc_output)
            os.kill(process.pid, signal.SIGTERM)
            self.assert_stands_still_soon()
            assert process.wait_for_shutdown(timeout=60)


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_the_policies_end_cleanly(self, proc_info) -> None:
        codes = {info.process_name: info.returncode for info in proc_info if info.cmd != KEEPS_ON}
        assert len(codes) == 2
        assert set(codes.values()) == {0}, codes
