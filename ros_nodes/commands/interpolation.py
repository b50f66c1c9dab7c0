"""What a controller makes of two points: the polynomial between them, as joint_trajectory_controller's splines are.

Points without velocities are joined by straight lines, those with velocities by cubics, those with accelerations too by
quintics. Knows no ROS.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


def coefficients(
    before: tuple[Vector, Vector, Vector | None], after: tuple[Vector, Vector, Vector | None], seconds: Any
) -> NDArray[np.float64]:
    """The polynomial between two points.

    Args:
        before, after: position, velocity and acceleration (…, J) of both; a cubic without accelerations.
        seconds: between them; broadcasts with the positions.

    Returns:
        (D + 1, …, J) coefficients of the powers of the share 0 … 1 of the time that has passed.
    """
    (start, speed, force), (end, end_speed, end_force) = before, after
    way, v, w = end - start, speed * seconds, end_speed * seconds
    if force is None or end_force is None:
        return np.stack([start, v, 3 * way - 2 * v - w, v + w - 2 * way])
    a, b = force * seconds**2, end_force * seconds**2
    return np.stack(
        [
            start,
            v,
            a / 2,
            10 * way - 6 * v - 4 * w - 1.5 * a + 0.5 * b,
            -15 * way + 8 * v + 7 * w + 1.5 * a - b,
            6 * way - 3 * v - 3 * w - 0.5 * a + 0.5 * b,
        ]
    )


def derivative(polynomial: NDArray[np.float64]) -> NDArray[np.float64]:
    """(D, …, J) coefficients of the change with the share, of (D + 1, …, J)."""
    powers = np.arange(1, len(polynomial)).reshape(-1, *(1,) * (polynomial.ndim - 1))
    return polynomial[1:] * powers


def values(polynomial: NDArray[np.float64], shares: Vector) -> NDArray[np.float64]:
    """(N, …, J) values of a polynomial (D + 1, …, J) at shares (N,)."""
    powers = shares[:, None] ** np.arange(len(polynomial))
    return np.einsum("np,p...->n...", powers, polynomial)
