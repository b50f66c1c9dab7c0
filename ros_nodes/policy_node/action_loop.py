"""The configured part of the policy node: observations in, chunks out while it is active.

Everything here runs in the executor's thread; only the policy itself runs in the worker's, and in the one that encodes
pictures.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import torch
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from visualization_msgs.msg import MarkerArray

from policy import DiffusionPolicy
from policy.chunk_schedule import ChunkSchedule
from policy.robot.fit import (
    FilledPart,
    commanded_joints,
    control_period_ns,
    filled_parts,
    observation_history,
    position_columns,
)
from policy.robot.observation_history import Arrival, ObservationHistory
from ros_nodes.commands.chunk_messages import path_markers
from ros_nodes.commands.chunk_points import ChunkPoints, points_to_come
from ros_nodes.commands.trajectory_output import ActionOutput, TopicOutput, TrajectoryOutput
from ros_nodes.policy_node.chunk_length import check_speed, point_count
from ros_nodes.policy_node.frame_encoder import picture_encoder
from ros_nodes.policy_node.inference_worker import ChunkRequest, ComputedChunk, InferenceWorker, warm_up
from ros_nodes.policy_node.measured_position import MeasuredPosition
from ros_nodes.policy_node.motion import Motion
from ros_nodes.policy_node.observation_input import ObservationInput
from ros_nodes.policy_node.parameters import PolicyParameters, PolicySettings
from ros_nodes.policy_node.preparation import PolicyPreparation, prepare
from ros_nodes.policy_node.previous_prediction import PreviousPrediction
from ros_nodes.policy_node.statistics import PolicyStatistics
from ros_nodes.reception.refusals import WARNING_PERIOD, Refusals


class ActionLoop:
    """Turns observations into trajectories.

    Args:
        node: node that it subscribes and publishes with.
        parameters: parameters, of which some may change at run time.
        settings: the parameters that may not.
        policy: policy on its device, with its sampler.
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
        policy: DiffusionPolicy,
        on_failure: Callable[[Exception], None],
        on_change: Callable[[], None],
    ) -> None:
        config, robot, task = policy.config, settings.robot, policy.task
        self._joints = commanded_joints(robot, task)
        self._period_ns = control_period_ns(robot, task)
        self.statistics = PolicyStatistics()
        self.history = _history(settings, policy)
        self._node = node
        self._parameters = parameters
        self._settings = settings
        self._policy = prepare(policy, settings.engine, settings.threads)
        self._on_failure = on_failure
        self._on_change = on_change
        self._chunk_ns = config.action_steps * self._period_ns
        self._begin = config.observation_steps - 1  # index in the horizon of the chunk
        self._count = point_count(config, tail=settings.tail_points, synchronous=settings.synchronous)
        inference = warm_up(self._policy, policy)
        if not settings.synchronous:
            check_speed(inference, count=self._count, period_ns=self._period_ns)
        self._schedule = ChunkSchedule(
            chunk_ns=self._chunk_ns,
            period_ns=self._period_ns,
            margin_ns=settings.inference_margin_ns,
            synchronous=settings.synchronous,
            inference_ns=round(inference * 1e9),
        )
        self._active = False
        self._arrived = 0.0  # of the newest observation, by time.perf_counter
        self._request: ChunkRequest | None = None  # the one that the worker computes
        self._measured = MeasuredPosition(self._joints.names, position_columns(robot, task))
        self._in_the_way = False
        self._previous = PreviousPrediction(self._period_ns)
        self._refusals = Refusals("observation", node.get_logger().warning, self.statistics.rejections)
        self._start_noises(parameters.seed())
        with ExitStack() as resources:
            self._open(resources, policy)
            self._resources = resources.pop_all()

    def _open(self, resources: ExitStack, policy: DiffusionPolicy) -> None:
        """Make the threads, and what the loop holds in the node; `resources` gives both up again."""
        node, settings, robot = self._node, self._settings, self._settings.robot
        self._output: TrajectoryOutput = (
            ActionOutput(node, robot.action_name, self.statistics)
            if robot.output == "follow_joint_trajectory"
            else TopicOutput(node, robot.trajectory_topic)
        )
        resources.callback(self._output.close)
        self._motion = Motion(self._output, self._joints, self._measured, synchronous=settings.synchronous)
        # Wall time: a simulated clock stands still while the world does.
        watch = node.create_timer(
            self._period_ns / 1e9, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        resources.callback(node.destroy_timer, watch)
        self._path = node.create_lifecycle_publisher(MarkerArray, "~/predicted_path", 10)
        resources.callback(node.destroy_lifecycle_publisher, self._path)
        self._ready = node.create_guard_condition(self._on_ready)
        resources.callback(node.destroy_guard_condition, self._ready)
        warn = node.get_logger().warning
        self.preparation = PolicyPreparation(
            policy,
            self._policy,
            engine=settings.engine,
            threads=settings.threads,
            notify=self._ready.trigger,
            warn=warn,
        )
        resources.callback(self.preparation.close)
        self._worker = InferenceWorker(self._ready.trigger, settings.threads)
        resources.callback(self._worker.close)
        self._input = ObservationInput(
            node,
            filled_parts(robot, policy.task, features=policy.config.image_encoder.features),
            settings=settings,
            encode=picture_encoder(self._policy),
            statistics=self.statistics,
            take=self._take,
            refuse=self._refusals.add,
            fail=self._on_failure,
        )
        resources.callback(self._input.close)

    def activate(self) -> None:
        self._active = True
        self._input.listen(True)
        self._in_the_way = False
        self.forget()

    def deactivate(self) -> None:
        """Stop the motion, unless the process is ending, which leaves no way to."""
        self._active = False
        self._input.listen(False)
        if self._node.context.ok():
            self._stop()
        self.forget()

    def close(self) -> None:
        """Give up everything that it holds in the node, and end the worker."""
        self.deactivate()
        self._resources.close()

    def forget(self) -> None:
        """Start anew: history, noises and schedule. A chunk that is being computed will be dropped."""
        self._input.forget()
        self.history.forget()
        self._restart()

    def _restart(self) -> None:
        self._start_noises(self._parameters.seed())
        self._schedule.restart()
        self._request = None
        self._motion.forget()
        self._measured.forget()

    def _start_noises(self, seed: int) -> None:
        self._seed = seed
        self._generator = torch.Generator().manual_seed(seed)
        self._previous.forget()

    def obstacle(self) -> str | None:
        """Why no chunk can be computed now, or None."""
        return self.history.obstacle(self._now()) or self._output.obstacle()

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
        lost = self.history.obstacle(now) is not None
        if lost and not self._settings.synchronous and self._motion.is_under_way(now):
            # The next complete observation starts a chunk from where the robot stopped.
            self._stop()
            self._schedule.restart()
            self._previous.forget()
            self._request = None
        in_the_way = bool(self.obstacle() or self.complaint())
        if in_the_way != self._in_the_way:
            self._in_the_way = in_the_way
            self._on_change()

    def _stop(self) -> None:
        now = self._now()
        self.statistics.stops += self._motion.is_under_way(now)
        self._motion.stop(now)

    def _take(self, part: FilledPart, stamp: int, values: NDArray[np.float64], *, arrived: float) -> None:
        """Take in a measurement, and begin a chunk if one is due. Raises RejectedObservation."""
        arrival = self.history.add(part.slice.name, stamp, values)
        if arrival is Arrival.RESTART:
            self._restart()
        elif arrival is Arrival.DUPLICATE:
            self._motion.repeat(stamp)
        self._measured.note(part.slice.name, stamp, values)
        newest = self.history.newest_stamp()
        if newest is None:
            return
        is_new = self._schedule.observe(newest)
        if is_new:
            self._arrived = arrived
        # The first part of an observation must not start a chunk from the one before it.
        if is_new or arrival is Arrival.DUPLICATE:
            self._consider(newest, self._now())

    def _consider(self, stamp_ns: int, now_ns: int) -> None:
        if self._worker.busy or not self._follow_sampler():
            return
        if not self._schedule.due(now_ns) or self.obstacle():
            return
        if (seed := self._parameters.seed()) != self._seed:
            self._start_noises(seed)
        previous, executed = self._previous.at(stamp_ns)
        self._request = ChunkRequest(
            policy=self._policy,
            observations=self.history.sample(stamp_ns),
            generator=self._generator,
            stamp_ns=stamp_ns,
            started_ns=now_ns,
            arrived=self._arrived,
            previous=previous,
            executed=executed,
            delay=self._schedule.delay(stamp_ns, now_ns),
        )
        self._schedule.started(stamp_ns)
        self._worker.submit(self._request)

    def _follow_sampler(self) -> bool:
        """Change to the sampler that is asked for; False while the world waits for its engine."""
        policy = self.preparation.follow(self._parameters.sampler())
        if self.preparation.preparing and self._settings.synchronous:
            return False
        if policy is not self._policy:
            self._policy = policy
            self._schedule.relearn()
        return True

    def _on_ready(self) -> None:
        """A chunk, or the engine of another sampler, is ready."""
        taken = self._worker.take()
        if taken is not None and taken[0] is self._request:
            request, computed = taken
            self._request = None
            if isinstance(computed, Exception):
                self._on_failure(computed)
                return
            self._send(request, computed)
        newest = self.history.newest_stamp()
        if self._active and newest is not None:
            self._consider(newest, self._now())

    def _send(self, request: ChunkRequest, computed: ComputedChunk) -> None:
        statistics, settings = self.statistics, self._settings
        if not np.isfinite(computed.actions).all():
            statistics.non_finite_chunks += 1
            self._node.get_logger().error(
                "the policy's chunk is not finite, not sent", throttle_duration_sec=WARNING_PERIOD
            )
            return
        points = self._points(computed.actions, request.stamp_ns)
        if len(points):
            self._motion.send(points)
            self._previous.remember(computed.prediction, request.stamp_ns)
        done, now = time.perf_counter(), self._now()
        statistics.note(computed.prediction, latency=done - request.arrived, seconds=computed.seconds)
        missed = self._schedule.finished(request.stamp_ns, now - request.started_ns, now)
        if not len(points):
            statistics.late_chunks += 1
            self._node.get_logger().warning(
                f"a chunk came {(now - request.stamp_ns) / 1e9:.3f} s after its observation, too late for all of its "
                f"{self._count} points, not sent",
                throttle_duration_sec=WARNING_PERIOD,
            )
            return
        statistics.chunks += 1
        statistics.deadline_misses += missed
        markers = path_markers(
            points.positions,
            self._joints,
            frame_id=settings.frame_id,
            stamp_ns=request.stamp_ns,
            lifetime_ns=self._chunk_ns,
        )
        self._path.publish(markers)

    def _points(self, actions: NDArray[np.float64], stamp_ns: int) -> ChunkPoints:
        """The points of a horizon (H, J) that are sent now, inside the joints' limits."""
        synchronous = self._settings.synchronous
        horizon, _ = self._joints.clamp(actions)
        points = points_to_come(
            horizon,
            begin=self._begin,
            count=self._count,
            velocities=self._settings.velocities and not synchronous,
            stamp_ns=stamp_ns,
            period_ns=self._period_ns,
            published_ns=None if synchronous else self._now(),
        )
        first = self._begin + points.first - 1
        self.statistics.clamped_points += self._joints.clamp(actions[first : first + len(points)])[1]
        return points


def _history(settings: PolicySettings, policy: DiffusionPolicy) -> ObservationHistory:
    seen = policy.normalizer.observation.to("cpu")
    lower, upper = seen.minimum.double().numpy(), seen.maximum.double().numpy()
    margin = settings.robot.range_margin * (upper - lower)
    # What never varied in training is nothing to the network, and may be anything.
    margin[lower == upper] = np.inf
    return observation_history(
        settings.robot,
        policy.task,
        steps=policy.config.observation_steps,
        limits=(lower - margin, upper + margin),
        features=policy.config.image_encoder.features,
    )
