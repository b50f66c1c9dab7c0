"""Ways of a chunk to the robot's controller: a topic or an action."""

from __future__ import annotations

import time
from typing import Any, Protocol

from control_msgs.action import FollowJointTrajectory
from rclpy.action import ActionClient
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from trajectory_msgs.msg import JointTrajectory

from ros_nodes.commands.controller_watch import SILENCE, ControllerWatch

DELIVERY = 0.2
"""Seconds that whoever listens has to take what was sent last."""


class GoalCounts(Protocol):
    """Where goals are counted that were refused, failed, or were never answered."""

    goals_rejected: int
    goals_aborted: int
    goals_unanswered: int


class TrajectoryOutput(Protocol):
    """Where trajectories go."""

    def obstacle(self) -> str | None:
        """Why nothing would execute a trajectory now, or None."""

    def complaint(self) -> str | None:
        """What is wrong with the controller although it may execute a trajectory, or None."""

    def send(self, trajectory: JointTrajectory) -> None:
        """Let a trajectory replace the running one."""

    def stop(self, hold: JointTrajectory | None) -> None:
        """End what was sent.

        Args:
            hold: trajectory that stands still, for an interface with no other way to; None if what was sent is over.
        """

    def close(self) -> None:
        """Give up everything that it holds in the node."""


class TopicOutput:
    """Publishes trajectories."""

    def __init__(self, node: LifecycleNode, topic: str) -> None:
        self._node = node
        self._publisher = node.create_lifecycle_publisher(JointTrajectory, topic, 10)
        self._watch = ControllerWatch(node, topic)

    def obstacle(self) -> str | None:
        if not self._publisher.get_subscription_count():
            return f"nothing listens on {self._publisher.topic_name}"
        return self._watch.silence()

    def complaint(self) -> str | None:
        return None

    def send(self, trajectory: JointTrajectory) -> None:
        self._publisher.publish(trajectory)

    def stop(self, hold: JointTrajectory | None) -> None:
        if hold is not None:
            self._publisher.publish(hold)

    def close(self) -> None:
        self._watch.close()
        # A process that ends would take a stop with it that is still on its way.
        self._publisher.wait_for_all_acked(Duration(seconds=DELIVERY))
        self._node.destroy_lifecycle_publisher(self._publisher)


class ActionOutput:
    """Sends trajectories as goals; each replaces the one before it, as joint_trajectory_controller does."""

    def __init__(self, node: LifecycleNode, action: str, counts: GoalCounts) -> None:
        self._logger = node.get_logger()
        self._action = action
        self._client = ActionClient(node, FollowJointTrajectory, action)
        self._counts = counts
        self._sent: object | None = None  # marks the newest goal; results of replaced ones are expected
        self._handle: Any = None
        self._waits_since: float | None = None  # for an answer to the oldest goal without one
        self._watch = ControllerWatch(node, action)

    def obstacle(self) -> str | None:
        if not self._client.server_is_ready():
            self._waits_since = None
            return f"no action server {self._action}"
        return self._watch.silence()

    def complaint(self) -> str | None:
        waits = 0.0 if self._waits_since is None else time.monotonic() - self._waits_since
        return f"{self._action} has not answered a goal for {waits:.1f} s" if waits > SILENCE else None

    def send(self, trajectory: JointTrajectory) -> None:
        if self._waits_since is None:
            self._waits_since = time.monotonic()
        else:
            self._counts.goals_unanswered += 1
        mark = self._sent = object()
        future = self._client.send_goal_async(FollowJointTrajectory.Goal(trajectory=trajectory))
        future.add_done_callback(lambda future: self._answered(mark, future.result()))

    def _answered(self, mark: object, handle: Any) -> None:
        self._waits_since = None
        if not handle.accepted:
            self._counts.goals_rejected += 1
            self._logger.warning(f"{self._action} rejected a goal", throttle_duration_sec=1.0)
        elif self._sent is mark:
            self._handle = handle
            handle.get_result_async().add_done_callback(lambda future: self._ended(mark, future.result()))
        elif self._sent is None:  # cancelled before it was accepted
            handle.cancel_goal_async()

    def _ended(self, mark: object, response: Any) -> None:
        if self._sent is not mark:
            return
        self._handle = None
        if response.result.error_code != FollowJointTrajectory.Result.SUCCESSFUL:
            self._counts.goals_aborted += 1
            self._logger.warning(
                f"{self._action} aborted the goal: {response.result.error_string or response.result.error_code}",
                throttle_duration_sec=1.0,
            )

    def stop(self, hold: JointTrajectory | None) -> None:
        """Cancel the goal; the controller then holds where it is."""
        self._cancel()

    def close(self) -> None:
        self._cancel()
        self._watch.close()
        self._client.destroy()

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel_goal_async()
        self._sent = self._handle = None
