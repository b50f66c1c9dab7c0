"""Which points of a predicted horizon a controller gets. Knows no ROS.

A controller bridges smoothly to a first point in the future, and jumps onto one that is due already. So only points
that are due more than a control period after the publication are sent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, kw_only=True)
class ChunkPoints:
    """Points of a trajectory.

    Attributes:
        stamp_ns: time of the newest observation that they are based on.
        times_ns: (P,) when the points are due, after the observation.
        positions: (P, J) in the joints' units.
        velocities: (P, J) per second, 0 at the last point; None to leave them to the controller.
        accelerations: (P, J) per second squared, 0 at the last point; None to leave them to the controller.
    """

    stamp_ns: int
    times_ns: tuple[int, ...]
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64] | None = None
    accelerations: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def end_ns(self) -> int:
        """When the last point is due."""
        return self.stamp_ns + self.times_ns[-1]

    def position(self, time_ns: int) -> NDArray[np.float64]:
        """(J,) on the straight line between the points before and after a time; the first or last point beyond them."""
        due = np.asarray(self.times_ns) + self.stamp_ns
        return np.array([np.interp(time_ns, due, column) for column in self.positions.T])


def points_to_come(
    horizon: NDArray[np.float64],
    *,
    begin: int,
    count: int,
    velocities: bool,
    stamp_ns: int,
    period_ns: int,
    accelerations: bool = False,
    published_ns: int | None = None,
) -> ChunkPoints:
    """The points of a horizon that are sent; none if it comes too late.

    Args:
        horizon: (H, J) target positions, one each control period.
        begin: index of point 1, which is due a control period after the observation.
        count: number of points from there on.
        velocities: whether to add velocities, by central differences over the horizon.
        stamp_ns: time of the newest observation.
        period_ns: control period.
        accelerations: whether to add accelerations, by central second differences over the horizon, 0 at its ends.
        published_ns: time of the publication on the same clock; None where the world waits for it.
    """
    over = 0 if published_ns is None else max(0, (published_ns - stamp_ns) // period_ns + 1)
    sent = slice(begin + min(over, count), begin + count)
    seconds = period_ns / 1e9
    speeds = forces = None
    if velocities and over < count:
        speeds = np.zeros_like(horizon[sent])
        if len(horizon) > 1:
            speeds[:-1] = np.gradient(horizon, seconds, axis=0)[sent][:-1]
    if accelerations and over < count:
        forces = second_differences(horizon, seconds)[sent].copy()
        forces[-1] = 0.0
    return ChunkPoints(
        stamp_ns=stamp_ns,
        times_ns=tuple(number * period_ns for number in range(over + 1, count + 1)),
        positions=horizon[sent],
        velocities=speeds,
        accelerations=forces,
    )


def second_differences(positions: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
    """(P, J) accelerations of positions (P, J) that are so many seconds apart, 0 at both ends."""
    found = np.zeros_like(positions)
    found[1:-1] = np.diff(positions, 2, axis=0) / seconds**2
    return found


def stop_at(position: NDArray[np.float64], *, now_ns: int, period_ns: int, velocities: bool) -> ChunkPoints:
    """One point, due a control period from now, at which the joints (J,) stand still."""
    return ChunkPoints(
        stamp_ns=now_ns,
        times_ns=(period_ns,),
        positions=position[None],
        velocities=np.zeros((1, len(position))) if velocities else None,
    )
