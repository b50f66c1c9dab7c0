"""The action node: a managed node that turns a checkpoint into motion."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import ChangeState
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from policy.robot.limit_choice import commanded_joints
from ros_nodes.diagnostics import DIAGNOSTIC_PERIOD, diagnostic_message
from ros_nodes.node_process import Ending
from ros_nodes.policy_node.action_loop import ActionLoop
from ros_nodes.policy_node.diagnostics import age_values, sampler_values
from ros_nodes.policy_node.end_of_process import ignore_signals, on_end
from ros_nodes.policy_node.inquiry import check_controller, robot_urdf
from ros_nodes.policy_node.loading import load_policy
from ros_nodes.policy_node.parameters import PolicyParameters
from ros_nodes.reception.clock import ClockGuard


class PolicyNode(ClockGuard, LifecycleNode):
    """Loads a policy at configure and acts while it is active.

    A sampler that raises takes the active node through error processing to the unconfigured state. rclpy offers no
    transition from active to there, so the node deactivates itself and answers that transition with an error.
    """

    def __init__(self, name: str = "policy") -> None:
        super().__init__(name)
        self._policy_parameters = PolicyParameters(self)
        self._loop: ActionLoop | None = None
        self._state = "unconfigured"
        self._failure = ""  # why it is not configured
        self._raised = False  # a failure that error processing has not seen yet
        self._known_faults = 0
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Wall time: a simulated clock stands still while the world waits for a chunk.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DIAGNOSTIC_PERIOD, self._report, clock=steady)
        self.create_service(Trigger, "~/reset", self._on_reset)
        _answer_impossible_transitions(self)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            settings = self._policy_parameters.settings()
            policy = load_policy(
                settings.checkpoint,
                pcm=settings.pcm,
                device=settings.device,
                sampler=self._policy_parameters.sampler(),
            )
            robot = settings.robot
            joints = commanded_joints(robot, policy.task, urdf=robot_urdf(self, robot))
            by_action = robot.output == "follow_joint_trajectory"
            check_controller(self, robot.action_name if by_action else robot.trajectory_topic)
            self._loop = ActionLoop(
                self,
                parameters=self._policy_parameters,
                settings=settings,
                policy=policy,
                joints=joints,
                on_failure=self._on_policy_failure,
                on_change=self._report,
            )
        except Exception as error:  # whatever is wrong with the file or the sampler, the node stays
            self._failure = str(error)
            self.get_logger().error(f"cannot configure: {error}")
            return TransitionCallbackReturn.FAILURE
        self._policy_parameters.hold(policy)
        self._failure = ""
        self._known_faults = self.clock_refusals.counts.total()
        self._state = "inactive"
        self.get_logger().info(f"policy {settings.checkpoint}, sampler {policy.resolved_sampler}")
        if policy.pcm_mismatch:
            self.get_logger().warning(policy.pcm_mismatch)
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self._loop is not None
        result = super().on_activate(state)
        self._loop.activate()
        self._state = "active"
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self._loop is not None
        self._loop.deactivate()
        if self._raised:
            return TransitionCallbackReturn.ERROR
        self._state = "inactive"
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.release()
        self._state = "finalized"
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._raised = False
        self.release()
        return TransitionCallbackReturn.SUCCESS

    def release(self) -> None:
        """Give up what configure made. Waits for an inference that is under way."""
        if self._loop is not None:
            self._loop.close()
        self._loop = None
        self._policy_parameters.hold(None)
        self._state = "unconfigured"
        gc.collect()  # the policy is large, and part of reference cycles

    def _on_policy_failure(self, error: Exception) -> None:
        self._failure = f"the policy raised {type(error).__name__}: {error}"
        self.get_logger().error(f"{self._failure}; back to unconfigured")
        self._raised = True
        self.trigger_deactivate()

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._loop is None:
            response.message = "not configured"
            return response
        self._loop.forget()
        response.success = True
        response.message = "history forgotten"
        return response

    def _report(self) -> None:
        level, summary = DiagnosticStatus.OK, self._state
        values = {"state": self._state}
        if self._loop is not None:
            preparation = self._loop.preparation
            if preparation.failure:
                level, summary = DiagnosticStatus.WARN, preparation.failure
            faults = self._loop.statistics.faults() + self.clock_refusals.counts.total()
            if faults > self._known_faults:
                level, summary = DiagnosticStatus.WARN, f"{faults - self._known_faults} new faults"
            self._known_faults = faults
            values |= sampler_values(self._policy_parameters.resolved_sampler())
            preparing = "preparing" if preparation.preparing else "ready"
            values["engine_state"] = "failed" if preparation.failure else preparing
            values |= self._loop.statistics.values()
        values |= self.clock_refusals.values("rejected_times")
        if self._state == "active" and self._loop is not None:
            values |= age_values(self._loop.ages())
            obstacle, complaint = self._loop.obstacle(), self._loop.complaint()
            if obstacle or complaint:
                summary = f"no chunk: {obstacle}" if obstacle else str(complaint)
                level = DiagnosticStatus.WARN
                self.get_logger().warning(summary, throttle_duration_sec=2.0)
        if self._failure:
            level, summary = DiagnosticStatus.ERROR, self._failure
        message = diagnostic_message(
            name=self.get_fully_qualified_name(),
            hardware_id=str(self.get_parameter("checkpoint").value),
            level=level,
            summary=summary,
            values=values,
            stamp=self.get_clock().now().to_msg(),
        )
        self._diagnostics.publish(message)


def _answer_impossible_transitions(node: LifecycleNode) -> None:
    """Answer requests for transitions that the state does not have, of which rclpy dies (ros2/rclpy issue 1209)."""
    service = next(service for service in node.services if service.srv_type is ChangeState)
    change_state = service.callback

    def answer(request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        try:
            return change_state(request, response)
        except Exception as error:  # rclpy's own exception type is not public
            node.get_logger().error(
                f"transition {request.transition.label or request.transition.id}: {error}"
            )
            response.success = False
            return response

    service.callback = answer


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until it is interrupted or terminated."""
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    ending = Ending(executor)
    on_end(ending.tell)
    node = None
    try:
        node = PolicyNode()
        executor.add_node(node)
        ending.spin()
    except ParameterException as error:
        get_logger("policy").fatal(f"bad parameter: {error}")
        return 1
    finally:
        ignore_signals()  # whoever is told twice to end is ending
        if node is not None:
            node.release()  # which ends the robot's motion
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
