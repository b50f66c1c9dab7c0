from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ros_nodes.commands.chunk_points import ChunkPoints, points_to_come, stop_at

PERIOD = 10**8
HORIZON = np.random.default_rng(0).normal(size=(16, 2))


def points(
    published_ns: int | None, *, count: int = 8, velocities: bool = True, accelerations: bool = False
) -> ChunkPoints:
    """Of an observation at 5 s."""
    return points_to_come(
        HORIZON,
        begin=1,
        count=count,
        velocities=velocities,
        accelerations=accelerations,
        stamp_ns=50 * PERIOD,
        period_ns=PERIOD,
        published_ns=published_ns,
    )


def test_in_lockstep_all_points_are_sent() -> None:
    sent = points(None, velocities=False)
    np.testing.assert_array_equal(sent.positions, HORIZON[1:9])
    assert sent.velocities is None
    assert sent.times_ns == tuple(i * PERIOD for i in range(1, 9))


@given(st.integers(-20 * PERIOD, 20 * PERIOD), st.integers(1, 15))
def test_exactly_the_points_are_sent_that_are_due_more_than_a_period_after_publication(
    late: int, count: int
) -> None:
    published = 50 * PERIOD + late
    sent = points(published, count=count)
    due = [50 * PERIOD + i * PERIOD for i in range(1, count + 1)]
    assert [sent.stamp_ns + time for time in sent.times_ns] == [t for t in due if t > published + PERIOD]
    np.testing.assert_array_equal(sent.positions, HORIZON[1 : 1 + count][count - len(sent) :])
    assert (sent.velocities is None) == (len(sent) == 0)


def test_velocities_are_central_differences_and_end_at_rest() -> None:
    sent = points(50 * PERIOD + 1)
    assert sent.times_ns[0] == 2 * PERIOD
    assert sent.velocities is not None
    assert not sent.velocities[-1].any()
    # Point i is index i of this horizon, whose first action is that of the observation before.
    for row, number in enumerate(range(2, 8)):
        expected = (HORIZON[number + 1] - HORIZON[number - 1]) / 0.2
        np.testing.assert_allclose(sent.velocities[row], expected)


def test_accelerations_are_central_second_differences_and_end_at_rest() -> None:
    sent = points(50 * PERIOD + 1, accelerations=True)
    assert sent.accelerations is not None
    assert not sent.accelerations[-1].any()
    for row, number in enumerate(range(2, 8)):
        before, at, after = HORIZON[number - 1 : number + 2]
        np.testing.assert_allclose(sent.accelerations[row], (after - 2 * at + before) / 0.01)
    assert points(50 * PERIOD + 1).accelerations is None


def test_with_a_tail_the_last_point_of_the_chunk_moves_on() -> None:
    sent = points(None, count=15)
    assert sent.velocities is not None
    np.testing.assert_allclose(sent.velocities[7], (HORIZON[9] - HORIZON[7]) / 0.2)
    assert not sent.velocities[-1].any()
    np.testing.assert_array_equal(sent.positions, HORIZON[1:])


def test_position_lies_between_the_points() -> None:
    sent = points(None)
    np.testing.assert_allclose(
        sent.position(51 * PERIOD + PERIOD // 4), 0.75 * HORIZON[1] + 0.25 * HORIZON[2]
    )
    np.testing.assert_array_equal(sent.position(0), HORIZON[1])
    np.testing.assert_array_equal(sent.position(100 * PERIOD), HORIZON[8])
    assert sent.end_ns == 58 * PERIOD


@pytest.mark.parametrize("velocities", [True, False])
def test_a_stop_is_one_point_at_rest_a_period_later(velocities: bool) -> None:
    stop = stop_at(np.array([3.0, 4.0]), now_ns=7, period_ns=PERIOD, velocities=velocities)
    assert (stop.positions.tolist(), stop.end_ns) == ([[3.0, 4.0]], 7 + PERIOD)
    assert (
        (stop.velocities is not None and not stop.velocities.any()) if velocities else stop.velocities is None
    )
