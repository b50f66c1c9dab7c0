"""Ways of a chunk to the robot's controller: a topic or an action."""

from __future__ import annotations

from typing import Any, Protocol

from control_msgs.action import FollowJointTrajectory
from rclpy.action import ActionClient
from rclpy.lifecycle import LifecycleNode
from trajectory_msgs.msg import JointTrajectory


class GoalCounts(Protocol):
    """Where refused and failed goals are counted."""

    goals_rejected: int
    goals_aborted: int


class TrajectoryOutput(Protocol):
    """Where trajectories go."""

    def obstacle(self) -> str | None:
        """Why nothing would receive a trajectory now, or None."""

    def send(self, trajectory: JointTrajectory) -> None:
        """Let a trajectory replace the running one."""

    def cancel(self) -> None:
        """Stop what was sent, where the interface has a way to."""

    def close(self) -> None:
        """Give up everything that it holds in the node."""


class TopicOutput:
    """Publishes trajectories."""

    def __init__(self, node: LifecycleNode, topic: str) -> None:
        self._node = node
        self._publisher = node.create_lifecycle_publisher(JointTrajectory, topic, 10)

    def obstacle(self) -> str | None:
        if self._publisher.get_subscription_count():
            return None
        return f"nothing listens on {self._publisher.topic_name}"

    def send(self, trajectory: JointTrajectory) -> None:
        self._publisher.publish(trajectory)

    def cancel(self) -> None:
        """A topic has no way to; the controller holds the last point."""

    def close(self) -> None:
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

    def obstacle(self) -> str | None:
        return None if self._client.server_is_ready() else f"no action server {self._action}"

    def send(self, trajectory: JointTrajectory) -> None:
        mark = self._sent = object()
        future = self._client.send_goal_async(FollowJointTrajectory.Goal(trajectory=trajectory))
        future.add_done_callback(lambda future: self._answered(mark, future.result()))

    def _answered(self, mark: object, handle: Any) -> None:
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

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel_goal_async()
        self._sent = self._handle = None

    def close(self) -> None:
        self.cancel()
        self._client.destroy()
