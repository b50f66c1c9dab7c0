"""Points of a trajectory kept to the largest speeds and accelerations of the joints. Knows no ROS.

What counts is the motion that a controller makes of the points (`interpolation`), and the mean speed from where the
joints are measured to the first point: how fast they move by then, nobody tells. Without velocities, what counts are
the speeds along the straight lines, and how much they change from one line to the next.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from policy.robot.joint_limits import JointLimits
from ros_nodes.commands.chunk_points import ChunkPoints, second_differences
from ros_nodes.commands.interpolation import coefficients, derivative, values

OVER_LIMIT = ("slow", "clip")
"""What is done with points that are too fast: the same way in more time, or a shorter way in the same time."""

SHARES = np.linspace(0.0, 1.0, 129)
"""Of a step, where its speed and acceleration are looked at: between two of them it is at most 0.1 % more."""
ROUNDING = 1e-9
ROUNDS = 12
"""In which steps are slowed one by one, before what is left slows them all."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Start:
    """Where and when the way to the first point begins.

    Attributes:
        time_ns: on the clock of the points' stamp.
        position: (J,) of the joints; None where nobody knows.
    """

    time_ns: int
    position: Array | None


def limited(points: ChunkPoints, limits: JointLimits, *, start: Start, over_limit: str) -> ChunkPoints:
    """Points whose motion keeps to the limits; the same ones if theirs does.

    Args:
        points: at least one, inside the limits of the positions, due after the start.
        start: from where the first point is approached.
        over_limit: one of `OVER_LIMIT`. A joint that starts outside of its positions counts as at their limit for
            `clip`, which must not lead it back more slowly.
    """
    motion = _calmed(_motion(points, start), limits)
    if over_limit == "clip" and motion.start is not None:
        motion = replace(motion, start=np.clip(motion.start, limits.lower, limits.upper))
    if motion.excess(limits).max() <= 1 + ROUNDING:
        return points if motion.velocities is points.velocities else _points(motion, points, start)
    return _points({"slow": _slowed, "clip": _clipped}[over_limit](motion, limits), points, start)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Motion:
    """A start (J,), if it is known, and points (P, J), with the seconds (P,) of the step that leads to each of them."""

    start: Array | None
    seconds: Array
    positions: Array
    velocities: Array | None
    accelerations: Array | None

    def polynomials(self) -> Array:
        """(D + 1, P - 1, J) of the steps after the first point."""
        assert self.velocities is not None
        state = (self.positions, self.velocities, self.accelerations)
        before, after = (
            tuple(None if part is None else part[one] for part in state)
            for one in (slice(None, -1), slice(1, None))
        )
        return coefficients(before, after, self.seconds[1:, None])  # type: ignore[arg-type]

    def excess(self, limits: JointLimits) -> Array:
        """(P, J) by how much each step must be slowed at least, 1 where it need not be."""
        speed, force = self.excesses(limits)
        return np.maximum(1.0, np.maximum(speed, np.sqrt(force)))

    def excesses(self, limits: JointLimits) -> tuple[Array, Array]:
        """(P, J) speed and acceleration of each step, as multiples of what is allowed."""
        speed, force = np.zeros_like(self.positions), np.zeros_like(self.positions)
        first = self.positions[0] if self.start is None else self.start
        lines = np.diff(self.positions, axis=0, prepend=first[None]) / self.seconds[:, None]
        speed[0] = np.abs(lines[0])
        if self.velocities is not None:
            rate = derivative(self.polynomials())
            apart = self.seconds[1:, None]
            speed[1:] = np.abs(values(rate, SHARES)).max(axis=0) / apart
            force[1:] = np.abs(values(derivative(rate), SHARES)).max(axis=0) / apart**2
        else:
            speed[1:] = np.abs(lines[1:])
            known = 0 if self.start is not None else 1
            apart = (self.seconds[known:-1] + self.seconds[known + 1 :])[:, None] / 2
            change = np.abs(np.diff(lines[known:], axis=0)) / apart
            force[known + 1 :] = change
            force[known:-1] = np.maximum(force[known:-1], change)
        return speed / np.array(limits.velocity), force / np.array(limits.acceleration)


def _motion(points: ChunkPoints, start: Start) -> _Motion:
    due = np.array(points.times_ns, dtype=np.int64) + points.stamp_ns
    return _Motion(
        start=start.position,
        seconds=np.diff(due, prepend=start.time_ns) / 1e9,
        positions=points.positions,
        velocities=points.velocities,
        accelerations=points.accelerations,
    )


