from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from visualization_msgs.msg import Marker

from ros_nodes.commands.chunk_messages import JointLimits, path_markers, trajectory_message
from ros_nodes.commands.chunk_points import ChunkPoints

LIMITS = JointLimits(("pusher_x", "pusher_y"), (0.0, 0.0), (512.0, 512.0))
CHUNK = np.arange(16.0).reshape(8, 2) + 1 / 3


def nanoseconds(time: object) -> int:
    return time.sec * 10**9 + time.nanosec  # type: ignore[attr-defined]


def points(
    velocities: np.ndarray | None = None, accelerations: np.ndarray | None = None, **options: int
) -> ChunkPoints:
    first, period = options.get("first", 1), options.get("period_ns", 10**8)
    return ChunkPoints(
        stamp_ns=options.get("stamp_ns", 0),
        times_ns=tuple(period * number for number in range(first, first + 8)),
        positions=CHUNK,
        velocities=velocities,
        accelerations=accelerations,
    )


@given(st.integers(0, 2**31 * 10**9 - 1), st.integers(1, 10**10), st.integers(1, 9))
def test_point_i_is_due_i_periods_after_the_observation(stamp: int, period: int, first: int) -> None:
    message = trajectory_message(points(stamp_ns=stamp, period_ns=period, first=first), LIMITS.names)
    assert nanoseconds(message.header.stamp) == stamp
    assert [nanoseconds(point.time_from_start) for point in message.points] == [
        i * period for i in range(first, first + 8)
    ]


def test_positions_are_those_of_the_chunk_to_the_last_bit() -> None:
    message = trajectory_message(points(), LIMITS.names)
    assert message.joint_names == ["pusher_x", "pusher_y"]
    assert [list(point.positions) for point in message.points] == CHUNK.tolist()
    assert not any(len(point.velocities) or len(point.accelerations) for point in message.points)


def test_velocities_and_accelerations_go_along() -> None:
    message = trajectory_message(points(CHUNK / 7, CHUNK / 9), LIMITS.names)
    assert [list(point.velocities) for point in message.points] == (CHUNK / 7).tolist()
    assert [list(point.accelerations) for point in message.points] == (CHUNK / 9).tolist()


def test_points_outside_of_the_limits_are_clamped_and_counted() -> None:
    chunk = np.array([[0.0, 512.0], [-1.0, 600.0], [5.0, 512.5], [7.0, 8.0]])
    clamped, count = LIMITS.clamp(chunk)
    assert clamped.tolist() == [[0.0, 512.0], [0.0, 512.0], [5.0, 512.0], [7.0, 8.0]]
    assert count == 2


@pytest.mark.parametrize(
    ("names", "lower", "upper", "message"),
    [
        (("a",), (0.0, 0.0), (1.0,), "1 joints, 2 lower_limits and 1 upper_limits"),
        (("a", "a"), (0.0, 0.0), (1.0, 1.0), "each once"),
        (("a", ""), (0.0, 0.0), (1.0, 1.0), "must be named"),
        (("a", "b"), (0.0, 2.0), (1.0, 1.0), "limits of joint b must increase, got 2 … 1"),
        (("a",), (float("nan"),), (1.0,), "limits of joint a must increase"),
    ],
)
def test_bad_limits_are_refused(
    names: tuple[str, ...], lower: tuple[float, ...], upper: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        JointLimits(names, lower, upper)


def test_path_is_a_line_with_a_dot_at_each_point() -> None:
    line, dots = path_markers(
        CHUNK, LIMITS, frame_id="world", stamp_ns=1_500_000_000, lifetime_ns=800_000_000
    ).markers
    assert (line.type, dots.type) == (Marker.LINE_STRIP, Marker.SPHERE_LIST)
    assert line.id != dots.id
    for marker in (line, dots):
        assert marker.header.frame_id == "world"
        assert nanoseconds(marker.header.stamp) == 1_500_000_000
        assert nanoseconds(marker.lifetime) == 800_000_000
        assert [[point.x, point.y, point.z] for point in marker.points] == [[x, y, 0.0] for x, y in CHUNK]
        assert 0 < marker.scale.x < 20
        assert marker.color.a > 0
