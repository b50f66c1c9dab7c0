from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
import shapely.affinity
from hypothesis import example, given
from hypothesis import strategies as st

from pusht_env.block import (
    AREA,
    BAR,
    KEYPOINTS,
    OUTLINE,
    REACH,
    STEM,
    coverage,
    keypoint_observation,
)

Pose = tuple[float, float, float]

coordinates = st.floats(0.0, 512.0)
angles = st.floats(-2 * math.pi, 2 * math.pi)
poses = st.tuples(coordinates, coordinates, angles)


@st.composite
def overlapping_poses(draw: st.DrawFn) -> tuple[Pose, Pose]:
    """A goal and a block so near it that they mostly overlap."""
    goal = draw(poses)
    offset = st.floats(-120.0, 120.0)
    return goal, (goal[0] + draw(offset), goal[1] + draw(offset), draw(angles))


def placed(pose: Pose) -> shapely.Polygon:
    turned = shapely.affinity.rotate(shapely.Polygon(OUTLINE), pose[2], origin=(0, 0), use_radians=True)
    return shapely.affinity.translate(turned, pose[0], pose[1])


def moved(pose: Pose, motion: Pose) -> Pose:
    """`pose` turned about the origin by the motion's angle, then shifted."""
    cos, sin = math.cos(motion[2]), math.sin(motion[2])
    x, y = cos * pose[0] - sin * pose[1] + motion[0], sin * pose[0] + cos * pose[1] + motion[1]
    return x, y, pose[2] + motion[2]


def test_outline_is_bar_and_stem() -> None:
    bar, stem = (shapely.box(left, top, right, bottom) for left, right, top, bottom in (BAR, STEM))
    outline = shapely.Polygon(OUTLINE)

    assert outline.equals(bar.union(stem))
    assert outline.area == AREA
    assert max(math.hypot(x, y) for x, y in OUTLINE) == REACH


@given(overlapping_poses())
@example(((0.0, 0.0, 0.0), (0.0, 0.0, math.pi / 2)))
@example(((0.0, 0.0, 0.0), (30.0, 30.0, math.pi)))
@example(((0.0, 0.0, 0.0), (60.0, 0.0, 1e-320)))
@example(((0.0, 0.0, 0.0), (0.0, 0.0, 1e-12)))
def test_coverage_is_the_intersection_area_that_shapely_finds(goal_and_block: tuple[Pose, Pose]) -> None:
    goal, block = goal_and_block
    expected = placed(goal).intersection(placed(block)).area / placed(goal).area

    assert coverage(block, goal) == pytest.approx(expected, abs=1e-9)


@given(overlapping_poses())
def test_coverage_is_symmetric(goal_and_block: tuple[Pose, Pose]) -> None:
    goal, block = goal_and_block

    assert coverage(block, goal) == pytest.approx(coverage(goal, block), abs=1e-9)


@given(overlapping_poses(), poses)
def test_coverage_does_not_change_when_block_and_goal_move_together(
    goal_and_block: tuple[Pose, Pose], motion: Pose
) -> None:
    goal, block = goal_and_block

    assert coverage(moved(block, motion), moved(goal, motion)) == pytest.approx(
        coverage(block, goal), abs=1e-9
    )


@given(poses)
def test_coverage_is_one_where_the_block_is_the_goal(pose: Pose) -> None:
    assert coverage(pose, pose) == pytest.approx(1.0, abs=1e-12)


@given(poses, angles, angles)
def test_coverage_is_zero_beyond_twice_the_reach(goal: Pose, direction: float, angle: float) -> None:
    distance = 2 * REACH + 1e-6
    x, y = goal[0] + distance * math.cos(direction), goal[1] + distance * math.sin(direction)

    assert coverage((x, y, angle), goal) == 0.0


def test_coverage_still_counts_tips_that_meet_just_below_twice_the_reach() -> None:
    # The two stems point at each other along the line through opposite corners.
    lean = math.atan2(15.0, 120.0)
    block = (0.0, 2 * REACH - 0.5, math.pi - lean)

    assert 0.0 < coverage(block, (0.0, 0.0, -lean)) < 1e-3


@given(poses, coordinates, coordinates)
def test_keypoints_are_the_block_frame_points_turned_and_shifted(
    pose: Pose, pusher_x: float, pusher_y: float
) -> None:
    observation = keypoint_observation([pusher_x, pusher_y, *pose])

    expected = [moved((x, y, 0.0), pose)[:2] for x, y in KEYPOINTS.tolist()]
    np.testing.assert_allclose(observation[:18].reshape(9, 2), expected, atol=1e-9)
    assert observation[18:].tolist() == [pusher_x, pusher_y]


def test_keypoint_observation_takes_any_leading_shape() -> None:
    states = np.random.default_rng(0).uniform(0, 512, (3, 4, 5))

    observations = keypoint_observation(states)

    assert observations.shape == (3, 4, 20)
    for index in np.ndindex(3, 4):
        np.testing.assert_array_equal(observations[index], keypoint_observation(states[index]))


def test_keypoint_observation_names_the_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"shape \(\.\.\., 5\).*got shape \(2, 4\)"):
        keypoint_observation(np.zeros((2, 4)))
