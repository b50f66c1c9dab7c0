"""Unmodified command line tools of ROS, each as a process, on the simulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def test_the_simulator_serves_the_command_line_tools(stack: Callable[[str], Any], graph: Any) -> None:
    stack("realtime").start_simulator()
    graph.spin_until(lambda: graph.node.count_publishers("/clock"), "the simulator is up")
    goal = (
        "{trajectory: {joint_names: [pusher_x, pusher_y], points: "
        "[{positions: [100.0, 100.0], time_from_start: {sec: 1}}]}}"
    )
    action = "/pusher_controller/follow_joint_trajectory"
    output = graph.run(
        "ros2", "action", "send_goal", "--feedback", action, "control_msgs/action/FollowJointTrajectory", goal
    )
    assert "Goal accepted" in output
    assert "Feedback" in output
    assert "SUCCEEDED" in output

    hz = graph.start("ros2", "topic", "hz", "/joint_states")
    graph.spin_until(lambda: "average rate" in graph.output(hz), "a rate")
    graph.stop(hz)
