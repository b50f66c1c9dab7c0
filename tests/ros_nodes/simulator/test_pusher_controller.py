"""The action /pusher_controller/follow_joint_trajectory, with a real action client."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration
from control_msgs.action import FollowJointTrajectory
from control_msgs.msg import JointTolerance
from rclpy.action import ActionClient
from std_srvs.srv import Trigger

Result = FollowJointTrajectory.Result
STEP = 100_000_000


class GoalSender:
    """An action client whose futures the graph's executor serves."""

    def __init__(self, simulator: Any) -> None:
        self.simulator = simulator
        self.graph = simulator.graph
        self.feedback: list[FollowJointTrajectory.Feedback] = []
        self.client = ActionClient(
            self.graph.node, FollowJointTrajectory, "/pusher_controller/follow_joint_trajectory"
        )
        self.graph.spin_until(self.client.server_is_ready, "the action server")

    def send(self, targets: Any, start: int = 0, **goal: Any) -> Any:
        """Send a goal; returns its handle."""
        request = FollowJointTrajectory.Goal(trajectory=self.simulator.trajectory(targets, start), **goal)
        future = self.client.send_goal_async(
            request, feedback_callback=lambda message: self.feedback.append(message.feedback)
        )
        self.graph.spin_until(future.done, "an answer to the goal")
        return future.result()

    def result(self, handle: Any) -> tuple[int, int, str]:
        """Status, error code and error text of an accepted goal, once it has ended."""
        assert handle.accepted
        future = handle.get_result_async()
        self.graph.spin_until(future.done, "the result of the goal")
        answer = future.result()
        return answer.status, answer.result.error_code, answer.result.error_string


@pytest.fixture
def running(simulate: Any) -> GoalSender:
    """A simulator in real time, five times as fast as the world."""
    simulator = simulate(real_time_factor=5.0)
    simulator.wait(10 * STEP)
    return GoalSender(simulator)


@pytest.fixture
def stepping(simulate: Any) -> GoalSender:
    """A simulator in lockstep, at the start of an episode."""
    simulator = simulate(mode="lockstep")
    simulator.reset(0)
    return GoalSender(simulator)


def test_a_goal_succeeds_at_its_end_with_feedback_on_the_way(running: GoalSender) -> None:
    handle = running.send(np.linspace(running.simulator.position, (300.0, 300.0), 20))
    # Before the result, with which the client drops the feedback that it has not read yet.
    running.graph.spin_until(lambda: len(running.feedback) >= 10, "feedback")
    assert running.result(handle) == (GoalStatus.STATUS_SUCCEEDED, Result.SUCCESSFUL, "goal reached")
    last = running.feedback[-1]
    assert list(last.joint_names) == ["pusher_x", "pusher_y"]
    assert (
        np.abs(np.array(last.desired.positions) - 300.0)
        <= np.abs(np.array(running.feedback[0].desired.positions) - 300.0)
    ).all()
    assert list(last.error.positions) == pytest.approx(
        [want - have for want, have in zip(last.desired.positions, last.actual.positions, strict=True)]
    )


def test_in_lockstep_a_goal_moves_the_clock_to_its_end_and_no_further(stepping: GoalSender) -> None:
    result = stepping.result(stepping.send(np.full((12, 2), 256.0), stepping.simulator.time))
    assert result == (GoalStatus.STATUS_SUCCEEDED, Result.SUCCESSFUL, "goal reached")
    stepping.simulator.wait_for_step(12)
    stepping.graph.spin_for(0.5)
    assert stepping.simulator.episode[-1].data[1] == 12


def test_a_new_goal_preempts_the_running_one(running: GoalSender) -> None:
    first = running.send(np.full((1000, 2), 400.0))
    second = running.send([(100.0, 120.0)])
    assert running.result(first) == (
        GoalStatus.STATUS_ABORTED,
        Result.INVALID_GOAL,
        "preempted by a new goal",
    )
    assert running.result(second)[0] == GoalStatus.STATUS_SUCCEEDED
    running.simulator.wait_for_position([100.0, 120.0])


