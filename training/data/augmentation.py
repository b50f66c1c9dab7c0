"""More demonstrations from those that there are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pusht_env.block import keypoint_observation
from pusht_env.mirror import mirrored_points, mirrored_states
from training.data.demonstrations import Demonstrations

AUGMENTATIONS = ("none", "mirror")


def mirrored(demonstrations: Demonstrations) -> Demonstrations:
    """The mirror image of every episode of PushT, in the same order.

    The keypoints are those of the mirrored block pose: the nine points are not symmetric themselves.
    """
    states = mirrored_states(demonstrations.states)
    return replace(
        demonstrations,
        observations=keypoint_observation(states).astype(np.float32),
        actions=mirrored_points(demonstrations.actions).astype(np.float32),
        states=states.astype(np.float32),
    )
