"""The configured part of the policy node: observations in, chunks out while it is active.

Everything here runs in the executor's thread; only the policy itself runs in the worker's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import numpy as np
import torch
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from visualization_msgs.msg import MarkerArray

from policy import DiffusionPolicy
from policy.chunk_schedule import ChunkSchedule
from policy.robot.fit import (
    FilledPart,
    commanded_joints,
    control_period_ns,
    filled_parts,
    observation_history,
)
from policy.robot.message_types import Message
from policy.robot.messages import measurement
from policy.robot.observation_history import Arrival, ObservationHistory, RejectedObservation, check_age
from policy.runtime import Policy
from ros_nodes.commands.chunk_messages import path_markers, trajectory_message
from ros_nodes.commands.trajectory_output import ActionOutput, TopicOutput, TrajectoryOutput
from ros_nodes.policy_node.inference_worker import ChunkRequest, ComputedChunk, InferenceWorker, compute_chunk
from ros_nodes.policy_node.parameters import PolicyParameters, PolicySettings
from ros_nodes.policy_node.preparation import PolicyPreparation, prepare
from ros_nodes.policy_node.previous_prediction import PreviousPrediction
from ros_nodes.policy_node.statistics import PolicyStatistics
from ros_nodes.reception.bounded_subscription import MOST_BYTES, subscribe_bounded
from ros_nodes.reception.message_classes import message_class
from ros_nodes.reception.refusals import WARNING_PERIOD, Refusals

REPEAT_AFTER = 1.0  # s
BYTES_PER_NUMBER = 64  # in a message for an observation of many numbers, with names and fields beside them

RELIABILITIES = {"reliable": ReliabilityPolicy.RELIABLE, "best_effort": ReliabilityPolicy.BEST_EFFORT}


class ActionLoop:
    """Turns observations into trajectories.

    Args:
        node: node that it subscribes and publishes with.
        parameters: parameters, of which some may change at run time.
        settings: the parameters that may not.
        policy: policy on its device, with its sampler.
        on_failure: called in the executor's thread with what the policy raised.

    Raises:
        ValueError: for a robot that does not fill the policy's task, naming the part.
    """

    def __init__(
        self,
        node: LifecycleNode,
        *,
        parameters: PolicyParameters,
        settings: PolicySettings,
        policy: DiffusionPolicy,
        on_failure: Callable[[Exception], None],
    ) -> None:
        config, robot, task = policy.config, settings.robot, policy.task
        self._joints = commanded_joints(robot, task)
        self._period_ns = control_period_ns(robot, task)
        self._parts = filled_parts(robot, task)
        self.statistics = PolicyStatistics()
        self.history = _history(settings, policy)
        self._node = node
        self._parameters = parameters
        self._settings = settings
        self._policy = prepare(policy, settings.engine, settings.threads)
        self._on_failure = on_failure
        self._chunk_ns = config.action_steps * self._period_ns
        self._schedule = ChunkSchedule(
            chunk_ns=self._chunk_ns,
            period_ns=self._period_ns,
            margin_ns=settings.inference_margin_ns,
            synchronous=settings.synchronous,
            inference_ns=round(_warm_up(self._policy, policy) * 1e9),
        )
        self._active = False
        self._arrived = 0.0  # of the newest observation, by time.perf_counter
        self._request: ChunkRequest | None = None  # the one that the worker computes
        self._sent: tuple[float, int, object] | None = None
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
        for part in self._parts:
            source = part.source
            subscription = subscribe_bounded(
                node,
                message_class(source.type),
                source.topic,
                callback=partial(self._on_message, part),
                refuse=partial(self._refuse, source.name),
                qos=QoSProfile(depth=10, reliability=RELIABILITIES[source.reliability]),
                most_bytes=MOST_BYTES + BYTES_PER_NUMBER * part.slice.size,
            )
            resources.callback(node.destroy_subscription, subscription)

    def activate(self) -> None:
        self._active = True
        self.forget()

    def deactivate(self) -> None:
        self._active = False
        self.forget()
        self._output.cancel()

    def close(self) -> None:
        """Give up everything that it holds in the node, and end the worker."""
        self.deactivate()
        self._resources.close()

    def forget(self) -> None:
        """Start anew: history, noises and schedule. A chunk that is being computed will be dropped."""
        self.history.forget()
        self._restart()

    def _restart(self) -> None:
        self._start_noises(self._parameters.seed())
        self._schedule.restart()
        self._request = None
        self._sent = None

    def _start_noises(self, seed: int) -> None:
        self._seed = seed
        self._generator = torch.Generator().manual_seed(seed)
        self._previous.forget()

    def obstacle(self) -> str | None:
        """Why no chunk can be computed now, or None."""
        return self.history.obstacle(self._now()) or self._output.obstacle()

    def ages(self) -> dict[str, float | None]:
        return self.history.ages(self._now())

    def _now(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def _on_message(self, part: FilledPart, message: Message) -> None:
        if not self._active:
            return
        arrived, now = time.perf_counter(), self._now()
        try:
            stamp, values = measurement(message, part.source, size=part.slice.size, now_ns=now)
            if not self._settings.synchronous:  # in lockstep the clock may be ahead, but nothing ages
                check_age(part.slice, stamp, now, may_lead=self._node.get_clock().ros_time_is_active)
            arrival = self.history.add(part.slice.name, stamp, values)
        except RejectedObservation as rejection:
            self._refuse(part.slice.name, rejection.reason, str(rejection))
            return
        if arrival is Arrival.RESTART:
            self._restart()
        elif arrival is Arrival.DUPLICATE:
            self._repeat(stamp)
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

    def _repeat(self, stamp_ns: int) -> None:
        """In lockstep, an observation again and again means that the chunk for it was lost."""
        if not self._settings.synchronous or self._sent is None:
            return
        sent, sent_stamp, trajectory = self._sent
        if stamp_ns == sent_stamp and time.monotonic() - sent > REPEAT_AFTER:
            self._output.send(trajectory)
            self._sent = time.monotonic(), sent_stamp, trajectory

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
        if not np.isfinite(computed.chunk).all():
            statistics.non_finite_chunks += 1
            self._node.get_logger().error(
                "the policy's chunk is not finite, not sent", throttle_duration_sec=WARNING_PERIOD
            )
            return
        chunk, clamped = self._joints.clamp(computed.chunk)
        trajectory = trajectory_message(
            chunk,
            self._joints.names,
            stamp_ns=request.stamp_ns,
            period_ns=self._period_ns,
        )
        self._output.send(trajectory)
        sent, now = time.perf_counter(), self._now()
        self._sent = time.monotonic(), request.stamp_ns, trajectory
        self._previous.remember(computed.prediction, request.stamp_ns)
        statistics.chunks += 1
        statistics.depth = computed.prediction.depth
        statistics.network_evaluations = computed.prediction.network_evaluations
        statistics.residual = float(computed.prediction.residual[0])
        statistics.deadline_cuts += computed.prediction.cut
        statistics.clamped_points += clamped
        statistics.latencies.append(sent - request.arrived)
        statistics.inference_seconds.append(computed.seconds)
        statistics.deadline_misses += self._schedule.finished(request.stamp_ns, now - request.started_ns, now)
        markers = path_markers(
            chunk,
            self._joints,
            frame_id=settings.frame_id,
            stamp_ns=request.stamp_ns,
            lifetime_ns=self._chunk_ns,
        )
        self._path.publish(markers)


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
    )


def _warm_up(prepared: Policy, policy: DiffusionPolicy) -> float:
    """Inference time in s of the second chunk, since the first one of a process takes longer."""
    limits = policy.normalizer.observation.to("cpu")
    middle = ((limits.minimum + limits.maximum) / 2).double().numpy()
    observations = np.repeat(middle[None], policy.config.observation_steps, axis=0)
    request = ChunkRequest(
        policy=prepared,
        observations=observations,
        generator=torch.Generator().manual_seed(0),
        stamp_ns=0,
        started_ns=0,
        arrived=0.0,
    )
    compute_chunk(request)
    return compute_chunk(request).seconds