def test_a_cancelled_goal_ends_where_the_pusher_is(running: GoalSender) -> None:
    start = np.array(running.simulator.position)
    target = 500.0 - start
    handle = running.send(np.linspace(start, target, 2000))
    running.graph.spin_until(
        lambda: np.linalg.norm(running.simulator.position - start) > 1, "the pusher is on its way"
    )
    future = handle.cancel_goal_async()
    running.graph.spin_until(future.done, "an answer to the cancellation")
    status, _, text = running.result(handle)
    assert (status, text) == (GoalStatus.STATUS_CANCELED, "cancelled, holding position")
    running.graph.spin_until(
        lambda: np.ptp(running.simulator.positions()[-10:], axis=0).max() < 0.01, "the pusher stands still"
    )
    assert np.linalg.norm(running.simulator.position - target) > 20, "it stopped on the way"


def test_a_path_tolerance_that_is_violated_aborts_the_goal_and_holds(running: GoalSender) -> None:
    x, y = running.simulator.position
    handle = running.send(
        [(512.0 - x, 512.0 - y)] * 20, path_tolerance=[JointTolerance(name="pusher_x", position=1.0)]
    )
    assert running.result(handle) == (
        GoalStatus.STATUS_ABORTED,
        Result.PATH_TOLERANCE_VIOLATED,
        "path tolerance violated, holding position",
    )


def test_a_goal_that_cannot_be_reached_in_time_is_aborted(running: GoalSender) -> None:
    handle = running.send(
        [(2000.0, 2000.0)],  # the pusher does not leave the workspace
        goal_tolerance=[JointTolerance(name="pusher_x", position=1.0)],
        goal_time_tolerance=Duration(sec=1),
    )
    assert running.result(handle)[:2] == (GoalStatus.STATUS_ABORTED, Result.GOAL_TOLERANCE_VIOLATED)


def test_a_goal_that_is_reached_late_but_in_time_succeeds(running: GoalSender) -> None:
    handle = running.send(
        [(256.0, 256.0)],
        goal_tolerance=[JointTolerance(name=name, position=0.5) for name in ("pusher_x", "pusher_y")],
        goal_time_tolerance=Duration(sec=20),
    )
    # The last feedback is of the step that ends the goal: it would stay too far away if the goal ended too soon.
    there = pytest.approx([256.0, 256.0], abs=0.5)
    running.graph.spin_until(
        lambda: running.feedback and list(running.feedback[-1].actual.positions) == there,
        "the pusher at its goal",
    )
    assert running.result(handle)[0] == GoalStatus.STATUS_SUCCEEDED


@pytest.mark.parametrize(
    ("target", "tolerances", "reason"),
    [
        (float("nan"), [], "positions of point 0 are not finite"),
        (1.0, [JointTolerance(name="elbow")], "path_tolerance names joint 'elbow'"),
    ],
)
def test_a_bad_goal_is_rejected_and_the_running_one_goes_on(
    running: GoalSender, target: float, tolerances: list[JointTolerance], reason: str
) -> None:
    first = running.send(np.full((30, 2), 300.0))
    assert not running.send([(target, 1.0)], path_tolerance=tolerances).accepted
    assert running.result(first)[0] == GoalStatus.STATUS_SUCCEEDED
    assert reason in running.graph.output(running.simulator.process)


def test_a_reset_ends_the_running_goal(running: GoalSender) -> None:
    handle = running.send(np.full((1000, 2), 300.0))
    running.graph.call(Trigger, "/pusht_simulator/reset")
    assert running.result(handle)[1:] == (Result.INVALID_GOAL, "the simulator was reset")


def test_a_trajectory_from_the_topic_takes_over_and_the_goal_ends_with_it(running: GoalSender) -> None:
    handle = running.send(np.full((1000, 2), 300.0))
    running.simulator.send([(100.0, 100.0)])
    assert running.result(handle)[0] == GoalStatus.STATUS_SUCCEEDED
    running.simulator.wait_for_position([100.0, 100.0])


def test_default_tolerances_are_parameters(simulate: Any) -> None:
    sender = GoalSender(simulate(real_time_factor=5.0, constraints__pusher_y__trajectory=0.5))
    sender.simulator.wait(10 * STEP)
    x, y = sender.simulator.position
    handle = sender.send([(x, 512.0 - y)] * 20)
    assert sender.result(handle)[1] == Result.PATH_TOLERANCE_VIOLATED


def test_the_default_goal_time_is_a_parameter(simulate: Any) -> None:
    constraints = {"constraints__pusher_x__goal": 1.0, "constraints__goal_time": 0.5}
    sender = GoalSender(simulate(real_time_factor=5.0, **constraints))
    sender.simulator.wait(10 * STEP)
    assert sender.result(sender.send([(2000.0, 100.0)]))[1] == Result.GOAL_TOLERANCE_VIOLATED
