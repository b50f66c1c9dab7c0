"""Chunks along a known path, as a policy would predict them that sees where it is and not quite where it will be."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ros_nodes.commands.chunk_points import ChunkPoints, points_to_come

PERIOD = 0.1
"""Control period in s, as PushT's."""
HORIZON, BEGIN, CHUNK = 16, 1, 8
"""Points of a horizon, index of point 1, and points of a chunk, as the shipped policy's."""
CENTRE, RADIUS, SPEED = 256.0, 120.0, 364.0
"""Of the path, a circle, in px and px/s."""
MARGIN = 0.05
"""Seconds by which a chunk comes before the one before it is over, the policy node's default."""


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What is sent of a chunk.

    Attributes:
        name: for people.
        drops: whether points are left out that are due within a control period.
        velocities: whether points have velocities.
        tail: number of points after the chunk.
        hand_over: of the sampler, for a policy's chunks.
    """

    name: str
    drops: bool = False
    velocities: bool = False
    tail: int = 0
    hand_over: str = "replace"


BEFORE = Publication(name="all points, positions only")
ALL_VELOCITIES = Publication(name="all points, velocities")
NOW = Publication(name="points to come, velocities", drops=True, velocities=True)
TAIL = Publication(name="points to come, velocities, 7 points more", drops=True, velocities=True, tail=7)
BLEND, INPAINT = (
    replace(TAIL, name=f"the same, `hand_over: {name}`", hand_over=name) for name in ("blend", "inpaint")
)


def path(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, 2) px at times (T,) in s."""
    angle = times * SPEED / RADIUS
    return CENTRE + RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def horizon(stamp: float, *, drift: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(H, 2) a prediction along the path.

    Args:
        stamp: time of its observation in s.
        drift: standard deviation in px of point 8 from the path, in each joint; in proportion for the others.
        rng: of the drift.
    """
    numbers = np.arange(HORIZON, dtype=np.float64) - (BEGIN - 1)
    away = rng.normal(0.0, drift, 2) if drift else np.zeros(2)
    return path(stamp + numbers * PERIOD) + numbers[:, None] / CHUNK * away


def interval(latency: float) -> float:
    """Seconds from one observation that a chunk is computed from to the next, so that the next chunk is in time."""
    return PERIOD * int(round((CHUNK * PERIOD - latency - MARGIN) / PERIOD * 1e6) // 10**6)


def points(
    actions: NDArray[np.float64], publication: Publication, *, stamp_ns: int, published_ns: int
) -> ChunkPoints:
    """What is sent of a horizon (H, 2)."""
    return points_to_come(
        actions,
        begin=BEGIN,
        count=CHUNK + publication.tail,
        velocities=publication.velocities,
        stamp_ns=stamp_ns,
        period_ns=round(PERIOD * 1e9),
        published_ns=published_ns if publication.drops else None,
    )
