"""A path over a picture. Knows no ROS."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from policy.robot.pictures import Picture

SMALLEST_SIDE = 384  # px: smaller pictures are enlarged, so that a path can be seen on them
POINT_RADIUS, LINE_RADIUS = 0.012, 0.004  # as shares of the picture's height
MOST_DOTS = 1000  # that make the line from one point to the next
START, END = (
    np.array([255.0, 140.0, 0.0]),
    np.array([128.0, 0.0, 128.0]),
)  # from orange (next) to purple (last)


def projected(points: NDArray[np.float64], homography: Sequence[float]) -> NDArray[np.float64]:
    """Points (n, 2) by a homography of 9 numbers, row by row; without those behind the picture's plane."""
    homogeneous = np.column_stack([points, np.ones(len(points))]) @ np.reshape(homography, (3, 3)).T
    before = homogeneous[:, 2] > 0
    projection: NDArray[np.float64] = homogeneous[before, :2] / homogeneous[before, 2:]
    return projection


def enlarged(picture: Picture) -> Picture:
    """A picture each of whose pixels is so many that it has at least `SMALLEST_SIDE` rows."""
    factor = -(-SMALLEST_SIDE // picture.shape[0])
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def draw_path(picture: Picture, path: NDArray[np.float64]) -> None:
    """Draw a path into a picture (h, w, 3): a line with a dot at each point.

    Args:
        path: (n, 2) x and y, as shares of the picture's width and height. What is outside is not drawn.
    """
    height, width, _ = picture.shape
    places = path * (width, height)
    shares = np.linspace(0, 1, len(path))[:, None]
    colors = (1 - shares) * START + shares * END
    thin, thick = (max(1.0, share * height) for share in (LINE_RADIUS, POINT_RADIUS))
    for index in range(len(path) - 1):
        length = float(np.hypot(*(places[index + 1] - places[index])))
        for share in np.linspace(0, 1, min(MOST_DOTS, int(length / thin) + 2)):
            place = (1 - share) * places[index] + share * places[index + 1]
            _draw_dot(picture, place, radius=thin, color=colors[index])
    for place, color in zip(places[::-1], colors[::-1], strict=True):  # the next one above all
        _draw_dot(picture, place, radius=thick, color=color)


def _draw_dot(
    picture: Picture, center: NDArray[np.float64], *, radius: float, color: NDArray[np.float64]
) -> None:
    x, y = center.tolist()
    height, width, _ = picture.shape
    if not (-radius < x < width + radius and -radius < y < height + radius):
        return
    left, top = max(0, int(x - radius)), max(0, int(y - radius))
    right, bottom = min(width, int(x + radius) + 2), min(height, int(y + radius) + 2)
    rows, columns = np.mgrid[top:bottom, left:right] + 0.5
    inside = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    picture[top:bottom, left:right][inside] = color.astype(np.uint8)
