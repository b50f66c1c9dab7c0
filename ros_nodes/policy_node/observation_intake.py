"""How a policy's observations come in: the history that they fill, and the topics that fill it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy

from policy.robot.description import Robot
from policy.robot.fit import FilledPart, observation_history
from policy.robot.message_types import Message
from policy.robot.observation_history import ObservationHistory
from ros_nodes.policy_node.loading import LoadedPolicy, observed_range
from ros_nodes.reception.bounded_subscription import MOST_BYTES, subscribe_bounded
from ros_nodes.reception.message_classes import message_class

BYTES_PER_NUMBER = 64  # in a message for an observation of many numbers, with names and fields beside them

RELIABILITIES = {"reliable": ReliabilityPolicy.RELIABLE, "best_effort": ReliabilityPolicy.BEST_EFFORT}


def policy_history(robot: Robot, policy: LoadedPolicy) -> ObservationHistory:
    """The observations that a policy acts on, which may leave the range of its training data by the robot's margin."""
    seen = observed_range(policy)
    lower, upper = seen.minimum.double().numpy(), seen.maximum.double().numpy()
    margin = robot.range_margin * (upper - lower)
    # What never varied in training is nothing to the network, and may be anything.
    margin[lower == upper] = np.inf
    return observation_history(
        robot,
        policy.task,
        steps=policy.config.observation_steps,
        limits=(lower - margin, upper + margin),
    )


def subscribe_part(
    node: LifecycleNode,
    part: FilledPart,
    resources: ExitStack,
    *,
    receive: Callable[[FilledPart, Message], None],
    refuse: Callable[[str, str, str], None],
) -> None:
    """Subscribe to the source of a part; `resources` gives it up again.

    Args:
        receive: called with the part and each message.
        refuse: called with source, reason and detail instead.
    """
    source = part.source
    subscription = subscribe_bounded(
        node,
        message_class(source.type),
        source.topic,
        callback=partial(receive, part),
        refuse=partial(refuse, source.name),
        qos=QoSProfile(depth=10, reliability=RELIABILITIES[source.reliability]),
        most_bytes=MOST_BYTES + BYTES_PER_NUMBER * part.slice.size,
    )
    resources.callback(node.destroy_subscription, subscription)
