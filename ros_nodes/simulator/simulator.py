"""A simulated robot in a ROS 2 graph: sensors and clock out, trajectories in (see docs/ros.md)."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, Float64MultiArray
from std_srvs.srv import Trigger

from policy.robot.times import SECOND
from ros_nodes.diagnostics import DIAGNOSTIC_PERIOD, diagnostic_message
from ros_nodes.reception.clock import ClockGuard
from ros_nodes.simulator import simulator_messages as messages
from ros_nodes.simulator.simulated_robot import SimulatedRobot, World
from ros_nodes.simulator.trajectory_controller import TrajectoryController

TICK = SECOND // 100
"""Between two ticks of `/clock` in real time, in nanoseconds of wall time."""

MOST_BEHIND = SECOND // 2
"""A simulation that is later than this slows down instead of catching up; in nanoseconds."""

REPEAT_SECONDS = 0.2
"""How often, in wall time, a lockstep simulation that waits repeats what it observes, for who joins late."""


class Sensors(Protocol):
    """What a world's own sensors publish, beside the joints."""

    def publish(self, robot: SimulatedRobot) -> None:
        """Publish what is seen now."""


class Simulator(ClockGuard, Node):
    """A simulator node. A new one has an episode of the parameter `seed`, which lockstep hides until `~/reset`.

    Args:
        name: of the node.
        controller: name of its controller, by which the topic and the action for trajectories begin.
        build: makes the world and its sensors in this node, whose parameters it may declare.
        node_arguments: of `Node`.
    """

    def __init__(
        self,
        name: str,
        *,
        controller: str,
        build: Callable[[Node], tuple[World, Sensors]],
        **node_arguments: Any,
    ) -> None:
        super().__init__(name, **node_arguments)
        self._declare_parameters()
        self._lockstep = self._mode() == "lockstep"
        self._running = not self._lockstep
        world, self._sensors = build(self)
        self._declare_period(world.period)
        self._robot = SimulatedRobot(world, self._value("seed"), self._value("max_steps"))
        self._target = self._robot.next_target()
        self._clock_time, self._wall_time = self._robot.state.time, time.monotonic_ns()
        self._create_publishers()
        self.create_service(Trigger, "~/reset", self._on_reset)
        self._woken = self.create_guard_condition(self._on_wake)
        self._controller = TrajectoryController(
            self, self._robot, name=controller, refusal=self._refusal, wake=self._woken.trigger
        )
        wall = Clock(clock_type=ClockType.STEADY_TIME)
        self._known_refusals = 0
        self.create_timer(DIAGNOSTIC_PERIOD, self._report, clock=wall)
        if self._lockstep:
            self.create_timer(REPEAT_SECONDS, self._repeat, clock=wall)
        else:
            self.create_timer(TICK / SECOND, self._tick, clock=wall)
        self.get_logger().info(f"simulating in mode {self._mode()}")

    def destroy_node(self) -> None:
        self._controller.destroy()
        super().destroy_node()

    # --- Lockstep: each trajectory moves the clock on, up to its end. ---

    def _on_wake(self) -> None:
        """Run one control step if there is one to run: one, so that goals can be cancelled between two."""
        if not self._lockstep or not self._stepping():
            self._controller.update()
            return
        self._robot.advance(self._robot.next_target())
        self._after_step()
        if self._robot.state.ended:
            self._controller.abort("the episode has ended")
        elif self._stepping():
            self._woken.trigger()

    def _stepping(self) -> bool:
        return self._running and not self._robot.state.ended and self._controller.busy

    def _repeat(self) -> None:
        if self._running and not self._robot.state.ended and not self._controller.busy:
            self._publish_observation()

    # --- Real time: the clock follows the wall clock, and control steps follow the clock. ---

    def _tick(self) -> None:
        now = time.monotonic_ns()
        factor = self._value("real_time_factor")
        self._clock_time += round((now - self._wall_time) * factor)
        self._wall_time = now
        due = self._robot.state.time + self._robot.period
        if self._clock_time - due > MOST_BEHIND:
            late = (self._clock_time - due) / SECOND
            self.get_logger().warning(f"{late:.1f} s late: lower real_time_factor", throttle_duration_sec=5.0)
            self._clock_time = due
        # Up to half a tick early, as a timer that is a little early once would else make it a whole tick late.
        while self._clock_time + round(TICK * factor / 2) >= self._robot.state.time + self._robot.period:
            # A target is fixed at the start of its control step: what comes later cannot change the past.
            self._robot.advance(self._target)
            self._target = self._robot.next_target()
            self._after_step()
        self._publish_clock(max(self._clock_time, self._robot.state.time))

    # --- Both ---

    def _after_step(self) -> None:
        self._publish_observation()
        self._publish_episode()
        self._controller.update()

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._controller.abort("the simulator was reset")
        self._robot.reset(self._value("seed"), self._value("max_steps"))
        self._running = True
        self._target = self._robot.next_target()
        self._clock_time, self._wall_time = self._robot.state.time, time.monotonic_ns()
        self._publish_observation()
        self._publish_episode()
        response.success = True
        response.message = f"episode of seed {self._robot.state.seed}"
        return response

    def _refusal(self) -> str | None:
        if not self._lockstep:
            return None
        if not self._running:
            return "no episode has begun: call ~/reset"
        return "the episode has ended: call ~/reset" if self._robot.state.ended else None

    def _create_publishers(self) -> None:
        self._joints = self.create_publisher(JointState, "joint_states", 10)
        self._reward = self.create_publisher(Float64, "~/reward", 10)
        self._clock_publisher = self.create_publisher(ClockMessage, "/clock", 10)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Deep, so that a lockstep that runs ahead of its listener loses nothing.
        self._episode = self.create_publisher(Float64MultiArray, "~/episode", QoSProfile(depth=1000))

    def _publish_observation(self) -> None:
        state = self._robot.state
        self._publish_clock(state.time)
        self._sensors.publish(self._robot)
        self._joints.publish(messages.joint_state(state, self._robot.joints))
        self._reward.publish(Float64(data=state.reward))

    def _publish_episode(self) -> None:
        self._episode.publish(messages.episode_status(self._robot.state, self._robot.trajectories))

    def _report(self) -> None:
        """Say what was refused so far, and warn of what is new."""
        refusals, clock = self._controller.refusals, self.clock_refusals
        total = refusals.counts.total() + clock.counts.total()
        new, self._known_refusals = total - self._known_refusals, total
        message = diagnostic_message(
            name=self.get_fully_qualified_name(),
            hardware_id="simulation",
            level=DiagnosticStatus.WARN if new else DiagnosticStatus.OK,
            summary=f"{new} new refusals" if new else f"simulating in mode {self._mode()}",
            values=refusals.values("rejected_trajectories") | clock.values("rejected_times"),
            stamp=messages.stamp(self._robot.state.time),
        )
        self._diagnostics.publish(message)

    def _publish_clock(self, nanoseconds: int) -> None:
        self._clock_publisher.publish(ClockMessage(clock=messages.stamp(nanoseconds)))

    def _declare_parameters(self) -> None:
        self.declare_parameter(
            "mode",
            "realtime",
            ParameterDescriptor(
                description="realtime (the clock follows the wall clock) or lockstep (it moves by trajectories only)",
                additional_constraints="realtime or lockstep",
                read_only=True,
            ),
        )
        self.declare_parameter(
            "real_time_factor",
            1.0,
            ParameterDescriptor(
                description="seconds of simulation per second, in mode realtime",
                floating_point_range=[FloatingPointRange(from_value=0.1, to_value=100.0)],
            ),
        )
        for name, default, low, high, description in (
            ("seed", 0, 0, 2**32 - 1, "initial state of the episode that the next ~/reset begins"),
            ("max_steps", 200, 1, 1_000_000, "control steps before that episode is truncated"),
        ):
            self.declare_parameter(
                name,
                default,
                ParameterDescriptor(
                    description=description,
                    integer_range=[IntegerRange(from_value=low, to_value=high, step=1)],
                ),
            )

    def _declare_period(self, period: int) -> None:
        description = "duration of a control step in s, as of the world"
        self.declare_parameter(
            "control_period", period / SECOND, ParameterDescriptor(description=description, read_only=True)
        )

    def _mode(self) -> str:
        mode = self._value("mode")
        if mode not in ("realtime", "lockstep"):
            raise ValueError(f"parameter mode must be realtime or lockstep, got {mode!r}")
        return str(mode)

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value


def run_simulator(make: Callable[[], Simulator], arguments: list[str] | None = None) -> int:
    """Run a simulator as a process; its exit status."""
    # rclpy ends the context at Ctrl-C; a KeyboardInterrupt on top could strike, and get lost, anywhere.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rclpy.init(args=arguments)
    try:
        rclpy.spin(make())
    except ExternalShutdownException:
        pass
    except Exception as error:
        # A signal ends the context under a running callback, which then cannot publish any more.
        if not rclpy.ok():
            return 0
        if not isinstance(error, (ValueError, OSError, ParameterException)):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    return 0
