from __future__ import annotations

import numpy as np
import pytest

from ros_nodes.overlay.drawing import draw_path, enlarged, projected

PUSHT = (1 / 512, 0, 0, 0, 1 / 512, 0, 0, 0, 1)


def test_a_path_is_drawn_where_its_points_are_and_nowhere_else() -> None:
    picture = np.full((400, 400, 3), 255, np.uint8)
    points = np.array([[128.0, 128.0], [384.0, 128.0], [384.0, 900.0]])
    draw_path(picture, projected(points, PUSHT))
    orange, red = picture[100, 100], picture[100, 300]
    assert orange.tolist() == [255, 140, 0]
    assert red.tolist() == [191, 70, 64]
    drawn = np.argwhere((picture != 255).any(-1))
    assert drawn.min(0).tolist() >= [95, 95]
    assert drawn[:, 1].max() <= 305, "the last point is outside, the way to it is drawn to the edge"
    assert drawn[:, 0].max() == 399
    assert (picture[95:106, 105:295] != 255).any(-1).any(0).all(), "a line without gaps"


def test_a_homography_is_a_camera_that_looks_askew() -> None:
    askew = (1, 0, 0, 0, 1, 0, 0, 1, 1)
    points = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, -2.0]])
    np.testing.assert_allclose(projected(points, askew), [[0.5, 0.5], [2.0, 0.0]])


@pytest.mark.parametrize(("rows", "expected"), [(96, 384), (100, 400), (480, 480)])
def test_small_pictures_are_enlarged_pixel_by_pixel(rows: int, expected: int) -> None:
    picture = np.arange(rows * 2 * 3, dtype=np.uint32).astype(np.uint8).reshape(rows, 2, 3)
    found = enlarged(picture)
    assert found.shape[0] == expected
    factor = expected // rows
    np.testing.assert_array_equal(found[::factor, ::factor], picture)
