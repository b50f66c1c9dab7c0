"""The topic and the action through which a robot takes trajectories, with joint_trajectory_controller's rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from control_msgs.action import FollowJointTrajectory
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node
from rclpy.task import Future
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from policy.robot.times import SECOND
from ros_nodes.commands.trajectory_execution import Outcome, Tolerances, Trajectory, judge
from ros_nodes.commands.trajectory_messages import (
    InvalidTrajectoryError,
    nanoseconds,
    read_tolerances,
    read_trajectory,
)
from ros_nodes.reception.bounded_subscription import subscribe_bounded
from ros_nodes.reception.refusals import Refusals
from ros_nodes.simulator.simulated_robot import SimulatedRobot
from ros_nodes.simulator.simulator_messages import FRAME, stamp

FAILURES = {
    Outcome.PATH_TOLERANCE_VIOLATED: FollowJointTrajectory.Result.PATH_TOLERANCE_VIOLATED,
    Outcome.GOAL_TOLERANCE_VIOLATED: FollowJointTrajectory.Result.GOAL_TOLERANCE_VIOLATED,
}


class TrajectoryController:
    """Hands trajectories to the robot and judges them after each control step.

    As in joint_trajectory_controller, a new goal aborts the running one, and a trajectory from the topic
    replaces what is executed while a running goal stays, and succeeds at the end of the new trajectory.

    Args:
        node: node in which the parameters `constraints.*` are declared.
        robot: robot that executes the trajectories.
        name: of the controller, by which its topic and its action begin.
        refusal: says why no trajectory can be taken on now, or None.
        wake: called when there is something to do: a trajectory, or a goal to cancel.

    Attributes:
        refusals: of trajectories that cannot be executed, by topic or action.
    """

    def __init__(
        self,
        node: Node,
        robot: SimulatedRobot,
        *,
        name: str,
        refusal: Callable[[], str | None],
        wake: Callable[[], None],
    ) -> None:
        self._node = node
        self._robot = robot
        self._topic, self._action = f"{name}/joint_trajectory", f"{name}/follow_joint_trajectory"
        self._refusal = refusal
        self._wake = wake
        self._goal: ServerGoalHandle | None = None
        self._result = Future()
        _declare_constraints(node, robot.joints)
        self._tolerances = self._default_tolerances()
        self.refusals = Refusals("trajectory", node.get_logger().warning)
        subscribe_bounded(
            node,
            JointTrajectory,
            self._topic,
            callback=self._on_trajectory,
            refuse=partial(self.refusals.add, self._topic),
            qos=10,
        )
        self._server = ActionServer(
            node,
            FollowJointTrajectory,
            self._action,
            execute_callback=self._wait_for_result,
            goal_callback=self._on_goal,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel,
            result_timeout=10,
        )

    @property
    def busy(self) -> bool:
        """Whether a trajectory or a goal is still running."""
        return self._goal is not None or self._robot.state.time < self._robot.trajectory.end_time

    def update(self) -> None:
        """Judge the running trajectory; called after each control step, and when woken."""
        if self._goal is not None and self._goal.is_cancel_requested:
            self._hold()
            self._finish(
                self._goal.canceled, FollowJointTrajectory.Result.SUCCESSFUL, "cancelled, holding position"
            )
            return
        state = self._robot.state
        outcome = judge(
            self._robot.trajectory,
            self._tolerances,
            time=state.time,
            position=state.position,
            velocity=state.velocity,
        )
        if self._goal is not None:
            self._goal.publish_feedback(self._feedback())
        if outcome in FAILURES:
            reason = f"{outcome.value}, holding position"
            self._node.get_logger().warning(reason)
            self._hold()
            self.abort(reason, FAILURES[outcome])
        elif outcome is Outcome.SUCCEEDED and self._goal is not None:
            self._finish(self._goal.succeed, FollowJointTrajectory.Result.SUCCESSFUL, "goal reached")

    def abort(self, reason: str, code: int = FollowJointTrajectory.Result.INVALID_GOAL) -> None:
        """End the running goal, if there is one, as failed."""
        if self._goal is not None:
            self._finish(self._goal.abort, code, reason)

    def _hold(self) -> None:
        self._robot.hold()
        self._tolerances = self._no_tolerances()  # a hold has nothing to violate

    def destroy(self) -> None:
        self._server.destroy()

    def _on_trajectory(self, message: JointTrajectory) -> None:
        if refusal := self._refused(message):
            # Nobody's fault: a policy that acts on the last observation of an episode, say.
            self._node.get_logger().info(f"ignored a trajectory: {refusal}", throttle_duration_sec=1.0)
            return
        try:
            self._follow(message)
        except InvalidTrajectoryError as error:
            self.refusals.add(self._topic, error.reason, str(error))
            return
        if self._goal is None:
            self._tolerances = self._default_tolerances()

    def _on_goal(self, goal: FollowJointTrajectory.Goal) -> GoalResponse:
        try:
            if refusal := self._refused(goal.trajectory):
                raise InvalidTrajectoryError("not_now", refusal)
            self._read(goal.trajectory)
            read_tolerances(goal, self._robot.joints, self._default_tolerances())
        except InvalidTrajectoryError as error:
            self.refusals.add(self._action, error.reason, str(error))
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _on_accepted(self, goal: ServerGoalHandle) -> None:
        self.abort("preempted by a new goal")
        self._goal = goal
        self._result = Future()
        self._tolerances = read_tolerances(goal.request, self._robot.joints, self._default_tolerances())
        self._follow(goal.request.trajectory)
        goal.execute()

    def _on_cancel(self, goal: ServerGoalHandle) -> CancelResponse:
        self._wake()
        return CancelResponse.ACCEPT

    async def _wait_for_result(self, goal: ServerGoalHandle) -> FollowJointTrajectory.Result:
        return await self._result

    def _refused(self, message: JointTrajectory) -> str | None:
        """Why a trajectory, even a good one, cannot be taken on now."""
        if 0 < nanoseconds(message.header.stamp) < self._robot.reset_time:
            return "it is from before the last reset"
        return self._refusal()

    def _follow(self, message: JointTrajectory) -> None:
        self._robot.follow(self._read(message))
        self._wake()

    def _read(self, message: JointTrajectory) -> Trajectory:
        state = self._robot.state
        return read_trajectory(
            message, self._robot.joints, now=state.time, position=state.position, velocity=state.velocity
        )

    def _finish(self, end: Callable[[], None], code: int, text: str) -> None:
        end()
        self._goal = None
        self._result.set_result(FollowJointTrajectory.Result(error_code=code, error_string=text))
        # Whoever awaits a result is served when the executor next wakes up.
        self._wake()

    def _feedback(self) -> FollowJointTrajectory.Feedback:
        state = self._robot.state
        desired = self._robot.trajectory.sample(state.time)
        error = [want - have for want, have in zip(desired, state.position, strict=True)]
        feedback = FollowJointTrajectory.Feedback(
            joint_names=list(self._robot.joints),
            desired=JointTrajectoryPoint(positions=list(desired)),
            actual=JointTrajectoryPoint(positions=list(state.position), velocities=list(state.velocity)),
            error=JointTrajectoryPoint(positions=error),
        )
        feedback.header.stamp = stamp(state.time)
        feedback.header.frame_id = FRAME
        return feedback

    def _no_tolerances(self) -> Tolerances:
        none = (0.0,) * len(self._robot.joints)
        return Tolerances(path=none, goal=none, goal_velocity=none)

    def _default_tolerances(self) -> Tolerances:
        def value(name: str) -> float:
            return float(self._node.get_parameter(f"constraints.{name}").value)

        return Tolerances(
            path=tuple(value(f"{joint}.trajectory") for joint in self._robot.joints),
            goal=tuple(value(f"{joint}.goal") for joint in self._robot.joints),
            goal_velocity=(value("stopped_velocity_tolerance"),) * len(self._robot.joints),
            goal_time=round(value("goal_time") * SECOND),
        )


def _declare_constraints(node: Node, joints: Sequence[str]) -> None:
    descriptions = {
        "goal_time": "seconds after a trajectory's end by which the joints have to be there, 0 for any time",
        "stopped_velocity_tolerance": "fastest joint, per second, that counts as stopped at a goal, 0 for any",
    }
    for joint in joints:
        descriptions[f"{joint}.trajectory"] = f"farthest that {joint} may be off its path, 0 for any"
        descriptions[f"{joint}.goal"] = f"farthest that {joint} may be off its goal, 0 for any"
    for name, description in descriptions.items():
        node.declare_parameter(
            f"constraints.{name}",
            0.0,
            ParameterDescriptor(
                description=description,
                floating_point_range=[FloatingPointRange(from_value=0.0, to_value=1e6)],
            ),
        )
