"""The configured part of the policy node: observations in, chunks out while it is active.

Everything here runs in the executor's thread; only the policy itself runs in the worker's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode

from policy.chunk_schedule import ChunkSchedule
from policy.exported import ExportedPolicy
from policy.exported.remote import ServerError
from policy.robot.fit import FilledPart, control_period_ns, filled_parts, position_columns
from policy.robot.joint_limits import JointLimits
from policy.robot.message_types import Message
from policy.robot.messages import measurement
from policy.robot.observation_history import Arrival, RejectedObservation, check_age
from policy.robot.times import SECOND
from policy.runtime import Policy
from ros_nodes.commands.trajectory_output import ActionOutput, TopicOutput, TrajectoryOutput
from ros_nodes.policy_node.chunk_computation import ChunkComputation
from ros_nodes.policy_node.chunk_length import check_speed
from ros_nodes.policy_node.chunk_sender import ChunkSender
from ros_nodes.policy_node.inference_worker import ChunkRequest, ComputedChunk, warm_up
from ros_nodes.policy_node.loading import LoadedPolicy
from ros_nodes.policy_node.measured_position import MeasuredPosition
from ros_nodes.policy_node.motion import Motion
from ros_nodes.policy_node.observation_intake import policy_history, subscribe_part
from ros_nodes.policy_node.parameters import PolicyParameters, PolicySettings
from ros_nodes.policy_node.preparation import PolicyPreparation, prepare
from ros_nodes.policy_node.statistics import PolicyStatistics
from ros_nodes.reception.refusals import Refusals


class ActionLoop:
    """Turns observations into trajectories.

    Args:
        node: node that it subscribes and publishes with.
        parameters: parameters, of which some may change at run time.
        settings: the parameters that may not.
        policy: policy on its device, with its sampler.
        joints: the commanded joints, with their limits.
        on_failure: called in the executor's thread with what the policy raised.
        on_change: called in the executor's thread when something begins or ceases to be in the way of acting.

    Raises:
        ValueError: for a robot that does not fill the policy's task, naming the part, or for a horizon that is too
            short.
    """

    def __init__(
        self,
        node: LifecycleNode,
        *,
        parameters: PolicyParameters,
        settings: PolicySettings,
        policy: LoadedPolicy,
        joints: JointLimits,
        on_failure: Callable[[Exception], None],
        on_change: Callable[[], None],
    ) -> None:
        config, robot, task = policy.config, settings.robot, policy.task
        self._joints = joints
        self._period_ns = control_period_ns(robot, task)
        self._parts = filled_parts(robot, task)
        self.statistics = PolicyStatistics()
        self.history = policy_history(robot, policy)
        self._node = node
        self._parameters = parameters
        self._settings = settings
        prepared = prepare(policy, settings.engine, settings.threads)
        self._on_failure = on_failure
        self._on_change = on_change
        self._restart_gap_ns = round(robot.restart_gap * SECOND)
        self._newest_time = 0  # of the clock, in ns
        inference = warm_up(prepared, policy)
        self._schedule = ChunkSchedule(
            chunk_ns=config.action_steps * self._period_ns,
            period_ns=self._period_ns,
            margin_ns=settings.inference_margin_ns,
            synchronous=settings.synchronous,
            inference_ns=round(inference * 1e9),
        )
        self._active = False
        self._arrived = 0.0  # of the newest observation, by time.perf_counter
        self._measured = MeasuredPosition(self._joints.names, position_columns(robot, task))
        self._in_the_way = False
        self._server_lost = ""  # why the policy's server gives no chunk
        self._refusals = Refusals("observation", node.get_logger().warning, self.statistics.rejections)
        with ExitStack() as resources:
            self._open(resources, policy, prepared)
            if not settings.synchronous:
                check_speed(inference, count=self._sender.count, period_ns=self._period_ns)
            self._resources = resources.pop_all()

    def _open(self, resources: ExitStack, policy: LoadedPolicy, prepared: Policy | ExportedPolicy) -> None:
        """Make the threads, and what the loop holds in the node; `resources` gives both up again."""
        node, settings, robot = self._node, self._settings, self._settings.robot
        self._output: TrajectoryOutput = (
            ActionOutput(node, robot.action_name, self.statistics)
            if robot.output == "follow_joint_trajectory"
            else TopicOutput(node, robot.trajectory_topic)
        )
        resources.callback(self._output.close)
        self._motion = Motion(
            self._output,
            self._joints,
            self._measured,
            period_ns=self._period_ns,
            velocities=settings.velocities,
            synchronous=settings.synchronous,
        )
        self._sender = ChunkSender(
            node,
            settings=settings,
            config=policy.config,
            joints=self._joints,
            motion=self._motion,
            statistics=self.statistics,
            period_ns=self._period_ns,
        )
        resources.callback(self._sender.close)
        # Wall time: a simulated clock stands still while the world does.
        watch = node.create_timer(
            self._period_ns / 1e9, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        resources.callback(node.destroy_timer, watch)
        self._ready = node.create_guard_condition(self._on_ready)
        resources.callback(node.destroy_guard_condition, self._ready)
        self._computation = ChunkComputation(
            policy,
            prepared,
            parameters=self._parameters,
            settings=settings,
            period_ns=self._period_ns,
            notify=self._ready.trigger,
            warn=node.get_logger().warning,
        )
        resources.callback(self._computation.close)
        for part in self._parts:
            subscribe_part(node, part, resources, receive=self._on_message, refuse=self._refuse)

    def activate(self) -> None:
        self._active = True
        self._in_the_way = False
        self.forget()

    def deactivate(self) -> None:
        """Stop the motion."""
        self._active = False
        self._stop()
        self.forget()

    def close(self) -> None:
        """Give up everything that it holds in the node, and end the worker."""
        self.deactivate()
        self._resources.close()

    def forget(self) -> None:
        """Start anew: history, noises and schedule. A chunk that is being computed will be dropped."""
        self._motion.forget()
        self.history.forget()
        self._start_anew()

    def _start_anew(self) -> None:
        self._computation.start_anew()
        self._schedule.restart()
        self._server_lost = ""
        self._measured.forget()
        self._newest_time = self._now()

    def _restart(self, now: int) -> None:
        """The world began anew under the robot, which stops."""
        self.statistics.stops += self._motion.restart(now)
        self._start_anew()

    @property
    def preparation(self) -> PolicyPreparation:
        """Of the engine of another sampler."""
        return self._computation.preparation

    def obstacle(self) -> str | None:
        """Why no chunk can be computed now, or None."""
        return "; ".join(filter(None, (self._obstacle_here(), self._server_lost))) or None

    def _obstacle_here(self) -> str:
        found = (self.history.obstacle(self._now()), self._output.obstacle())
        return "; ".join(filter(None, found))

    def complaint(self) -> str | None:
        """What is wrong with the controller although it may execute chunks, or None."""
        return self._output.complaint()

    def ages(self) -> dict[str, float | None]:
        return self.history.ages(self._now())

    def _now(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def _watch(self) -> None:
        """Look for what does not come with a message: lost observations, and a controller that falls silent."""
        if not self._active:
            return
        now = self._now()
        if now < self._newest_time - self._restart_gap_ns and not self._settings.synchronous:
            self.history.forget()
            self._restart(now)
        self._newest_time = now
        self._motion.settle(now)
        lost = self.history.obstacle(now) is not None
        if lost and not self._settings.synchronous and self._motion.is_under_way(now):
            # The next complete observation starts a chunk from where the robot stopped.
            self._stop()
            self._schedule.restart()
            self._computation.drop()
        in_the_way = bool(self.obstacle() or self.complaint())
        if in_the_way != self._in_the_way:
            self._in_the_way = in_the_way
            self._on_change()

    def _stop(self) -> None:
        now = self._now()
        self.statistics.stops += self._motion.is_under_way(now)
        self._motion.stop(now)

    def _on_message(self, part: FilledPart, message: Message) -> None:
        if not self._active:
            return
        arrived, now = time.perf_counter(), self._now()
        self._newest_time = max(self._newest_time, now)
        try:
            stamp, values = measurement(message, part.source, size=part.slice.size, now_ns=now)
            if not self._settings.synchronous:  # in lockstep the clock may be ahead, but nothing ages
                check_age(part.slice, stamp, now, may_lead=self._node.get_clock().ros_time_is_active)
            arrival = self.history.add(part.slice.name, stamp, values)
        except RejectedObservation as rejection:
            self._refuse(part.slice.name, rejection.reason, str(rejection))
            return
        if arrival is Arrival.RESTART:
            self._restart(now)
        elif arrival is Arrival.DUPLICATE:
            self._motion.repeat(stamp)
        self._measured.note(part.slice.name, stamp, values)
        self._motion.settle(now)
        newest = self.history.newest_stamp()
        if newest is None:
            return
        is_new = self._schedule.observe(newest)
        if is_new:
            self._arrived = arrived
        # The first part of an observation must not start a chunk from the one before it.
        if is_new or arrival is Arrival.DUPLICATE:
            self._consider(newest, now)

    def _refuse(self, source: str, reason: str, detail: str) -> None:
        if self._active:
            self._refusals.add(source, reason, detail)

    def _consider(self, stamp_ns: int, now_ns: int) -> None:
        if self._computation.busy:
            return
        may_compute, changed = self._computation.follow_sampler()
        if changed:
            self._schedule.relearn()
        if not may_compute or not self._schedule.due(now_ns) or self._obstacle_here():
            return
        self._computation.submit(
            self.history.sample(stamp_ns),
            stamp_ns=stamp_ns,
            started_ns=now_ns,
            arrived=self._arrived,
            delay=self._schedule.delay(stamp_ns, now_ns),
        )
        self._schedule.started(stamp_ns)

    def _on_ready(self) -> None:
        """A chunk, or the engine of another sampler, is ready."""
        if taken := self._computation.take():
            request, computed = taken
            if isinstance(computed, ServerError):
                self._lose_server(request, computed)
                return  # the next observation asks it again
            if isinstance(computed, Exception):
                self._on_failure(computed)
                return
            self._server_lost = ""
            self._send(request, computed)
        newest = self.history.newest_stamp()
        if self._active and newest is not None:
            self._consider(newest, self._now())

    def _lose_server(self, request: ChunkRequest, error: ServerError) -> None:
        """Let the robot finish its chunk, and start anew after it, with the noises of this request."""
        self._server_lost = str(error)
        self.statistics.unanswered_requests += 1
        self._computation.give_up(request)
        self._schedule.restart()
        self._schedule.observe(request.stamp_ns)

    def _send(self, request: ChunkRequest, computed: ComputedChunk) -> None:
        points = self._sender.send(computed.actions, request.stamp_ns)
        if points is None:
            return
        if len(points):
            self._computation.remember(computed.prediction, request.stamp_ns)
        done, now, statistics = time.perf_counter(), self._now(), self.statistics
        statistics.note(computed.prediction, latency=done - request.arrived, seconds=computed.seconds)
        missed = self._schedule.finished(request.stamp_ns, now - request.started_ns, now)
        if len(points):
            statistics.chunks += 1
            statistics.deadline_misses += missed
            self._sender.show(points)
