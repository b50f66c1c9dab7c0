"""Geometry of the PushT block: its outline, its keypoints and how much of the goal it covers.

A pose is `(x, y, angle)`: position of the block's origin (the middle of the bar's free long side) in px, and its
rotation in rad. A state is `(pusher x, pusher y, block x, block y, block angle)`. The y axis
points down, as in an image, and the workspace is the square from (0, 0) to (512, 512).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

BAR = (-60.0, 60.0, 0.0, 30.0)
"""The block's bar in the block's frame: left, right, top and bottom in px."""

STEM = (-15.0, 15.0, 30.0, 120.0)
"""The block's stem in the block's frame: left, right, top and bottom in px."""

OUTLINE = (
    (-60.0, 0.0),
    (60.0, 0.0),
    (60.0, 30.0),
    (15.0, 30.0),
    (15.0, 120.0),
    (-15.0, 120.0),
    (-15.0, 30.0),
    (-60.0, 30.0),
)
"""Corners of the block in its own frame, in the order of its boundary, in px."""

AREA = 6300.0
"""Area of the block, bar and stem, in px²."""

REACH = math.hypot(15.0, 120.0)
"""Distance in px from the block's origin to its farthest corner."""

GOAL_POSE = (256.0, 256.0, math.pi / 4)

KEYPOINTS = np.array(
    [
        [9.2698, 90.0410],
        [-60.9835, -1.1867],
        [60.9128, -1.3934],
        [-0.2705, 25.5436],
        [-14.0649, 122.8159],
        [39.0027, 32.8574],
        [-39.9664, 32.7297],
        [-16.8243, 62.8632],
        [23.5415, -1.7003],
    ]
)
"""The keypoints of the published demonstrations in the block's frame, (9, 2) in px."""
KEYPOINTS.setflags(write=False)


def to_world(points: ArrayLike, pose: ArrayLike) -> NDArray[np.float64]:
    """Move points of the block's frame to the workspace.

    Args:
        points: `(P, 2)` in px, in the block's frame.
        pose: `(..., 3)`, one or many block poses.

    Returns:
        `(..., P, 2)` in px.
    """
    x, y, angle = np.moveaxis(np.asarray(pose, dtype=np.float64)[..., None], -2, 0)
    local_x, local_y = np.asarray(points, dtype=np.float64).T
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([x + cos * local_x - sin * local_y, y + sin * local_x + cos * local_y], axis=-1)


def keypoint_observation(state: ArrayLike) -> NDArray[np.float64]:
    """Observation of a keypoint policy: 9 block keypoints x, y, then pusher x, y, all in px.

    Args:
        state: `(..., 5)`, one or many states.

    Returns:
        `(..., 20)`.

    Raises:
        ValueError: The last axis of `state` does not have 5 entries.
    """
    states = np.asarray(state, dtype=np.float64)
    if states.shape[-1:] != (5,):
        raise ValueError(
            "state must have shape (..., 5): pusher x, y, block x, y and block angle, "
            f"got shape {states.shape}"
        )
    keypoints = to_world(KEYPOINTS, states[..., 2:])  # (..., 9, 2)
    return np.concatenate([keypoints.reshape(*states.shape[:-1], KEYPOINTS.size), states[..., :2]], axis=-1)


def coverage(block_pose: Sequence[float], goal_pose: Sequence[float] = GOAL_POSE) -> float:
    """Share of the goal that the block covers: area of their intersection over area of the goal.

    Exact up to rounding. It is computed in the goal's frame, where the goal is two axis-aligned rectangles,
    because a general polygon intersection takes about as long as all physics of a control step.

    Args:
        block_pose: x, y in px and angle in rad.
        goal_pose: x, y in px and angle in rad.

    Returns:
        0 (disjoint) to 1 (same pose).
    """
    offset_x, offset_y = block_pose[0] - goal_pose[0], block_pose[1] - goal_pose[1]
    if math.hypot(offset_x, offset_y) >= 2 * REACH:
        return 0.0
    goal_cos, goal_sin = math.cos(goal_pose[2]), math.sin(goal_pose[2])
    x, y = goal_cos * offset_x + goal_sin * offset_y, goal_cos * offset_y - goal_sin * offset_x
    angle = block_pose[2] - goal_pose[2]
    cos, sin = math.cos(angle), math.sin(angle)
    outline = [(x + cos * u - sin * v, y + sin * u + cos * v) for u, v in OUTLINE]
    share = (_area_inside(outline, BAR) + _area_inside(outline, STEM)) / AREA
    return min(max(share, 0.0), 1.0)  # rounding can leave the range


def _area_inside(
    outline: Sequence[tuple[float, float]], rectangle: tuple[float, float, float, float]
) -> float:
    """Area of a polygon's part inside an axis-aligned rectangle.

    By Green's theorem it is the integral of -h(y) dx along the polygon's boundary, between the rectangle's
    left and right, where h(y) is how far y lies below the rectangle's top, clipped to its height.
    """
    left, right, top, bottom = rectangle
    height = bottom - top
    area = 0.0
    start_x, start_y = outline[-1]
    for end_x, end_y in outline:
        from_x, to_x = min(max(start_x, left), right), min(max(end_x, left), right)
        if from_x != to_x:
            # Fractions of the edge, as the slope of an almost vertical one could overflow.
            run, rise = end_x - start_x, end_y - start_y
            from_h = start_y + (from_x - start_x) / run * rise - top
            to_h = start_y + (to_x - start_x) / run * rise - top
            area -= _mean_clipped(from_h, to_h, height) * (to_x - from_x)
        start_x, start_y = end_x, end_y
    return area


def _mean_clipped(start: float, end: float, height: float) -> float:
    """Mean of `min(max(h, 0), height)` for h running evenly from `start` to `end`."""
    low, high = (start, end) if start < end else (end, start)
    if high <= 0.0:
        return 0.0
    if low >= height:
        return height
    inside_low, inside_high = max(low, 0.0), min(high, height)
    if low == inside_low and high == inside_high:
        return (low + high) / 2
    inside = (inside_high - inside_low) * (inside_low + inside_high) / 2
    return (inside + (high - inside_high) * height) / (high - low)
