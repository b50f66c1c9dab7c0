"""Chunks as goals of a FollowJointTrajectory action server, here in the test's own process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from control_msgs.action import FollowJointTrajectory
from policy_peer import STEP, observation
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from rosgraph_msgs.msg import Clock

Result = FollowJointTrajectory.Result


class Controller:
    """An action server that takes goals and ends them as it is told."""

    def __init__(self, graph: Any) -> None:
        self.answer = GoalResponse.ACCEPT
        self.silence: Future | None = None
        self.goals: list[Any] = []
        self.outcomes: list[Future] = []
        self.cancelled = 0
        self.server = ActionServer(
            graph.node,
            FollowJointTrajectory,
            "/pusher_controller/follow_joint_trajectory",
            execute_callback=self._execute,
            goal_callback=self._on_goal,
            cancel_callback=self._on_cancel,
            callback_group=ReentrantCallbackGroup(),  # diagnostics come in while a goal is not answered
        )

    async def _on_goal(self, goal: Any) -> GoalResponse:
        self.goals.append(goal.trajectory)
        if self.silence is not None:
            await self.silence
        return self.answer

    def _on_cancel(self, handle: Any) -> CancelResponse:
        self.cancelled += 1
        self.outcomes[-1].set_result((Result(), "canceled"))
        return CancelResponse.ACCEPT

    async def _execute(self, handle: Any) -> Any:
        outcome = Future()
        self.outcomes.append(outcome)
        result, end = await outcome
        getattr(handle, end)()
        return result


@pytest.fixture
def policy(start_policy: Callable[..., Any]) -> Any:
    return start_policy(output="follow_joint_trajectory", synchronous=True).activate()


def test_each_chunk_is_a_goal_that_replaces_the_one_before(policy: Any) -> None:
    policy.observe(STEP, observation(0))
    policy.wait_for_message("no chunk: no action server pusher_controller/follow_joint_trajectory")
    controller = Controller(policy.graph)
    policy.graph.spin_until(lambda: policy.observe(STEP, observation(0)) or controller.goals, "a goal")
    for step in range(1, 9):
        policy.observe((1 + step) * STEP, observation(step))
    policy.graph.spin_until(lambda: len(controller.outcomes) == 2, "two goals")
    stamps = [goal.header.stamp.sec * 10**9 + goal.header.stamp.nanosec for goal in controller.goals]
    assert stamps == [STEP, 9 * STEP]
    assert all(len(goal.points) == 8 for goal in controller.goals)
    # joint_trajectory_controller ends the goal that was replaced; that is no fault of the newest one.
    controller.outcomes[0].set_result((Result(error_code=Result.INVALID_GOAL), "abort"))
    policy.wait_for_value("chunks", 2)
    assert policy.transition("deactivate")
    policy.graph.spin_until(lambda: controller.cancelled == 1, "the running goal is cancelled")
    policy.wait_for_message("inactive")
    assert policy.values()["goals_aborted"] == "0"


def test_rejections_and_aborts_are_reported(policy: Any) -> None:
    controller = Controller(policy.graph)
    controller.answer = GoalResponse.REJECT
    policy.graph.spin_until(lambda: policy.observe(STEP, observation(0)) or controller.goals, "a goal")
    policy.wait_for_value("goals_rejected", 1)
    controller.answer = GoalResponse.ACCEPT
    policy.observe(20 * STEP, observation(0))
    policy.graph.spin_until(lambda: controller.outcomes, "an accepted goal")
    result = Result(error_code=Result.PATH_TOLERANCE_VIOLATED, error_string="pusher_x is lost")
    controller.outcomes[0].set_result((result, "abort"))
    policy.wait_for_value("goals_aborted", 1)
    output = policy.graph.output(policy.process)
    assert "rejected a goal" in output
    assert "aborted the goal: pusher_x is lost" in output
    policy.observe(40 * STEP, observation(0))
    policy.graph.spin_until(lambda: len(controller.outcomes) == 2, "the next goal")


def test_goals_that_are_not_answered_are_named_and_counted(policy: Any) -> None:
    controller = Controller(policy.graph)
    controller.silence = Future()
    policy.graph.spin_until(lambda: policy.observe(STEP, observation(0)) or controller.goals, "a goal")
    policy.wait_for_message("pusher_controller/follow_joint_trajectory has not answered a goal for ")
    policy.observe(20 * STEP, observation(0))
    policy.wait_for_value("goals_unanswered", 1)
    controller.silence.set_result(None)
    controller.silence = None
    policy.graph.spin_until(lambda: policy.diagnostics[-1].message == "active", "it has answered")


def test_a_clock_that_begins_anew_cancels_the_goal_and_the_next_chunk_moves_again(
    start_policy: Callable[..., Any],
) -> None:
    policy = start_policy(output="follow_joint_trajectory")
    clock = policy.graph.node.create_publisher(Clock, "/clock", 1)
    controller = Controller(policy.graph)
    policy.activate()

    def goals_of(step: int, count: int) -> None:
        def seen() -> bool:
            clock.publish(Clock(clock=policy.stamp(step * STEP)))
            policy.observe(step * STEP, observation(3))
            return len(controller.outcomes) >= count

        policy.graph.spin_until(seen, f"goal {count}")

    goals_of(100, 1)
    policy.graph.spin_until(
        lambda: clock.publish(Clock(clock=policy.stamp(50 * STEP))) or controller.cancelled, "it is cancelled"
    )
    assert len(controller.goals) == 1, "no goal stands for a stop"
    policy.wait_for_value("stops", 1)
    goals_of(51, 2)
    assert controller.goals[1].header.stamp == policy.stamp(51 * STEP)
    assert (controller.cancelled, policy.values()["goals_aborted"]) == (1, "0")
