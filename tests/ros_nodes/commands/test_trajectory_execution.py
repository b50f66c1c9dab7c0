from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.robot.times import SECOND
from ros_nodes.commands.trajectory_execution import (
    Outcome,
    Point,
    Position,
    Tolerances,
    Trajectory,
    hold,
    judge,
)

ANY = Tolerances(path=(0.0, 0.0), goal=(0.0, 0.0), goal_velocity=(0.0, 0.0))
AT_REST = (0.0, 0.0)

coordinates = st.floats(-1e3, 1e3)
positions = st.tuples(coordinates, coordinates)


def through(
    times: tuple[int, ...],
    positions: tuple[Position, ...],
    *,
    start: Position = (0.0, 0.0),
    start_time: int = 0,
) -> Trajectory:
    points = tuple(Point(position=position) for position in positions)
    return Trajectory(start_time=start_time, start=Point(position=start), times=times, points=points)


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    """Any start time from before the first to after the last point."""
    gaps = draw(st.lists(st.integers(1, 10 * SECOND), min_size=1, max_size=10))
    times = [draw(st.integers(0, 2**62))]
    for gap in gaps:
        times.append(times[-1] + gap)
    start = draw(st.integers(times[0] - SECOND, times[-1] + SECOND))
    points = draw(st.lists(positions, min_size=len(times), max_size=len(times)))
    return through(tuple(times), tuple(points), start=draw(positions), start_time=start)


@given(trajectories())
def test_every_point_is_met_exactly(trajectory: Trajectory) -> None:
    for time, point in zip(trajectory.times, trajectory.points, strict=True):
        assert trajectory.sample(time) == point.position


@given(trajectories(), st.floats(0, 1))
def test_between_two_points_it_is_on_the_line_between_them(trajectory: Trajectory, share: float) -> None:
    for index in range(len(trajectory.times) - 1):
        before, after = trajectory.times[index : index + 2]
        time = before + round((after - before) * share)
        expected = [
            a * (after - time) / (after - before) + b * (time - before) / (after - before)
            for a, b in zip(
                trajectory.points[index].position, trajectory.points[index + 1].position, strict=True
            )
        ]
        assert trajectory.sample(time) == pytest.approx(expected, abs=1e-9)


@given(trajectories(), st.integers(0, 2**62))
def test_after_its_end_it_stays_at_its_last_point(trajectory: Trajectory, later: int) -> None:
    assert trajectory.sample(trajectory.end_time + later) == trajectory.points[-1].position


@given(positions, positions, st.integers(1, SECOND))
def test_the_way_to_the_first_point_starts_where_the_joints_were(
    start: tuple[float, float], point: tuple[float, float], half: int
) -> None:
    trajectory = through((100 + 2 * half,), (point,), start=start, start_time=100)
    middle = [(a + b) / 2 for a, b in zip(start, point, strict=True)]
    assert trajectory.sample(100) == start
    assert trajectory.sample(100 + half) == pytest.approx(middle, abs=1e-9)


def test_points_before_its_start_are_over() -> None:
    """A trajectory that arrives late goes on from where it would be by now, not from its first point."""
    trajectory = through(
        (100, 200, 300), ((0.0, 0.0), (1.0, 2.0), (2.0, 4.0)), start=(9.0, 9.0), start_time=250
    )
    assert trajectory.sample(250) == (1.5, 3.0)


def test_with_velocities_it_leaves_and_meets_points_at_their_speed() -> None:
    points = (Point(position=(1.0,), velocity=(4.0,)), Point(position=(2.0,), velocity=(0.0,)))
    start = Point(position=(0.0,), velocity=(-3.0,))
    trajectory = Trajectory(start_time=0, start=start, times=(SECOND, 2 * SECOND), points=points)

    def speed(time: int) -> float:
        return (trajectory.sample(time + 1000)[0] - trajectory.sample(time)[0]) / 1e-6

    assert [speed(0), speed(SECOND), speed(SECOND - 1000)] == pytest.approx([-3.0, 4.0, 4.0], abs=1e-3)
    assert speed(2 * SECOND - 1000) == pytest.approx(0.0, abs=1e-3)
    assert (trajectory.sample(SECOND), trajectory.sample(3 * SECOND)) == ((1.0,), (2.0,))


@given(positions, st.integers(0, 2**62), st.integers(-SECOND, SECOND))
def test_a_hold_is_where_it_is(position: tuple[float, float], time: int, offset: int) -> None:
    assert hold(position, time).sample(time + offset) == position


def test_without_tolerances_a_trajectory_succeeds_at_its_end_wherever_the_joints_are() -> None:
    trajectory = through((SECOND,), ((1.0, 1.0),))
    assert judge(trajectory, ANY, time=SECOND - 1, position=(500.0, 0.0), velocity=AT_REST) is Outcome.MOVING
    assert (
        judge(trajectory, ANY, time=SECOND, position=(500.0, 0.0), velocity=(99.0, 0.0)) is Outcome.SUCCEEDED
    )


@pytest.mark.parametrize(
    ("time", "position", "velocity", "outcome"),
    [
        (SECOND // 2, (5.0, 5.9), AT_REST, Outcome.MOVING),
        (SECOND // 2, (5.0, 6.1), AT_REST, Outcome.PATH_TOLERANCE_VIOLATED),
        (SECOND // 2, (500.0, 5.0), AT_REST, Outcome.MOVING),  # the first joint has no tolerance
        (SECOND, (9.8, 10.0), AT_REST, Outcome.SUCCEEDED),
        (SECOND, (9.4, 10.0), AT_REST, Outcome.MOVING),
        (SECOND, (10.0, 10.0), (0.0, -4.0), Outcome.MOVING),  # there, but not stopped
        (SECOND + 300, (9.4, 10.0), AT_REST, Outcome.MOVING),
        (SECOND + 301, (9.4, 10.0), AT_REST, Outcome.GOAL_TOLERANCE_VIOLATED),
        (SECOND + 301, (9.8, 10.0), AT_REST, Outcome.SUCCEEDED),
    ],
)
def test_tolerances(
    time: int, position: tuple[float, float], velocity: tuple[float, float], outcome: Outcome
) -> None:
    trajectory = through((SECOND,), ((10.0, 10.0),))
    tolerances = Tolerances(path=(0.0, 1.0), goal=(0.5, 0.0), goal_velocity=(3.0, 3.0), goal_time=300)
    assert judge(trajectory, tolerances, time=time, position=position, velocity=velocity) is outcome


def test_without_a_goal_time_it_waits_for_the_goal_for_ever() -> None:
    trajectory = through((SECOND,), ((10.0, 10.0),))
    tolerances = Tolerances(path=(0.0, 0.0), goal=(0.5, 0.5), goal_velocity=(0.0, 0.0))
    assert (
        judge(trajectory, tolerances, time=10**6 * SECOND, position=(0.0, 0.0), velocity=AT_REST)
        is Outcome.MOVING
    )
