"""What the policy node hears of its sources: messages in, measurements out.

Everything here runs in the executor's thread; only pictures are encoded in another one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy

from policy.robot.fit import FilledPart
from policy.robot.message_types import Message
from policy.robot.messages import measurement, message_stamp_ns
from policy.robot.observation_history import RejectedObservation, check_age
from policy.robot.pictures import MOST_PICTURE_BYTES
from ros_nodes.policy_node.frame_encoder import Encode, Frame, FrameEncoder
from ros_nodes.policy_node.parameters import PolicySettings
from ros_nodes.policy_node.statistics import PolicyStatistics
from ros_nodes.reception.bounded_subscription import MOST_BYTES, subscribe_bounded
from ros_nodes.reception.message_classes import message_class

BYTES_PER_NUMBER = 64  # in a message for an observation of many numbers, with names and fields beside them
QUEUE = 10
RELIABILITIES = {"reliable": ReliabilityPolicy.RELIABLE, "best_effort": ReliabilityPolicy.BEST_EFFORT}


class Take(Protocol):
    """Takes a measurement: its part, its time in ns, its numbers, and its arrival by `time.perf_counter`."""

    def __call__(self, part: FilledPart, stamp: int, values: NDArray[np.float64], *, arrived: float) -> None:
        """Raises RejectedObservation for one that is not taken."""


class ObservationInput:
    """Subscribes to the sources of a task's parts.

    Args:
        node: node that it subscribes with.
        parts: the task's parts and their sources.
        settings: of the node.
        encode: what encodes pictures; None for a policy without.
        statistics: where skipped frames and the time of encoding are noted.
        take: takes a measurement.
        refuse: takes source, reason and detail of what is refused.
        fail: takes what the encoder raised.
    """

    def __init__(
        self,
        node: LifecycleNode,
        parts: Sequence[FilledPart],
        *,
        settings: PolicySettings,
        encode: Encode | None,
        statistics: PolicyStatistics,
        take: Take,
        refuse: Callable[[str, str, str], None],
        fail: Callable[[Exception], None],
    ) -> None:
        self._node = node
        self._synchronous = settings.synchronous
        self._statistics = statistics
        self._take, self._refuse, self._fail = take, refuse, fail
        self._listens = False
        self._frames: FrameEncoder | None = None
        with ExitStack() as resources:
            if cameras := {part.slice.name: part for part in parts if part.image is not None}:
                assert encode is not None
                ready = node.create_guard_condition(self._on_encoded)
                resources.callback(node.destroy_guard_condition, ready)
                self._frames = FrameEncoder(
                    cameras,
                    encode,
                    notify=ready.trigger,
                    threads=settings.threads,
                    every=settings.synchronous,
                )
                resources.callback(self._frames.close)
            for part in parts:
                source = part.source
                subscription = subscribe_bounded(
                    node,
                    message_class(source.type),
                    source.topic,
                    callback=partial(self._on_frame if part.image else self._on_message, part),
                    refuse=partial(self._on_refused, source.name),
                    qos=QoSProfile(depth=QUEUE, reliability=RELIABILITIES[source.reliability]),
                    most_bytes=MOST_PICTURE_BYTES
                    if part.image
                    else MOST_BYTES + BYTES_PER_NUMBER * part.slice.size,
                )
                resources.callback(node.destroy_subscription, subscription)
            self._resources = resources.pop_all()

    def listen(self, listens: bool) -> None:
        """Whether messages count from now on."""
        self._listens = listens

    def forget(self) -> None:
        """Start anew, as if nothing had ever arrived."""
        if self._frames is not None:
            self._frames.forget()

    def close(self) -> None:
        self._resources.close()

    def _now(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def _on_message(self, part: FilledPart, message: Message) -> None:
        if not self._listens:
            return
        arrived, now = time.perf_counter(), self._now()
        try:
            stamp, values = measurement(message, part.source, size=part.slice.size, now_ns=now)
            self._check_age(part, stamp, now)
            self._take(part, stamp, values, arrived=arrived)
        except RejectedObservation as rejection:
            self._refuse(part.slice.name, rejection.reason, str(rejection))

    def _on_frame(self, part: FilledPart, message: Message) -> None:
        if not self._listens:
            return
        assert self._frames is not None
        arrived, now = time.perf_counter(), self._now()
        try:
            self._check_age(part, message_stamp_ns(message, now), now)
        except RejectedObservation as rejection:
            self._refuse(part.slice.name, rejection.reason, str(rejection))
            return
        self._frames.submit(Frame(part=part, message=message, now_ns=now, arrived=arrived))

    def _on_encoded(self) -> None:
        assert self._frames is not None
        self._statistics.skipped_frames = self._frames.skipped
        for encoded in self._frames.take():
            part = encoded.frame.part
            try:
                if isinstance(encoded.features, Exception):
                    raise encoded.features
                self._statistics.encoding_seconds.append(encoded.seconds)
                self._take(part, encoded.stamp_ns, encoded.features, arrived=encoded.frame.arrived)
            except RejectedObservation as rejection:
                self._refuse(part.slice.name, rejection.reason, str(rejection))
            except Exception as error:  # of the encoder, which is part of the policy
                self._fail(error)
                return

    def _on_refused(self, source: str, reason: str, detail: str) -> None:
        if self._listens:
            self._refuse(source, reason, detail)

    def _check_age(self, part: FilledPart, stamp_ns: int, now_ns: int) -> None:
        if not self._synchronous:  # in lockstep the clock may be ahead, but nothing ages
            check_age(part.slice, stamp_ns, now_ns, may_lead=self._node.get_clock().ros_time_is_active)
