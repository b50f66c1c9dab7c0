from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import BPoly

from policy.robot.joint_limits import JointLimits
from ros_nodes.commands.chunk_points import ChunkPoints, points_to_come
from ros_nodes.commands.limited_points import OVER_LIMIT, Start, limited

PERIOD = 10**8
NOW = 50 * PERIOD
JOINTS = 2
LOOSE = JointLimits(("a", "b"), (-1.0, -1.0), (1.0, 1.0), (1e9, 1e9), (1e9, 1e9))


def chunk(seed: int, *, count: int = 8, degree: int = 3, scale: float = 1.0) -> ChunkPoints:
    """Points of a random horizon within ±1, published at `NOW`."""
    horizon = np.clip(scale * np.random.default_rng(seed).normal(size=(16, JOINTS)), -1.0, 1.0)
    return points_to_come(
        horizon,
        begin=1,
        count=count,
        velocities=degree >= 3,
        accelerations=degree >= 5,
        stamp_ns=NOW - PERIOD // 2,
        period_ns=PERIOD,
        published_ns=NOW,
    )


def motion(points: ChunkPoints, samples: int = 401) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, speeds and accelerations along a path, as SciPy interpolates it."""
    seconds = np.array(points.times_ns) / 1e9
    states = [
        part for part in (points.positions, points.velocities, points.accelerations) if part is not None
    ]
    path = BPoly.from_derivatives(seconds, np.stack(states, axis=1))
    times = np.linspace(seconds[0], seconds[-1], samples * len(seconds))[:-1]
    velocity = path.derivative()
    return (
        path(times),
        velocity(times),
        velocity.derivative()(times) if len(states) > 1 else 0 * times[:, None],
    )


starts = st.one_of(st.none(), st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(np.array))
bounds = st.one_of(st.just(math.inf), st.floats(0.01, 100.0))


@given(
    seed=st.integers(0, 2**32 - 1),
    degree=st.sampled_from([1, 3, 5]),
    count=st.integers(2, 9),
    velocity=st.tuples(bounds, bounds),
    acceleration=st.tuples(bounds, bounds),
    start=starts,
    over_limit=st.sampled_from(OVER_LIMIT),
)
def test_the_motion_keeps_to_the_limits(
    seed: int,
    degree: int,
    count: int,
    velocity: tuple[float, float],
    acceleration: tuple[float, float],
    start: np.ndarray | None,
    over_limit: str,
) -> None:
    limits = replace(LOOSE, velocity=velocity, acceleration=acceleration)
    given_points = chunk(seed, count=count, degree=degree)
    found = limited(given_points, limits, start=Start(time_ns=NOW, position=start), over_limit=over_limit)
    assert len(found) == len(given_points)
    assert found.times_ns[0] > NOW - found.stamp_ns
    assert np.all(np.diff(found.times_ns) > 0)
    speed, force = np.array(velocity) * 1.002, np.array(acceleration) * 1.002
    if start is not None:
        seconds = (found.stamp_ns + found.times_ns[0] - NOW) / 1e9
        assert (np.abs(found.positions[0] - start) / seconds <= speed + 1e-9).all()
    if len(found) > 1:
        positions, speeds, forces = motion(found)
        assert np.abs(positions).max() <= 1 + 1e-3
        assert (np.abs(speeds) <= speed + 1e-9).all()
        assert (np.abs(forces) <= force + 1e-6).all()
        seconds = np.diff(np.array(found.times_ns)) / 1e9
        lines = np.diff(found.positions, axis=0) / seconds[:, None]
        if degree == 1 and len(found) > 2:
            apart = (seconds[1:] + seconds[:-1])[:, None] / 2
            assert (np.abs(np.diff(lines, axis=0)) / apart <= force + 1e-6).all()
    if found.velocities is not None:
        assert not found.velocities[-1].any(), "a controller refuses a chunk that does not end at rest"
    if over_limit == "clip":
        assert found.times_ns == given_points.times_ns
    elif found.velocities is None:
        np.testing.assert_array_equal(found.positions, given_points.positions)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 5]), st.sampled_from(OVER_LIMIT))
def test_a_chunk_inside_the_limits_is_the_same_one(seed: int, degree: int, over_limit: str) -> None:
    points = chunk(seed, degree=degree, scale=0.01)
    start = Start(time_ns=NOW, position=points.positions[0])
    assert limited(points, LOOSE, start=start, over_limit=over_limit) is points


def test_a_step_that_is_too_fast_is_slowed_and_the_others_keep_their_pace() -> None:
    positions = np.array([[0.0, 0.0], [0.1, 0.0], [0.5, 0.0], [0.6, 0.0]])
    times = tuple(PERIOD * number for number in (1, 2, 3, 4))
    points = ChunkPoints(stamp_ns=NOW, times_ns=times, positions=positions)
    limits = replace(LOOSE, velocity=(2.0, math.inf), acceleration=())
    start = Start(time_ns=NOW, position=np.zeros(2))
    slowed = limited(points, limits, start=start, over_limit="slow")
    assert np.diff(slowed.times_ns).tolist() == pytest.approx([PERIOD, 2 * PERIOD, PERIOD])
    clipped = limited(points, limits, start=start, over_limit="clip")
    np.testing.assert_allclose(clipped.positions[:, 0], [0.0, 0.1, 0.3, 0.5])


def test_the_first_step_counts_from_where_the_joints_are_measured() -> None:
    points = chunk(0, count=3)
    limits = replace(LOOSE, velocity=(0.5, 1e9))
    far = points.positions[0] - [1.0, 0.0]
    slowed = limited(points, limits, start=Start(time_ns=NOW, position=far), over_limit="slow")
    assert (slowed.stamp_ns + slowed.times_ns[0] - NOW) / 1e9 == pytest.approx(2.0)
    unknown = limited(
        points,
        replace(limits, velocity=(1e9, 1e9)),
        start=Start(time_ns=NOW, position=None),
        over_limit="slow",
    )
    assert unknown is points


@pytest.mark.parametrize("degree", [3, 5])
def test_joints_do_not_swing_over_their_limits_between_two_points(degree: int) -> None:
    horizon = np.zeros((16, JOINTS))
    horizon[:, 0] = [-1, -1, 0, 1, 1, 1, 0, -1, -1, -1, -1, -1, -1, -1, -1, -1]
    points = points_to_come(
        horizon, begin=1, count=8, velocities=True, accelerations=degree == 5, stamp_ns=NOW, period_ns=PERIOD
    )
    assert np.abs(motion(points)[0]).max() > 1.01
    calm = limited(points, LOOSE, start=Start(time_ns=NOW, position=None), over_limit="clip")
    assert np.abs(motion(calm)[0]).max() <= 1 + 1e-6
    np.testing.assert_array_equal(calm.positions, points.positions)
    assert calm.times_ns == points.times_ns