def _points(motion: _Motion, points: ChunkPoints, start: Start) -> ChunkPoints:
    due = start.time_ns - points.stamp_ns + np.rint(np.cumsum(motion.seconds) * 1e9).astype(np.int64)
    return replace(
        points,
        times_ns=tuple(due.tolist()),
        positions=motion.positions,
        velocities=motion.velocities,
        accelerations=motion.accelerations,
    )


def _calmed(motion: _Motion, limits: JointLimits) -> _Motion:
    """No joint swings over the limits of its positions between two points that are inside."""
    if motion.velocities is None or len(motion.positions) < 2:
        return motion
    way = values(motion.polynomials(), SHARES)  # (N, P - 1, J)
    lower, upper = (np.minimum, np.array(limits.lower)), (np.maximum, np.array(limits.upper))
    slack = 1e-9 * (upper[1] - lower[1])
    swings = ((way < lower[1] - slack) | (way > upper[1] + slack)).any(axis=(0, 1))
    if not swings.any():
        return motion
    if motion.accelerations is not None:
        calm = np.zeros_like(motion.velocities)
        return replace(
            motion,
            velocities=np.where(swings, calm, motion.velocities),
            accelerations=np.where(swings, calm, motion.accelerations),
        )
    # Up to three times the smaller of the two mean speeds around a point, a cubic has no bulge (Fritsch, Carlson 1980).
    lines = np.diff(motion.positions, axis=0) / motion.seconds[1:, None]
    before, after = np.concatenate([lines[:1], lines]), np.concatenate([lines, lines[-1:]])
    most = np.where(before * after > 0, 3 * np.sign(before) * np.minimum(np.abs(before), np.abs(after)), 0.0)
    calmed = np.clip(motion.velocities, np.minimum(most, 0.0), np.maximum(most, 0.0))
    return replace(motion, velocities=np.where(swings, calmed, motion.velocities))


def _slowed(motion: _Motion, limits: JointLimits) -> _Motion:
    """The same way, in more time where it is too fast."""
    stretch, slowed = np.ones(len(motion.positions)), motion
    for _ in range(ROUNDS):
        excess = slowed.excess(limits).max(axis=1)
        if excess.max() <= 1 + ROUNDING:
            return slowed
        stretch = stretch * excess
        slowed = _calmed(_stretched(motion, stretch), limits)
    return _stretched(slowed, np.full_like(stretch, slowed.excess(limits).max()))


def _stretched(motion: _Motion, stretch: Array) -> _Motion:
    """Each step (P,) so many times as long. A point is passed at the speed of the slower of its two steps."""
    # The way to the first point says nothing of its speed: it begins at one that nobody knows.
    steps = np.concatenate([stretch[1:2], stretch[1:]]) if len(stretch) > 1 else stretch
    slower = np.maximum(steps, np.concatenate([steps[1:], steps[-1:]]))[:, None]
    return replace(
        motion,
        seconds=motion.seconds * stretch,
        velocities=None if motion.velocities is None else motion.velocities / slower,
        accelerations=None if motion.accelerations is None else motion.accelerations / slower**2,
    )


def _clipped(motion: _Motion, limits: JointLimits) -> _Motion:
    """In the same time, no joint farther than it may: first step by step, then all its way in proportion."""
    fast = motion.excess(limits).max(axis=0) > 1 + ROUNDING
    start = motion.positions[0] if motion.start is None else motion.start
    farthest = np.where(fast, np.array(limits.velocity), np.inf) * motion.seconds[:, None]
    positions, here = motion.positions.copy(), start
    for index, target in enumerate(motion.positions):
        way = np.clip(target - here, -farthest[index], farthest[index])
        here = np.where(fast, here + way, target)
        positions[index] = here
    clipped = replace(motion, positions=positions)
    if len(positions) > 1:
        seconds = motion.seconds[-1]  # points are one control period apart
        if motion.velocities is not None:
            speeds = np.gradient(positions, seconds, axis=0)
            speeds[-1] = 0.0
            clipped = replace(clipped, velocities=np.where(fast, speeds, motion.velocities))
        if motion.accelerations is not None:
            forces = np.where(fast, second_differences(positions, seconds), motion.accelerations)
            clipped = replace(clipped, accelerations=forces)
        clipped = _calmed(clipped, limits)
    speed, force = clipped.excesses(limits)
    share = 1 / np.maximum(1.0, np.maximum(speed, force).max(axis=0))
    return replace(
        clipped,
        positions=np.where(share < 1, start + (clipped.positions - start) * share, clipped.positions),
        velocities=None if clipped.velocities is None else clipped.velocities * share,
        accelerations=None if clipped.accelerations is None else clipped.accelerations * share,
    )
