"""The history that a policy's observations fill."""

from __future__ import annotations

import numpy as np

from policy.robot.description import Robot
from policy.robot.fit import observation_history
from policy.robot.observation_history import ObservationHistory
from ros_nodes.policy_node.loading import LoadedPolicy, observed_range


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
        features=policy.config.image_encoder.features,
    )
