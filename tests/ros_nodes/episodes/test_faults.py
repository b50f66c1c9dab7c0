from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory


def test_when_the_policy_is_killed_the_pusher_holds_its_last_point_and_a_restarted_policy_resumes(
    stack: Callable[[str], Any], graph: Any
) -> None:
    nodes = stack("realtime")
    trajectories: list[Any] = []
    joints: list[Any] = []
    graph.node.create_subscription(
        JointTrajectory, "/pusher_controller/joint_trajectory", trajectories.append, 100
    )
    graph.node.create_subscription(JointState, "/joint_states", joints.append, 100)
    nodes.start_simulator(real_time_factor=2.0, max_steps=10**6)
    nodes.start_policy()
    graph.spin_until(lambda: len(trajectories) >= 4, "the policy acts")

    graph.stop(nodes.policy, signal.SIGKILL)
    killed_at = nodes.step
    graph.spin_until(lambda: nodes.step >= killed_at + 40, "the simulator goes on")
    last_point = list(trajectories[-1].points[-1].positions)
    assert list(joints[-1].position) == pytest.approx(last_point, abs=0.5)
    assert list(joints[-10].position) == pytest.approx(last_point, abs=0.5)

    graph.spin_until(lambda: not graph.node.count_publishers("/policy/predicted_path"), "DDS gives it up")
    before = len(trajectories)
    nodes.start_policy()
    graph.spin_until(lambda: len(trajectories) >= before + 3, "the restarted policy acts")
    graph.spin_until(
        lambda: list(joints[-1].position) != pytest.approx(last_point, abs=20), "the pusher moves again"
    )


def test_when_the_simulator_is_restarted_the_policy_goes_on(stack: Callable[[str], Any], graph: Any) -> None:
    nodes = stack("lockstep")
    nodes.start_simulator(seed=8)
    nodes.start_policy()
    graph.call(Trigger, "/pusht_simulator/reset")
    graph.spin_until(lambda: nodes.step >= 24, "three chunks are executed")
    graph.stop(nodes.simulator, signal.SIGKILL)
    first_life = [status for status in nodes.statuses if status[1] <= 24]

    graph.spin_until(lambda: not graph.node.count_publishers("/clock"), "DDS gives it up")
    nodes.statuses.clear()
    nodes.start_simulator(seed=8)
    graph.call(Trigger, "/pusht_simulator/reset")
    graph.spin_until(lambda: nodes.step >= 24, "three chunks are executed again")
    # The clock went backwards, so the policy starts anew, noises included.
    assert [status for status in nodes.statuses if status[1] <= 24] == first_life


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
